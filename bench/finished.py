"""What runs that have ended cost the operator: memory and CPU time at rest, and at a start.

Two operators side by side, each with a namespace of its own: none has ended in the one, thousands in the other. Those
were made by an administrator while no operator ran: a WorkflowRun each, with a status of about 4 kB as the operator
leaves it behind. Their Jobs are long gone, as they are a quarter of an hour after the end. Both are measured over the
same time, so that what else the machine does is the same for both.
"""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from runkeys.api import AttemptStatus, Exposure, WorkflowRun
from runkeys.names import attempt_name
from runkeys.planning.status import State, TaskResult, Verdict, build_status
from testing.cluster.base import free_port, wait_until
from testing.cluster.node import NodeCluster
from testing.namespace import Team

from .kwok import pod_template
from .process import Process
from .report import Figure, Spread
from .scale import make_live
from .team import team

_MOST_RATIO = 1.10
_MOST_TO_JOB_MS = 200
_STATUS_BYTES = 4000
_LONGEST = 120.0
_QUIET = 0.05  # of a core


@dataclass(frozen=True)
class _Sizes:
    """How much is measured.

    :ivar finished: runs that have ended. :ivar live: runs that go on. :ivar starts: those that are paid for.
    :ivar restarts: those after which a run is made. :ivar rest: s of rest before anything is measured at rest.
    :ivar sweeps: how many of the operator's sweeps CPU time at rest is measured over, each about half a minute.
    """

    finished: int = 20_000
    live: int = 1000
    starts: int = 3
    restarts: int = 7
    rest: float = 20
    sweeps: int = 3
    arguments: tuple[str, ...] = ()


_QUICK = _Sizes(500, 50, 3, 3, 5, 3, ("--sweep-seconds", "5"))


@dataclass(frozen=True)
class _Rest:
    """One operator at rest.

    :ivar memory: MB. :ivar share: CPU time, of one core: sweeps, but no watch that the server ends, as it does every
        five minutes. :ivar start: CPU seconds from the process's beginning until it was at rest.
    """

    memory: float
    share: float
    start: float


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """Ratios of many finished runs to none, and ms from a restart's readiness to a new run's Job."""
    sizes = _QUICK if quick else _Sizes()
    with _side(node, 0, sizes) as none, _side(node, sizes.finished, sizes) as many:
        sides = (many, none)
        alone = _at_rest(sides, sizes)
        to_job: tuple[list[float], list[float]] = ([], [])
        for number in range(sizes.restarts):
            for side, samples in zip(sides, to_job, strict=True):
                samples.append(_restart(side, number))
        for side in sides:
            make_live(side.made, sizes.live)
        with_live = _at_rest(sides, sizes)
    return _figures(sizes, alone, (Spread.of(to_job[0]), Spread.of(to_job[1])), with_live)


def _figures(
    sizes: _Sizes, alone: list[_Rest], to_job: tuple[Spread, Spread], with_live: list[_Rest]
) -> list[Figure]:
    def ratio(what: str, text: str, values: tuple[float, float], aim: float | None = None) -> Figure:
        many, none = values
        details = {"finished": many, "none": none}
        return Figure(what, text.format(many), text.format(none), many / none, aim, details)

    def at_rest(what: str, found: list[_Rest]) -> list[Figure]:
        many, none = found
        return [
            ratio(f"{what}memory at rest", "{:.1f} MB", (many.memory, none.memory), _MOST_RATIO),
            ratio("  CPU at rest", "{:.3%} of a core", (many.share, none.share), _MOST_RATIO),
            ratio("  CPU of a start", "{:.2f} s", (many.start, none.start)),
        ]

    many, none = to_job
    details = {f"finished_{key}": value for key, value in asdict(many).items()}
    details |= {f"none_{key}": value for key, value in asdict(none).items()}
    return [
        *at_rest(f"{sizes.finished} finished runs or none: ", alone),
        Figure(
            "  restart: ready to the Job of a run made then",
            *(many.text("ms"), none.text("ms"), many.p50, _MOST_TO_JOB_MS, details),
        ),
        *at_rest(f"  and {sizes.live} live ones: ", with_live),
    ]


class _Side:
    """An operator with a namespace of its own, and what its probes say."""

    def __init__(self, made: Team, port: int) -> None:
        self.made = made
        self._port = port

    @property
    def process(self) -> Process:
        return Process(self.made.operator.pid)

    def start(self) -> datetime:
        """Start the operator anew; when it said that it was ready."""
        if self.made.operator.running:
            self.made.operator.stop()
        self.made.operator.start()
        process = self.process

        def ready() -> bool:
            process.check()
            return _is_ready(self._port)

        wait_until(f"the operator of {self.made.namespace} to be ready", ready, _LONGEST, every=0.002)
        return datetime.now(UTC)


