"""What a process uses, and the bare loop as a process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from testing.cluster.base import wait_until
from testing.cluster.cache import CHECKOUT
from testing.cluster.client import Object
from testing.namespace import Team, run

from .team import job_of

_MB = 1e6
_PLACE = {"name": "some-run", "uid": "00000000-0000-4000-8000-000000000000"}


@dataclass(frozen=True)
class Process:
    """One process of this machine, by its number."""

    pid: int

    def cpu_seconds(self) -> float:
        """CPU time of all its threads since it began, user and system, to the nanosecond."""
        return time.clock_gettime((~self.pid << 3) | 2)  # clock_getcpuclockid(3)

    def memory(self) -> float:
        """Resident set in MB."""
        return psutil.Process(self.pid).memory_info().rss / _MB

    def forget_peak(self) -> None:
        """Have the peak begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak(self) -> float:
        """Largest resident set since then, in MB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        found = next(line for line in lines if line.startswith("VmHWM:"))
        return int(found.split()[1]) * 1024 / _MB

    def check(self) -> None:
        """Raise RuntimeError if it has ended."""
        if not psutil.pid_exists(self.pid) or psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError(f"process {self.pid} ended while it was measured")


@contextmanager
def bare_loop(made: Team, task: Object | None = None) -> Iterator[Process]:
    """The loop of ``bare_loop.py`` with the rights of the operator whose place it takes.

    :param task: what is changed of the task of every run (as in ``make_run``): the loop makes their Jobs too.
    """
    scratch = made.cluster.scratch
    log = scratch / f"{made.namespace}-bare-loop.log"
    command = [
        *(sys.executable, "-m", "bench.bare_loop"),
        *(str(made.operator.kubeconfig), made.namespace),
    ]
    if task is not None:
        template = scratch / f"{made.namespace}-job.json"
        template.write_text(json.dumps(job_of(placeholder(made.namespace, task))))
        command += ["--jobs", str(template)]
    with log.open("wb") as output:
        loop = subprocess.Popen(command, stdout=output, stderr=output, cwd=CHECKOUT)
    try:
        wait_until("the bare loop", lambda: _serves(loop, log))
        yield Process(loop.pid)
    finally:
        loop.kill()
        loop.wait(10)
        print(log.read_text().removeprefix("serving\n"), end="")


def placeholder(namespace: str, task: Object) -> Object:
    """A run that is nowhere stored, for a Job in which names are replaced."""
    found = run(namespace, _PLACE["name"], task=task)
    found["metadata"]["uid"] = _PLACE["uid"]
    return found


def _serves(loop: subprocess.Popen[bytes], log: Path) -> bool:
    if loop.poll() is not None:
        raise RuntimeError(log.read_text())
    return "serving" in log.read_text()
