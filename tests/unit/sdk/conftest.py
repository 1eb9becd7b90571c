"""Fixtures: a process that is a task, or somebody's laptop, and services that run as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runkeys import masking
from runkeys._task import environment

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def no_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine: no task, no cluster, no configuration, and nothing that was read before."""
    for name in list(os.environ):
        if name.startswith(("SECRET_", "RUNKEYS_", "PREFECT__", "KUBE")) or name.endswith("_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RUNKEYS_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setattr(environment, "_read", {})
    monkeypatch.setattr(masking, "_masker", masking.Masker())


@pytest.fixture
def in_task(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make this process the task ``fit`` of a run, in a pod: ``in_task({"api": "SECRET_API"}, SECRET_API="…")``."""

    def enter(secrets: dict[str, str], **variables: str) -> None:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
        monkeypatch.setenv("RUNKEYS_TASK", "fit")
        monkeypatch.setenv("RUNKEYS_SECRETS", json.dumps(secrets))
        monkeypatch.setenv("RUNKEYS_MASKING", "off")  # pytest has its own plans with stdout
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return enter


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str


@dataclass
class Service:
    """A service in a folder of its own, and the folders that it is given."""

    folder: Path

    @property
    def runtime(self) -> Path:
        return self.folder / "runtime"

    def program(self, code: str) -> None:
        """Write src/program.py."""
        (self.folder / "src").mkdir(exist_ok=True)
        (self.folder / "src" / "__init__.py").touch()
        (self.folder / "src" / "program.py").write_text(code)

    def give(self, name: str, value: Any) -> None:
        """Write an input document."""
        (self.runtime / "input").mkdir(parents=True, exist_ok=True)
        (self.runtime / "input" / f"{name}.json").write_text(json.dumps(value))

    def run(self, entrypoint: str = "src.program:run", /, **variables: str) -> Ended:
        """`python -m runkeys.runtime` in that folder."""
        return self.python("-m", "runkeys.runtime", entrypoint, **variables)

    def python(self, *words: str, **variables: str) -> Ended:
        """Any Python command in that folder."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "operator"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "RUNKEYS_RUNTIME_DIR": str(self.runtime),
            **variables,
        }
        if not environment["RUNKEYS_RUNTIME_DIR"]:
            del environment["RUNKEYS_RUNTIME_DIR"]
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    @property
    def output(self) -> Any:
        """What it wrote, as JSON."""
        return json.loads((self.runtime / "output" / "output.json").read_text())


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """An empty service."""
    folder = tmp_path / "service"
    folder.mkdir()
    return Service(folder)
