"""How much later a container runs when its Secret is made just in time.

One run at a time on the real node, alternating with the same Job whose Secret was there before it. The clock runs
from the watch event that shows the Job to the one that shows its container running, both seen by one process.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import urllib3

from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster
from testing.namespace import Team
from testing.namespace import run as run_manifest

from .report import Figure, compared
from .team import job_of, team

_AIM = 1.05
_LONGEST = 60.0
_COMMAND = ["sh", "-c", 'test -n "$SECRET_API_TOKEN" && sleep 0.2']


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """One figure: ms from the Job to its container running."""
    pairs = 6 if quick else 40
    with team(node, "start") as made:
        made.operator.start()
        made.operator.wait_serving()
        seen = _Watcher(made, seconds=600)
        kinds: tuple[Callable[[str], str], ...] = (
            lambda name: _just_in_time(made, name),
            lambda name: _ready_made(made, name),
        )
        samples: tuple[list[float], list[float]] = ([], [])
        for number in range(-1, pairs):  # the first pair only warms up
            for which in (0, 1) if number % 2 else (1, 0):
                job = kinds[which](f"{'ab'[which]}-{number + 1:03d}")
                taken = seen.wait_ended(job)
                if number >= 0:
                    samples[which].append(taken * 1000)
        return [compared("Job to container running, Secret made just in time or before", *samples, _AIM)]


def _just_in_time(made: Team, name: str) -> str:
    return made.object_name(made.make_run(name, command=_COMMAND))


def _ready_made(made: Team, name: str) -> str:
    # never stored, so the operator knows nothing of it; a label of another's name keeps its pod out of its watch
    run = made.client.create(run_manifest(made.namespace, name, command=_COMMAND), dryRun="All")
    job = job_of(run)
    job["metadata"].pop("ownerReferences")
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        metadata["labels"] = {"app": "ready-made"}
    # With a name as any Job of a user's: those of the operator's are for the operator alone.
    job = json.loads(json.dumps(job).replace("rk-", "own-"))
    ready = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": job["metadata"]["name"], "namespace": made.namespace},
        "immutable": True,
        "stringData": {"SECRET_API_TOKEN": made.value},
    }
    made.client.create(ready)
    made.client.create(job)
    return str(job["metadata"]["name"])


class _Watcher:
    """Notes when each Job was first seen, when its container ran, and that it ended."""

    def __init__(self, made: Team, seconds: float) -> None:
        self._jobs: dict[str, float] = {}
        self._running: dict[str, float] = {}
        self._ended: dict[str, str] = {}

        def watch(resource: str, saw: Callable[[Object, float], None]) -> None:
            # the watch outlives what it was opened for, and breaks when the node ends
            with suppress(urllib3.exceptions.HTTPError):
                for _, item in made.client.watch(resource, made.namespace, timeout=seconds):
                    saw(item, time.perf_counter())

        for arguments in (("jobs", self._on_job_event), ("pods", self._on_pod_event)):
            threading.Thread(target=watch, args=arguments, daemon=True).start()

    def wait_ended(self, job: str) -> float:
        """Wait for the Job's pod to have ended; seconds from the Job to its container running."""
        wait_until(f"the end of the pod of {job}", lambda: job in self._ended, _LONGEST)
        if self._ended[job] != "Succeeded":
            raise RuntimeError(f"the pod of {job} ended as {self._ended[job]}")
        return self._running[job] - self._jobs[job]

    def _on_job_event(self, job: Object, now: float) -> None:
        self._jobs.setdefault(job["metadata"]["name"], now)

    def _on_pod_event(self, pod: Object, now: float) -> None:
        job, phase = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"], pod["status"]["phase"]
        if any(
            {"running", "terminated"} & item["state"].keys()
            for item in pod["status"].get("containerStatuses", ())
        ):
            self._running.setdefault(job, now)
        if phase in ("Succeeded", "Failed"):
            self._ended[job] = phase
