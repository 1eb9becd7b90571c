"""The workflows of GitHub, which run nowhere here, are what GitHub takes (actionlint)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from testing.cluster import build
from testing.cluster.cache import CHECKOUT

WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))

pytestmark = pytest.mark.e2e


def actionlint(path: Path) -> subprocess.CompletedProcess[str]:
    build.ensure(("actionlint",))
    # Without helpers that a machine may have or not. All that the workflows run is make.
    command = [str(build.program("actionlint")), "-no-color", "-shellcheck=", "-pyflakes=", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_one(path: Path) -> None:
    done = actionlint(path)

    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("steps.names.outputs", "steps.nmaes.outputs", 'property "nmaes" is not defined'),
        ("needs: image", "needs: imgae", 'needs job "imgae"'),
        ("github.ref_type ==", "github.ref_typo ==", 'property "ref_typo" is not defined'),
        ("ubuntu-24.04-arm", "ubuntu-24.04-amr", 'label "ubuntu-24.04-amr" is unknown'),
        ("packages: write", "package: write", 'unknown permission scope "package"'),
        ("push: {tags:", "push: {tag:", 'unexpected key "tag"'),
    ],
)
def test_what_is_wrong_is_found(right: str, wrong: str, message: str, tmp_path: Path) -> None:
    """Negative controls: mistakes that would show only when somebody releases."""
    text = (CHECKOUT / ".github" / "workflows" / "release.yml").read_text()
    assert right in text
    path = tmp_path / "release.yml"
    path.write_text(text.replace(right, wrong))
    done = actionlint(path)

    assert done.returncode != 0
    assert message in done.stdout
