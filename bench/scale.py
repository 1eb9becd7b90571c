"""Many runs at once: how fast they go and what they cost, the operator against the bare loop.

Pods are on the fake node. Each measurement has a namespace and a process of its own; the operator and the bare loop
take turns. Both see to the whole life of every run, from the WorkflowRun to its final status.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from statistics import fmean

from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster
from testing.namespace import Team

from .calls import Calls, calls
from .kwok import pod_template
from .process import Process, bare_loop
from .report import Figure, Spread
from .team import team

_MOST_MB = 90
_MOST_GROWTH = 1.2
_MOST_SLOWER = 1.67  # at least 0.6 of the bare loop's runs/s
_MOST_CPU_MS = 10
_MOST_READS = 7
_BOUND_MS, _BOUND_AT = 100, 100
_LONGEST = 300.0
_LIVE_FOR = 3600
_RUN = 1.0


@dataclass(frozen=True)
class Sample:
    """One measurement: ``cpu`` in ms a run, ``peak`` and ``after`` (5 s after the end) in MB of resident set."""

    cpu: float
    peak: float
    after: float
    calls: Calls = field(repr=False)


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """Memory with many live runs; pace, CPU time, memory and requests, few and many at once."""
    few, many, rounds = (20, 100, 1) if quick else (100, 1000, 2)
    figures = _memory(node, many)
    costs: list[float] = []
    for count in (few, many):
        samples: dict[str, list[Sample]] = {"operator": [], "bare": []}
        for number in range(rounds):
            for who in sorted(samples, reverse=number % 2 == 0):
                samples[who].append(_sample(node, who, count))
        figures += _figures(count, _Side(samples["operator"]), _Side(samples["bare"]))
        costs.append(_Side(samples["operator"]).mean(lambda sample: sample.cpu))
    what = f"CPU time of the operator a run, {many} at once or {few}"
    return [
        *figures,
        Figure(what, f"{costs[1]:.1f} ms", f"{costs[0]:.1f} ms", costs[1] / costs[0], _MOST_GROWTH),
    ]


def measure_most(node: NodeCluster, quick: bool) -> list[Figure]:
    """The same for 10,000 at once, one sample of each, beside one of 100: three quarters of an hour.

    Half of that is the removal of the operator's namespace; the bare loop's goes with the node.
    """
    few, most = (20, 500) if quick else (100, 10_000)
    ours = {count: _Side([_sample(node, "operator", count)]) for count in (few, most)}
    print(f"{most} runs of the operator: {ours[most].samples[0]}", flush=True)
    bare = _Side([_sample(node, "bare", most, clean_up=False)])
    costs = {count: side.mean(lambda sample: sample.cpu) for count, side in ours.items()}
    what = f"CPU time of the operator a run, {most} at once or {few}"
    return [
        *_figures(most, ours[most], bare),
        Figure(
            what,
            f"{costs[most]:.1f} ms",
            f"{costs[few]:.1f} ms",
            costs[most] / costs[few],
            _MOST_GROWTH,
        ),
    ]


def _memory(node: NodeCluster, live: int) -> list[Figure]:
    with team(node, f"live-{live}") as made, serving(made) as process:
        idle = process.memory()
        make_live(made, live)
        time.sleep(5)  # what served the rush is given back
        full = process.memory()
    per_run = (full - idle) * 1000 / live
    return [
        Figure("Operator's memory, idle", f"{idle:.0f} MB"),
        Figure(f"Operator's memory, {live} live runs", f"{full:.0f} MB", "", full, _MOST_MB),
        Figure("  for each of them", f"{per_run:.1f} kB"),
    ]


# one measurement


@contextmanager
def serving(made: Team) -> Iterator[Process]:
    """The operator, come to rest after its start."""
    made.operator.start()
    made.operator.wait_serving()
    time.sleep(3)
    yield Process(made.operator.pid)


@contextmanager
def _operator(made: Team, _: Object) -> Iterator[Process]:
    with serving(made) as process:
        yield process


@contextmanager
def _bare(made: Team, task: Object) -> Iterator[Process]:
    with bare_loop(made, task) as process:
        time.sleep(3)
        yield process


_SERVERS: dict[str, Callable[[Team, Object], AbstractContextManager[Process]]] = {
    "operator": _operator,
    "bare": _bare,
}


def _sample(node: NodeCluster, who: str, count: int, *, clean_up: bool = True) -> Sample:
    task = {"template": pod_template(start_after(count), _RUN)}
    with team(node, f"{who}-{count}", clean_up=clean_up) as made, _SERVERS[who](made, task) as process:
        mark, before = node.audit.mark(), process.cpu_seconds()
        process.forget_peak()
        make_runs(made, count, task)
        wait_none(made, process, "status.phase!=Succeeded", _LONGEST + count / 10)
        cpu = (process.cpu_seconds() - before) / count * 1000
        peak = process.peak()
        time.sleep(5)
        return Sample(cpu, peak, process.memory(), calls(node, mark, made, count))


def make_live(made: Team, count: int) -> None:
    """Make runs whose pods go on for an hour, and wait until each of them has its Secret and runs.

    Others may have succeeded before.
    """
    task = {"template": pod_template(start_after(count), _LIVE_FOR)}
    make_runs(made, count, task)
    process = Process(made.operator.pid)
    for fields in ("status.live!=1", "status.phase!=Running"):
        wait_none(made, process, f"{fields},status.phase!=Succeeded")


def make_runs(made: Team, count: int, task: Object) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: made.make_run(f"run-{number:04d}", task=task), range(count)))


def start_after(count: int) -> float:
    """Seconds: a pod of the fake node waits for no Secret, so it waits for a time that is long enough."""
    return 5 + count / 25


def wait_none(made: Team, process: Process, fields: str, longest: float = _LONGEST) -> None:
    """Wait until no run is left that the field selector finds; what is listed becomes less and less."""

    def none() -> bool:
        process.check()
        return not made.client.list("workflowruns", made.namespace, fields=fields)

    wait_until(f"no run of {made.namespace} to have {fields}", none, longest, every=2)


# figures


class _Side:
    """All samples of one of the two."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def mean(self, what: Callable[[Sample], float]) -> float:
        return fmean(map(what, self.samples))

    def delays(self, what: Callable[[Calls], list[float]]) -> Spread:
        return Spread.of([ms for sample in self.samples for ms in what(sample.calls)])


