"""Workflows: from one task's end to the next one's Job, and how long a value is in the cluster.

The graph is ten chains of five tasks on the fake node, against a bare loop that makes the same Jobs. Exposure is
measured on the real node, by what the audit log tells of each Secret, against the time that its container ran.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

from testing.cluster.cache import CHECKOUT
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster
from testing.namespace import Team, phase
from testing.workflows import make, task

from .chain_loop import LABEL
from .kwok import pod_template
from .process import placeholder
from .report import Figure, Spread, compared
from .team import anybody, job_of, team

_AIM = 1.5
_WIDTH, _LENGTH = 10, 5
_LONGEST = 240
_PODS = pod_template(start=0.2, run=0.3)
_AIM_ON_START_MS = 500.0


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """Ms from end to next Job; ms of exposure for each release policy and length of task."""
    return [*_chains(node, 1 if quick else 4), *_exposure(node, quick)]


# chains


def _chains(node: NodeCluster, times: int) -> list[Figure]:
    samples: dict[str, list[float]] = {"ours": [], "bare": []}
    with team(node, "chains") as ours, team(node, "chains-bare") as bare:
        ours.operator.start()
        ours.operator.wait_serving()
        for number in range(times):
            mark = node.audit.mark()
            _ours(ours, f"flow-{number}")
            samples["ours"] += _gaps(node, mark, ours, _place_of_ours)
            mark = node.audit.mark()
            _bare(bare)
            samples["bare"] += _gaps(node, mark, bare, _place_of_bare)
            for job in bare.jobs():
                bare.client.delete("jobs", job, bare.namespace, propagationPolicy="Background")
            for job in bare.jobs():
                bare.client.wait_gone("jobs", job, bare.namespace)
    what = f"{_WIDTH * _LENGTH} tasks, {_WIDTH} wide: one's end to the next one's Job"
    return [compared(what, samples["ours"], samples["bare"], _AIM)]


def _ours(made: Team, name: str) -> None:
    tasks: list[dict[str, Any]] = [
        {
            "name": f"t-{column}-{place}",
            "template": _PODS,
            "dependsOn": [f"t-{column}-{place - 1}"] if place else [],
        }
        for place in range(_LENGTH)
        for column in range(_WIDTH)
    ]
    make(made, *tasks, name=name)
    made.wait_phase(name, "Succeeded", timeout=_LONGEST)


def _bare(made: Team) -> None:
    scratch = made.cluster.scratch
    job = job_of(placeholder(made.namespace, {"template": _PODS, "secrets": []}))
    job["metadata"] = {"name": "chain-COLUMN-PLACE", "namespace": made.namespace, "labels": {LABEL: "yes"}}
    job["spec"]["template"]["metadata"]["labels"] = {LABEL: "yes"}
    template = scratch / f"{made.namespace}-chain.json"
    template.write_text(json.dumps(job))
    command = [
        *(sys.executable, "-m", "bench.chain_loop", str(anybody(made))),
        *(made.namespace, str(template), str(_WIDTH), str(_LENGTH)),
    ]
    subprocess.run(command, cwd=CHECKOUT, check=True, timeout=_LONGEST)


def _place_of_ours(job: Object) -> tuple[int, int]:
    _, column, place = job["metadata"]["labels"]["runkeys.dev/task"].split("-")
    return int(column), int(place)


def _place_of_bare(job: Object) -> tuple[int, int]:
    _, column, place = job["metadata"]["name"].split("-")
    return int(column), int(place)


def _gaps(
    node: NodeCluster, mark: int, made: Team, place_of: Callable[[Object], tuple[int, int]]
) -> list[float]:
    """Ms from the answered status that says that a Job is complete to the answered creation of the next one."""
    created: dict[tuple[int, int], datetime] = {}
    complete: dict[tuple[int, int], datetime] = {}
    for event in node.audit.events(mark, namespace=made.namespace):
        if event.status >= 300 or event.resource not in ("jobs", "jobs/status"):
            continue
        job = event.raw.get("responseObject", {})
        if (event.verb, event.resource) == ("create", "jobs"):
            created[place_of(job)] = event.answered
        elif event.resource == "jobs/status" and any(
            item["type"] == "Complete" for item in job.get("status", {}).get("conditions", ())
        ):
            complete.setdefault(place_of(job), event.answered)
    return [
        (created[column, place + 1] - ended).total_seconds() * 1000
        for (column, place), ended in complete.items()
        if (column, place + 1) in created
    ]


# exposure


def _exposure(node: NodeCluster, quick: bool) -> list[Figure]:
    figures: list[Figure] = []
    lengths, times = ((1,), 3) if quick else ((1, 60), 8)
    with team(node, "exposure") as made:
        made.operator.start()
        made.operator.wait_serving()
        for policy, as_file in (("OnCompletion", False), ("OnStart", False), ("OnStart", True)):
            for seconds in lengths:
                samples = _exposed(
                    made, policy, seconds, 1 if seconds > 1 and quick else times, as_file=as_file
                )
                spread = Spread.of(samples)
                score, aim = (spread.p50, _AIM_ON_START_MS) if policy == "OnStart" else (None, None)
                what = f"Value in etcd, {policy}{', as a file' if as_file else ''}, task of {seconds} s"
                figures.append(Figure(what, spread.text("ms"), f"{seconds * 1000} ms of task", score, aim))
    return figures


def _exposed(made: Team, policy: str, seconds: int, times: int, *, as_file: bool) -> list[float]:
    """Ms from the Secret's creation to its deletion, by the status of runs that follow one another.

    Those of a minute run side by side: they mostly sleep.
    """
    asked = [{"name": "api_token", "secret": "token", **({"file": "token"} if as_file else {})}]
    names = [f"{policy.lower()}-{'file' if as_file else 'env'}-{seconds}-{number}" for number in range(times)]
    found = []
    for name in names:
        sleeper = task("work", secrets=asked, releasePolicy=policy)
        container = sleeper["template"]["spec"]["containers"][0]
        container["command"] = ["sleep", str(seconds)]
        make(made, sleeper, name=name)
        if seconds == 1:
            made.wait_phase(name, "Succeeded", timeout=_LONGEST)
    for name in names:
        run = made.wait_phase(name, "Succeeded", "Failed", timeout=_LONGEST)
        if phase(run) != "Succeeded":
            raise RuntimeError(f"{name}: {run['status']}")
        (exposure,) = run["status"]["tasks"][0]["attempts"][0]["exposures"]
        ended, began = (datetime.fromisoformat(exposure[key]) for key in ("deleted", "created"))
        found.append((ended - began).total_seconds() * 1000)
    return found
