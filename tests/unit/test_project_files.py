"""Workflows, templates and versions: files that only other people's machines read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import runkeys
from scripts import version
from scripts.release.__main__ import STEPS

ROOT = Path(__file__).parents[2]
RELEASE = ROOT / ".github" / "workflows" / "release.yml"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z0-9.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
MAKE = re.compile(r"(?:sudo --preserve-env=[A-Z0-9_,]+ )?make ([a-z0-9.-]+)(?: STEP=([a-z]+))?")
PINNED = re.compile(r"\b([\w.-]+/[\w.-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+$")
MAY_WRITE = {
    ("release", "image"): {"packages", "id-token", "attestations"},
    ("release", "files"): {"packages", "id-token", "attestations"},
    ("release", "package"): {"id-token"},
    ("release", "page"): {"contents"},
}
"""What a job may do beyond reading. A job that builds nothing has one right only."""


def steps(path: Path) -> list[dict[str, Any]]:
    workflow = yaml.safe_load(path.read_text())
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_only_call_make(path: Path) -> None:
    """What CI does, everybody can do."""
    commands = [step["run"] for step in steps(path) if "run" in step]
    called = [MAKE.fullmatch(command) for command in commands]

    assert commands
    assert all(called), commands
    assert {found[1] for found in called if found} <= TARGETS
    assert {found[2] for found in called if found and found[2]} <= STEPS.keys()


def test_the_release_takes_every_step() -> None:
    called = [MAKE.fullmatch(step["run"]) for step in steps(RELEASE) if "run" in step]

    assert {found[2] or "artifacts" for found in called if found} == STEPS.keys()


def test_a_release_publishes_for_a_tag_only() -> None:
    """Each step that needs a login or the identity of the workflow asks for a tag first, or its job does."""
    workflow = yaml.safe_load(RELEASE.read_text())
    tag = "github.ref_type == 'tag'"
    publishing = re.compile(
        r"login-action|cosign|actions/attest|STEP=(index|chart|outputs|sign|package|page)"
    )
    found = [
        (str(step.get("uses") or step["run"]), tag in (step.get("if"), job.get("if")))
        for job in workflow["jobs"].values()
        for step in job["steps"]
        if publishing.search(str(step.get("uses") or step["run"]))
    ]

    assert workflow["env"]["REGISTRY"].startswith(f"${{{{ {tag} && ")
    assert len(found) > 10
    assert [name for name, asks in found if not asks] == []


def test_what_can_publish_runs_only_code_that_is_pinned() -> None:
    """By commit, since a tag of another repository can be moved, with the version for people and dependabot."""
    lines = [line for line in RELEASE.read_text().splitlines() if "uses:" in line]

    assert len(lines) > 10
    assert [line.strip() for line in lines if not PINNED.search(line)] == []
    versions = {found[1]: found[0] for line in lines if (found := PINNED.search(line))}
    assert all(line.count(versions[name]) for name in versions for line in lines if f"{name}@" in line)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_only_read_and_end_in_time(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())

    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        rights = job.get("permissions", workflow["permissions"])
        assert {key for key, right in rights.items() if right != "read"} == MAY_WRITE.get(
            (path.stem, name), set()
        )
    assert all(job["timeout-minutes"] <= 120 for job in workflow["jobs"].values())
    checkouts = [step["with"] for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == len(workflow["jobs"])
    assert all(found["persist-credentials"] is False for found in checkouts)


def test_dependabot_looks_at_folders_that_are_there() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    folders = [folder for item in updates for folder in item.get("directories", [item.get("directory")])]

    assert all(folder == "/" or list(ROOT.glob(folder.strip("/"))) for folder in folders)
    assert (ROOT / "operator" / "Dockerfile").exists()


def test_issue_templates_ask_for_something() -> None:
    forms = [
        yaml.safe_load(path.read_text())
        for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")
        if path.stem != "config"
    ]

    assert len(forms) == 2
    for form in forms:
        assert {"name", "description", "body"} <= form.keys()
        assert any(item.get("validations", {}).get("required") for item in form["body"])


def test_the_version_is_written_from_one_place() -> None:
    chart = version.CHART.read_text()

    assert version.written(chart, runkeys.__version__) == chart
    assert version.written(chart, "9.8.7").count(": 9.8.7") == 2
    assert re.fullmatch(r"\d+\.\d+\.\d+", runkeys.__version__), "helm and Python agree on X.Y.Z only"
