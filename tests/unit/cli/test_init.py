"""`runkeys init hello`: what it makes works at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

from runkeys.api import WorkflowRun
from runkeys.cli.runs import read_manifest
from tests.unit.cli.terminal import Terminal, environment


def test_the_project_runs_at_once(terminal: Terminal, golden: Callable[[str, str], None]) -> None:
    golden("init", terminal.ok("init", "hello", "-o", "name"))
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
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr


def test_git_ignores_its_secrets(terminal: Terminal) -> None:
    terminal.ok("init", "hello")
    folder = terminal.folder / "hello"
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True, timeout=30)
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
    assert WorkflowRun.parse(manifest).spec.tasks[0].secrets[0].secret == "hello-token"