@contextmanager
def _side(node: NodeCluster, finished: int, sizes: _Sizes) -> Iterator[_Side]:
    port = free_port()
    arguments = ("--health-port", str(port), *sizes.arguments)  # the last one that is given counts
    with team(node, f"finished-{finished}", *arguments) as made:
        _make_finished(made, finished)
        yield _Side(made, port)


# finished runs


def _make_finished(made: Team, count: int) -> None:
    began = time.monotonic()
    # Nobody else may write a status.
    operator = made.client.as_user(f"system:serviceaccount:{made.namespace}:runkeys")

    def make(number: int) -> None:
        raw = made.make_run(f"done-{number:05d}")
        change = {"status": final_status(WorkflowRun.parse(raw))}
        operator.patch("workflowruns", raw["metadata"]["name"], made.namespace, change, subresource="status")

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(make, range(count)):
            pass
    if count:
        print(f"{count} finished runs made in {time.monotonic() - began:.0f} s", flush=True)


def final_status(run: WorkflowRun) -> dict[str, Any]:
    """The status of ``run`` when it has succeeded: JSON of about 4 kB."""
    now = datetime.now(UTC)
    exposure = Exposure(created=now - timedelta(seconds=2), deleted=now)
    task = run.spec.tasks[0].name
    attempt = AttemptStatus(
        number=1,
        job=attempt_name(run.metadata.name, run.metadata.uid, task, 1),
        job_uid=str(uuid.uuid4()),
        start_time=exposure.created.replace(microsecond=0),
        end_time=now.replace(microsecond=0),
        outcome="Succeeded",
        exposures=[exposure],
    )
    status: dict[str, Any] = build_status(
        run, [TaskResult(task, Verdict(State.SUCCEEDED), (attempt,))], now
    ).to_wire()
    short = _STATUS_BYTES - len(json.dumps(status, separators=(",", ":")))
    status["tasks"][0]["message"] = ("all went well; " * short)[:short]
    return status


# starts


def _restart(side: _Side, number: int) -> float:
    """Milliseconds from the readiness of a new process to the Job of a run that was made at that moment."""
    made, audit = side.made, side.made.cluster.audit
    mark = audit.mark()
    ready = side.start()
    run = made.make_run(f"fresh-{number}", task={"template": pod_template(start=2, run=0.1)})
    name = made.object_name(run)
    made.wait_phase(run["metadata"]["name"], "Succeeded", timeout=_LONGEST)
    events = audit.events(mark, verb="create", resource="jobs", namespace=made.namespace)
    answered = next(event.answered for event in events if event.name == name and event.status < 300)
    return (answered - ready).total_seconds() * 1000


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


# at rest


def _at_rest(sides: Sequence[_Side], sizes: _Sizes) -> list[_Rest]:
    """Start each operator a few times, one after the other, then leave all of them alone."""
    starts: list[list[float]] = [[] for _ in sides]
    for _ in range(sizes.starts):
        for side, seconds in zip(sides, starts, strict=True):
            side.start()
            _come_to_rest(side.process)
            seconds.append(side.process.cpu_seconds())
    time.sleep(sizes.rest)
    memory = [side.process.memory() for side in sides]
    with ThreadPoolExecutor(len(sides)) as pool:
        shares = list(pool.map(lambda side: _share(side, sizes.sweeps), sides))
    return [_Rest(*item) for item in zip(memory, shares, map(median, starts), strict=True)]


def _share(side: _Side, sweeps: int) -> float:
    """CPU time of one core, from one sweep to a later one, so that as many are in it each time."""
    _wait_swept(side.made)
    before, began = side.process.cpu_seconds(), time.monotonic()
    for _ in range(sweeps):
        _wait_swept(side.made)
    return (side.process.cpu_seconds() - before) / (time.monotonic() - began)


def _come_to_rest(process: Process) -> None:
    """Wait until it has used next to nothing for two seconds."""

    def at_rest() -> bool:
        before = process.cpu_seconds()
        time.sleep(2)
        return process.cpu_seconds() - before < 2 * _QUIET

    wait_until("the operator to come to rest", at_rest, _LONGEST, every=0)


def _wait_swept(made: Team) -> None:
    """Wait for the operator's next resync, and until it has finished."""
    audit = made.cluster.audit
    mark = audit.mark()

    def swept() -> bool:
        return any(audit.events(mark, verb="list", resource="jobs", namespace=made.namespace))

    wait_until(f"a sweep of {made.namespace}", swept, _LONGEST, every=0.5)
    time.sleep(2)
