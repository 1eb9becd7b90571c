"""What runs cost the operator: memory and CPU time, with pods on the fake node.

Each measurement is an operator and a namespace of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil

from tests.e2e.cluster.base import wait_until
from tests.e2e.cluster.client import Object
from tests.e2e.cluster.node import NodeCluster
from tests.e2e.runs.team import Team, phase

from .kwok import pod_template
from .reaction import delays
from .report import Figure, Spread
from .team import team

_MB = 1e6
_MOST_MB = 120
_MOST_GROWTH = 1.2
_LONGEST = 300.0
_LIVE_FOR = 3600


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """Memory when idle and with many live runs; CPU time for each run, few or many at once."""
    few, many = (20, 100) if quick else (100, 1000)
    return [*_memory(node, many), *_cpu(node, few, many)]


def _memory(node: NodeCluster, live: int) -> list[Figure]:
    with _serving(node, f"live-{live}") as (made, process):
        idle = process.memory_info().rss / _MB
        _make_runs(made, live, _LIVE_FOR)
        _wait_all(made, live, lambda run: run["status"].get("live") == 1 and phase(run) == "Running")
        time.sleep(5)  # what served the rush is given back
        full = process.memory_info().rss / _MB
    per_run = (full - idle) * 1000 / live
    return [
        Figure("Operator's memory, idle", f"{idle:.0f} MB"),
        Figure(f"Operator's memory, {live} live runs", f"{full:.0f} MB", "", full, _MOST_MB),
        Figure("  for each of them", f"{per_run:.1f} kB"),
    ]


def _cpu(node: NodeCluster, few: int, many: int) -> list[Figure]:
    figures: list[Figure] = []
    costs: list[float] = []
    for count in (few, many):
        with _serving(node, f"cpu-{count}") as (made, process):
            mark, before = node.audit.mark(), _cpu_seconds(process)
            _make_runs(made, count, 1)
            _wait_all(made, count, lambda run: phase(run) == "Succeeded")
            costs.append((_cpu_seconds(process) - before) / count * 1000)
            rate, writes, reads = _pace(node, mark, made, count)
        ratio, aim = (costs[-1] / costs[0], _MOST_GROWTH) if count == many else (None, None)
        peer = f"{costs[0]:.1f} ms" if count == many else ""
        figures += [
            Figure(f"CPU time for each run, {count} at once", f"{costs[-1]:.1f} ms", peer, ratio, aim),
            Figure("  Secrets made", f"{rate:.0f} runs/s"),
            Figure("  pod bound to Secret made", Spread.of(delays(node, mark, made)[0]).text("ms")),
            Figure("  requests", f"{writes:.2f} writes, {reads:.1f} reads a run"),
        ]
    return figures


@contextmanager
def _serving(node: NodeCluster, hint: str) -> Iterator[tuple[Team, psutil.Process]]:
    """An operator that has come to rest after its start."""
    with team(node, hint) as made:
        made.operator.start()
        made.operator.wait_serving()
        time.sleep(3)
        yield made, psutil.Process(made.operator.pid)


def _make_runs(made: Team, count: int, seconds: float) -> None:
    # a pod of the fake node waits for no Secret, so it waits for a time that is long enough
    task = {"template": pod_template(start=5 + count / 25, run=seconds)}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: made.make_run(f"run-{number:04d}", task=task), range(count)))


def _wait_all(made: Team, count: int, what: Callable[[Object], bool]) -> None:
    def all_of_them() -> bool:
        runs = made.client.list("workflowruns", made.namespace)
        return len(runs) == count and all("status" in run and what(run) for run in runs)

    wait_until(f"{count} runs", all_of_them, _LONGEST, every=2)


def _pace(node: NodeCluster, mark: int, made: Team, count: int) -> tuple[float, float, float]:
    """Secrets made per second from the first run on, and writes and reads for each run."""
    account = f"system:serviceaccount:{made.namespace}:"
    began = next(node.audit.events(mark, verb="create", resource="workflowruns", namespace=made.namespace))
    calls = [
        event
        for event in node.audit.events(mark, namespace=made.namespace)
        if event.user.startswith(account) and event.verb != "watch"
    ]
    reads = sum(event.verb in ("get", "list") for event in calls)
    secrets = [event for event in calls if (event.verb, event.resource) == ("create", "secrets")]
    if len(secrets) != count:
        raise RuntimeError(f"{count} runs, but {len(secrets)} Secrets: pods of the fake node started without")
    rate = count / (secrets[-1].answered - began.received).total_seconds()
    return rate, (len(calls) - reads) / count, reads / count


def _cpu_seconds(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)
