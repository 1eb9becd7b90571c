"""`runkeys init`: what it makes works at once, by the lines of the tutorial."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from runkeys.api import WorkflowRun
from runkeys.cli.runs import read_manifest
from tests.unit.cli.terminal import ROOT, Terminal, environment

TUTORIAL = ROOT / "docs" / "coming-from" / "qhub-services.md"


def test_the_project_runs_at_once(terminal: Terminal, golden: Callable[[str, str], None]) -> None:
    golden("init", terminal.ok("init", "hello", "-o", "name"))
    assert (terminal.folder / "hello" / ".env").read_text() == "SECRET_API_TOKEN=change-me\n"
    inside = replace(terminal, folder=terminal.folder / "hello")
    done = inside.run("run", "--local", "-f", "workflow.yaml", "--env-file", ".env", "-o", "json")
    assert done.code == 0, done
    assert "Hello world!" in done.err
    status = json.loads(done.out)["status"]
    assert status["tasks"][0]["output"] == {"greeting": "Hello world!", "token_length": 9}


def test_its_tests_pass(terminal: Terminal) -> None:
    terminal.ok("init", "hello", "other")
    done = subprocess.run(
        [sys.executable, "-m", "unittest"],
        cwd=terminal.folder / "other",
        env=environment(terminal.folder),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr


def lines_of_the_tutorial() -> str:
    """The first block of shell lines of the page."""
    found = re.search(r"^```sh\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def requirements(name: str) -> Iterator[Distribution]:
    """An installed distribution and all that it needs, for this Python and without extras."""
    todo, seen = [name], set()
    while todo:
        item = distribution(todo.pop())
        if item.name in seen:
            continue
        seen.add(item.name)
        yield item
        wanted = [Requirement(text) for text in item.requires or []]
        todo += [need.name for need in wanted if need.marker is None or need.marker.evaluate({"extra": ""})]


def as_wheel(item: Distribution, folder: Path) -> None:
    """An installed distribution as the wheel that it came from, so that the test needs no index."""
    tag = re.findall(r"^Tag: (\S+)$", item.read_text("WHEEL") or "", re.MULTILINE)[0]
    name = re.sub(r"[-_.]+", "_", item.name)
    rows = []
    with zipfile.ZipFile(folder / f"{name}-{item.version}-{tag}.whl", "w") as wheel:
        for file in item.files or []:
            path = Path(str(file.locate()))
            if (
                file.parts[0] == ".."
                or file.suffix == ".pyc"
                or file.name in ("RECORD", "INSTALLER", "REQUESTED")
            ):
                continue
            digest = (
                base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
            )
            rows.append((str(file), f"sha256={digest}", str(path.stat().st_size)))
            wheel.write(path, str(file))
        record = next(str(file) for file in item.files or [] if file.name == "RECORD")
        lines = [",".join(row) for row in (*rows, (record, "", ""))]
        assert all(len(row) == 3 for row in csv.reader(lines))
        wheel.writestr(record, "\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `uv sync` installs: this checkout, and what it needs as it is installed here."""
    folder = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("cryptography", "platformdirs", "pydantic"):
        for item in requirements(name):
            as_wheel(item, folder)
    return folder


def test_the_lines_of_the_tutorial_run_as_they_are(terminal: Terminal, wheels: Path) -> None:
    programs = terminal.folder / "bin"
    programs.mkdir()
    (programs / "uv").symlink_to(Path(sysconfig.get_path("scripts")) / "uv")
    (programs / "runkeys").write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT / "operator"} exec {sys.executable} -m runkeys "$@"\n'
    )
    (programs / "runkeys").chmod(0o755)
    env = environment(
        terminal.folder,
        UV_PYTHON=sys.executable,
        UV_FIND_LINKS=str(wheels),
        UV_NO_INDEX="1",
        UV_OFFLINE="1",
        UV_CACHE_DIR=str(terminal.folder / "cache"),
    )
    env["PATH"] = f"{programs}:{env['PATH']}"
    del env["PYTHONPATH"]
    lines = lines_of_the_tutorial()
    assert lines.splitlines()[0] == "runkeys init"
    done = subprocess.run(
        ["bash", "-exu"],
        input=lines.replace("\npython -m src\n", "\npython -m src\ncat output/output.json; echo\n"),
        cwd=terminal.folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done
    printed = [line for line in done.stdout.splitlines() if line]
    results = [json.loads(line) for line in printed if line.startswith("{")]
    assert printed.count("Hello world!") == 2
    assert [item["token_length"] for item in results] == [len("your-test-token-here"), len("change-me")]
    assert "Ran 1 test" in done.stderr
    assert (terminal.folder / "user_code" / ".venv").is_dir()


def test_two_words_are_template_and_folder(terminal: Terminal) -> None:
    for words in (("other", "folder"), ("hello", "a", "b")):
        done = terminal.run("init", *words)
        assert (done.code, list(terminal.folder.iterdir())) == (2, [])
        assert "there is one template, hello" in done.err
    (terminal.folder / "file").touch()
    done = terminal.run("init", "file")
    assert (done.code, "file is a file; name a folder" in done.err) == (5, True)


def test_git_ignores_its_secrets(terminal: Terminal) -> None:
    terminal.ok("init", "hello")
    folder = terminal.folder / "hello"
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True, timeout=180)
    done = subprocess.run(
        ["git", "status", "--short", "-uall"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert ".env" not in done.stdout.split()
    assert ".gitignore" in done.stdout.split()


def test_it_overwrites_nothing(terminal: Terminal) -> None:
    (terminal.folder / "hello").mkdir()
    (terminal.folder / "hello" / "mine").write_text("mine")
    done = terminal.run("init", "hello")
    assert done.code == 5
    assert "hello is not empty" in done.err
    assert [path.name for path in (terminal.folder / "hello").iterdir()] == ["mine"]


def test_the_workflow_is_one_that_the_cluster_takes(terminal: Terminal) -> None:
    terminal.ok("init", "hello")
    manifest = read_manifest(str(terminal.folder / "hello" / "workflow.yaml"))
    assert WorkflowRun.parse(manifest).spec.tasks[0].secrets[0].secret == "api_token"
