"""What a user waits for before anything happens: the SDK's import and the command line's help, against bare Python."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from testing.cluster.cache import CHECKOUT
from testing.cluster.node import NodeCluster

from .report import Figure, Spread

_IMPORT_MS, _HELP_MS, _RUNTIME_MS = 150, 200, 250
_SERVICE = """
from runkeys import SecretValue

def run(data: dict, api_token: SecretValue) -> dict:
    return {"length": len(api_token.unwrap())}
"""
_COMMANDS = {
    "bare": ["-c", "pass"],
    "import": ["-c", "import runkeys"],
    "get": ["-c", "from runkeys import secrets; secrets.get('api_token')"],
    "help": ["-m", "runkeys", "--help"],
    "runtime": ["-m", "runkeys.runtime", "service:run"],
}


def measure(node: NodeCluster, quick: bool) -> list[Figure]:  # noqa: ARG001 -- needs no cluster
    """Each command as a process of its own, in turns; ms more than a Python that does nothing."""
    taken: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    with TemporaryDirectory() as scratch:
        folder = _service(Path(scratch))
        for number in range(-1, 5 if quick else 30):
            for name, words in _COMMANDS.items():
                took = _timed(words, folder)
                if number >= 0:  # the first round only fills caches
                    taken[name].append(took)
    bare = Spread.of(taken["bare"])
    return [
        _more("import runkeys", taken["import"], bare, _IMPORT_MS),
        _more("from runkeys import secrets; secrets.get(…) in a task", taken["get"], bare, None),
        _whole("runkeys --help", taken["help"], bare, _HELP_MS),
        _more("a service under runkeys.runtime", taken["runtime"], bare, _RUNTIME_MS),
    ]


def _service(folder: Path) -> Path:
    (folder / "service.py").write_text(_SERVICE)
    for name in ("input", "output"):
        (folder / name).mkdir()
    (folder / "input" / "data.json").write_text("{}")
    return folder


def _timed(words: list[str], folder: Path) -> float:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(CHECKOUT / "operator"),
        "RUNKEYS_TASK": "bench",
        "RUNKEYS_SECRETS": '{"api_token": "SECRET_API_TOKEN"}',
        "SECRET_API_TOKEN": "bench",
    }
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *words], env=environment, cwd=folder, check=True, timeout=60, capture_output=True
    )
    return (time.perf_counter() - began) * 1000


def _more(what: str, samples: list[float], bare: Spread, aim: float | None) -> Figure:
    found = Spread.of(samples)
    return Figure(f"{what}, over bare Python", found.text("ms"), bare.text("ms"), found.p50 - bare.p50, aim)


def _whole(what: str, samples: list[float], bare: Spread, aim: float) -> Figure:
    found = Spread.of(samples)
    return Figure(what, found.text("ms"), bare.text("ms"), found.p50, aim)
