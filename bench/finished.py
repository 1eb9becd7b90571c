"""What runs that have ended cost the operator: memory and CPU time at rest, and at a start.

Two namespaces, one after the other: none has ended in the first, thousands in the second. Those were made by an
administrator while no operator ran: a WorkflowRun each, with a status of about 4 kB as the operator leaves it behind.
Their Jobs are long gone, as they are a quarter of an hour after the end.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from runkeys.api import AttemptStatus, Exposure, WorkflowRun
from runkeys.naming import attempt_name
from runkeys.status import State, Verdict, build_status
from tests.e2e.cluster.base import wait_until
from tests.e2e.cluster.node import NodeCluster
from tests.e2e.runs.team import Team

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
class _Cost:
    """Of one operator.

    :ivar memory, memory_live: MB at rest, and with live runs. :ivar share, share_live: CPU at rest, of one core:
        sweeps, but no watch that the server ends, which it does every five minutes.
    :ivar start, start_live: CPU seconds from the process's beginning until it was at rest.
    :ivar to_job: ms from readiness to the Job of a run made then, for each restart.
    """

    memory: float
    share: float
    start: float
    to_job: list[float]
    memory_live: float
    share_live: float
    start_live: float


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """Ratios of many finished runs to none, and ms from a restart's readiness to a new run's Job."""
    sizes = _QUICK if quick else _Sizes()
    none, many = _cost(node, 0, sizes), _cost(node, sizes.finished, sizes)

    def ratio(what: str, text: str, mine: float, other: float, aim: float | None) -> Figure:
        details = {"finished": mine, "none": other}
        return Figure(what, text.format(mine), text.format(other), mine / other, aim, details)

    to_job, to_job_none = Spread.of(many.to_job), Spread.of(none.to_job)
    live = f"with {sizes.live} live runs"
    share = "{:.2%} of a core"
    return [
        ratio(
            f"{sizes.finished} finished runs or none: memory at rest",
            *("{:.1f} MB", many.memory, none.memory, _MOST_RATIO),
        ),
        ratio("  CPU at rest", share, many.share, none.share, _MOST_RATIO),
        ratio("  CPU of a start", "{:.2f} s", many.start, none.start, None),
        Figure(
            "  restart: ready to the Job of a run made then",
            *(to_job.text("ms"), to_job_none.text("ms"), to_job.p50, _MOST_TO_JOB_MS),
            {"longest": max(many.to_job), "longest_none": max(none.to_job)},
        ),
        ratio(f"  memory at rest, {live}", "{:.1f} MB", many.memory_live, none.memory_live, None),
        ratio(f"  CPU of a start, {live}", "{:.2f} s", many.start_live, none.start_live, None),
        ratio(f"  CPU at rest, {live}", share, many.share_live, none.share_live, _MOST_RATIO),
    ]


def _cost(node: NodeCluster, finished: int, sizes: _Sizes) -> _Cost:
    port = _free_port()
    arguments = ("--health-port", str(port), *sizes.arguments)  # the last one that is given counts
    with team(node, f"finished-{finished}", *arguments, tidy=not finished) as made:
        _make_finished(made, finished)
        alone = _at_rest(made, port, sizes)
        to_job = [_restart(made, port, number) for number in range(sizes.restarts)]
        make_live(made, sizes.live)
        made.operator.stop()
        live = _at_rest(made, port, sizes)
    return _Cost(*alone, to_job, *live)


# finished runs


def _make_finished(made: Team, count: int) -> None:
    began = time.monotonic()

    def make(number: int) -> None:
        raw = made.make_run(f"done-{number:05d}")
        change = {"status": final_status(WorkflowRun.parse(raw))}
        made.client.patch(
            "workflowruns", raw["metadata"]["name"], made.namespace, change, subresource="status"
        )

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
        exposures=[exposure],
    )
    status: dict[str, Any] = build_status(run, Verdict(State.SUCCEEDED), [attempt], now).to_wire()
    short = _STATUS_BYTES - len(json.dumps(status, separators=(",", ":")))
    status["tasks"][0]["message"] = ("all went well; " * short)[:short]
    return status


# starts


def _start(made: Team, port: int) -> tuple[Process, datetime]:
    """Start the operator; its process, and when it said that it was ready."""
    made.operator.start()
    process = Process(made.operator.pid)

    def ready() -> bool:
        process.check()
        return _is_ready(port)

    wait_until(f"the operator of {made.namespace} to be ready", ready, _LONGEST, every=0.002)
    return process, datetime.now(UTC)


def _restart(made: Team, port: int, number: int) -> float:
    """Milliseconds from the readiness of a new process to the Job of a run that was made at that moment."""
    made.operator.stop()
    mark = made.cluster.audit.mark()
    _, ready = _start(made, port)
    run = made.make_run(f"fresh-{number}", task={"template": pod_template(start=2, run=0.1)})
    name = made.object_name(run)
    made.wait_phase(run["metadata"]["name"], "Succeeded", timeout=_LONGEST)
    events = made.cluster.audit.events(mark, verb="create", resource="jobs", namespace=made.namespace)
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


# at rest


def _at_rest(made: Team, port: int, sizes: _Sizes) -> tuple[float, float, float]:
    """Start the operator and leave it running: MB, CPU of one core, and CPU seconds that a start takes."""
    starts: list[float] = []
    process, _ = _start(made, port)
    for number in range(sizes.starts):
        if number:
            made.operator.stop()
            process, _ = _start(made, port)
        _come_to_rest(process)
        starts.append(process.cpu_seconds())
    time.sleep(sizes.rest)
    memory = process.memory()
    # From a sweep to a later one, so that as many are in it each time.
    _wait_swept(made)
    before, began = process.cpu_seconds(), time.monotonic()
    for _ in range(sizes.sweeps):
        _wait_swept(made)
    share = (process.cpu_seconds() - before) / (time.monotonic() - began)
    return memory, share, median(starts)


def _come_to_rest(process: Process) -> None:
    """Wait until it has used next to nothing for two seconds."""

    def at_rest() -> bool:
        before = process.cpu_seconds()
        time.sleep(2)
        return process.cpu_seconds() - before < 2 * _QUIET

    wait_until("the operator to come to rest", at_rest, _LONGEST, every=0)


def _wait_swept(made: Team) -> None:
    """Wait for the operator's next sweep, and until it is over."""
    audit = made.cluster.audit
    mark = audit.mark()

    def swept() -> bool:
        return any(audit.events(mark, verb="list", resource="jobs", namespace=made.namespace))

    wait_until(f"a sweep of {made.namespace}", swept, _LONGEST, every=0.5)
    time.sleep(2)