def _figures(count: int, ours: _Side, bare: _Side) -> list[Figure]:
    """What ``count`` runs at once gave, ours against the bare loop's."""
    pods = start_after(count) + _RUN

    def rate(what: str, seconds: Callable[[Calls], float]) -> Figure:
        mine, theirs = (count / side.mean(lambda sample: seconds(sample.calls)) for side in (ours, bare))
        texts = (f"{mine:.1f} runs/s", f"{theirs:.1f} runs/s")
        return Figure(what, *texts, theirs / mine, _MOST_SLOWER, {"ours": mine, "peer": theirs})

    def mean(
        what: str, unit: str, of: Callable[[Sample], float], aim: float | None = None, digits: int = 1
    ) -> Figure:
        mine, theirs = ours.mean(of), bare.mean(of)
        texts = (f"{mine:.{digits}f} {unit}".strip(), f"{theirs:.{digits}f} {unit}".strip())
        score = None if aim is None else mine
        return Figure(what, *texts, score, aim, {"ours": mine, "peer": theirs})

    def delay(what: str, of: Callable[[Calls], list[float]], aim: float | None = None) -> Figure:
        mine, theirs = ours.delays(of), bare.delays(of)
        texts = [f"{spread.p50:.0f} / {spread.p95:.0f} ms" for spread in (mine, theirs)]
        details = {
            **{f"ours_{key}": value for key, value in asdict(mine).items()},
            **{f"peer_{key}": value for key, value in asdict(theirs).items()},
        }
        return Figure(what, texts[0], texts[1], None if aim is None else mine.p50, aim, details)

    return [
        rate(f"{count} runs at once, to the last Secret (bare / ours)", lambda found: found.to_secrets),
        rate(
            f"  to the last end, less {pods:g} s of pods (bare / ours)", lambda found: found.to_final - pods
        ),
        mean("  CPU time a run", "ms", lambda sample: sample.cpu, _MOST_CPU_MS),
        delay(
            "  pod bound to Secret made, p50 / p95",
            lambda found: found.made_after,
            _BOUND_MS if count == _BOUND_AT else None,
        ),
        delay("  pod ended to Secret gone, p50 / p95", lambda found: found.gone_after),
        mean("  reads by name a run", "", lambda sample: sample.calls.gets, _MOST_READS, 2),
        mean("  lists a run", "", lambda sample: sample.calls.lists, digits=2),
        mean("  writes a run", "", lambda sample: sample.calls.writes, digits=2),
        mean("  reviews of access a run", "", lambda sample: sample.calls.reviews, digits=2),
        mean("  memory at most", "MB", lambda sample: sample.peak, digits=0),
        mean("  memory 5 s after the end", "MB", lambda sample: sample.after, digits=0),
    ]
