"""How long the operator takes to make and to delete a Secret, against a bare loop that makes the same calls.

One run at a time on the fake node, alternating. Both clocks are the API server's, as the audit log tells: from the
answered binding of the pod to the answered creation of its Secret, and from the answered status that says that
the pod has ended to the answered deletion. So they include the way of the watch event, for both alike.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tests.e2e.cluster.base import wait_until
from tests.e2e.cluster.cache import CHECKOUT
from tests.e2e.cluster.client import Object
from tests.e2e.cluster.node import NodeCluster
from tests.e2e.runs.team import Team

from .kwok import pod_template
from .report import Figure, compared
from .team import job_of, team

_AIM = 1.5
_TASK = {"template": pod_template(start=0.2, run=0.1)}
_LONGEST = 60.0


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """Two figures: ms from bound to Secret made, and from ended to Secret gone."""
    pairs = 8 if quick else 80
    with team(node, "reaction-operator") as ours, team(node, "reaction-bare") as floor, _bare_loop(floor):
        ours.operator.start()
        ours.operator.wait_serving()
        mark = node.audit.mark()
        for number in range(-1, pairs):  # the first pair only warms up
            if number == 0:
                mark = node.audit.mark()
            for made in (ours, floor) if number % 2 else (floor, ours):
                run = made.make_run(f"run-{number + 1:03d}", task=_TASK)
                if made is floor:
                    made.client.create(job_of(run))
                _wait_done(made, run)
        made_after, gone_after = delays(node, mark, ours)
        floor_made, floor_gone = delays(node, mark, floor)
    return [
        compared("Pod bound to Secret made, operator or bare loop", made_after, floor_made, _AIM),
        compared("Pod ended to Secret gone, operator or bare loop", gone_after, floor_gone, _AIM),
    ]


@contextmanager
def _bare_loop(made: Team) -> Iterator[None]:
    """The loop of ``bare_loop.py`` with the rights of the operator whose place it takes."""
    kubeconfig = made.cluster.scratch / f"{made.namespace}.kubeconfig"
    log = made.cluster.scratch / "bare-loop.log"
    command = [sys.executable, "-m", "bench.bare_loop", str(kubeconfig), made.namespace]
    with log.open("wb") as output:
        loop = subprocess.Popen(command, stdout=output, stderr=output, cwd=CHECKOUT)
    try:
        wait_until("the bare loop", lambda: _serves(loop, log), timeout=15)
        yield
    finally:
        loop.kill()
        loop.wait(10)
    print(log.read_text().removeprefix("serving\n"), end="")


def _serves(loop: subprocess.Popen[bytes], log: Path) -> bool:
    if loop.poll() is not None:
        raise RuntimeError(log.read_text())
    return bool(log.read_text())


def _wait_done(made: Team, run: Object) -> None:
    def complete(job: Object) -> bool:
        return any(item["type"] == "Complete" for item in job["status"].get("conditions", ()))

    name = made.object_name(run)
    made.client.wait_for("jobs", name, made.namespace, complete, _LONGEST)
    wait_until(f"the end of Secret {name}", lambda: not made.live_secrets(), _LONGEST)


def delays(node: NodeCluster, mark: int, made: Team) -> tuple[list[float], list[float]]:
    """Bound to made and ended to gone, in ms, of every run in the namespace since ``mark``."""
    at: dict[str, dict[str, datetime]] = {}
    for event in node.audit.events(mark, namespace=made.namespace):
        what = f"{event.verb} {event.resource}"
        if event.status >= 300 or what not in _STEPS:
            continue
        job = event.name if event.resource == "secrets" else event.name.rpartition("-")[0]
        times = at.setdefault(job, {})
        times[_STEPS[what]] = event.answered
    made_after = [_ms(times["made"], times["bound"]) for times in at.values()]
    gone_after = [_ms(times["gone"], times["ended"]) for times in at.values()]
    return made_after, gone_after


# The fake node writes the status of a pod twice: when it starts, and when it ends.
_STEPS = {
    "create pods/binding": "bound",
    "create secrets": "made",
    "patch pods/status": "ended",
    "delete secrets": "gone",
}


def _ms(later: datetime, earlier: datetime) -> float:
    return (later - earlier).total_seconds() * 1000
