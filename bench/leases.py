"""How soon a pod has its credential, and how soon that is dead, against a bare loop that makes the same calls.

With a real OpenBao and PostgreSQL, on the fake node. The clocks are those of the audit logs, of the API server and
of the store, on one machine: from the answered binding of the pod to the answered creation of its Secret, and from the
answered status that says that the pod has ended to the answer that the store has no such lease. So they include
the way of the watch event, for both alike.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from testing.cluster.base import wait_until
from testing.cluster.cache import CHECKOUT
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster
from testing.operators import RELEASE
from testing.stores.leases import SECONDS, LeaseTeam, furnish_leases, is_released
from testing.stores.openbao import OpenBao, running, store
from testing.stores.postgres import postgres
from testing.stores.teams import ARGUMENTS, SETS, prepare

from .kwok import pod_template
from .report import Figure, Spread, compared
from .team import job_of, team

_AIM = 1.3
_AT_ONCE_AIM = 1000.0
_LONGEST = 120.0


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """Three figures: ms from bound to there, from ended to gone, and the latter with 20 at once."""
    pairs, count = (6, 5) if quick else (60, 20)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "bao") as bao,
        postgres() as database,
    ):
        prepare(bao, node.client)
        tokens = Path(folder) / "tokens"
        options = (*ARGUMENTS, "--store-tokens", str(tokens))
        with (
            team(node, "leases-operator", *options, sets=SETS) as plain,
            team(node, "leases-bare", sets=SETS) as bare,
        ):
            ours = furnish_leases(plain, bao, database, tokens, store(bao, plain.namespace))
            floor = furnish_leases(
                bare, bao, database, Path(folder) / "tokens-of-the-loop", store(bao, bare.namespace)
            )
            for made in (ours, floor):
                made.make_lease_binding("leased")
            ours.operator.start()
            ours.operator.wait_serving()
            with _bare_loop(floor):
                mark = node.audit.mark()
                for number in range(-1, pairs):  # the first pair only warms up
                    if number == 0:
                        mark = node.audit.mark()
                    for made in (ours, floor) if number % 2 else (floor, ours):
                        _one(made, f"run-{number + 1:03d}", bare=made is floor)
                figures = _figures(node, mark, bao, ours, floor)
            figures.append(_at_once(node, bao, ours, count))
    return figures


def _figures(node: NodeCluster, mark: int, bao: OpenBao, ours: LeaseTeam, floor: LeaseTeam) -> list[Figure]:
    there, gone = _delays(node, mark, bao, ours)
    floor_there, floor_gone = _delays(node, mark, bao, floor)
    return [
        compared("Pod bound to credential there, operator or bare loop", there, floor_there, _AIM),
        compared("Pod ended to credential gone, operator or bare loop", gone, floor_gone, _AIM),
    ]


def _at_once(node: NodeCluster, bao: OpenBao, made: LeaseTeam, count: int) -> Figure:
    mark = node.audit.mark()
    names = [f"many-{number:03d}" for number in range(count)]
    for name in names:
        _submit(made, name, start=2.0, run=3.0)
    for name in names:
        made.wait_run(name, is_released, _LONGEST)
    _, gone = _delays(node, mark, bao, made)
    spread = Spread.of(gone)
    return Figure(
        f"Pod ended to credential gone, {count} at once",
        spread.text("ms"),
        score=spread.p50,
        aim=_AT_ONCE_AIM,
        details={f"ours_{key}": value for key, value in asdict(spread).items()},
    )


def _submit(made: LeaseTeam, name: str, start: float, run: float) -> Object:
    task = {"template": pod_template(start=start, run=run)}
    return made.make_store_run(name, task=task, bindings=[{"name": "leased"}])


def _one(made: LeaseTeam, name: str, *, bare: bool) -> None:
    """A run from beginning to end; of the loop's runs the Job is made here."""
    run = _submit(made, name, start=0.5, run=0.3)
    if not bare:
        made.wait_run(name, is_released, _LONGEST)
        return
    # Whom the policies let make such Jobs.
    operator = made.client.as_user(f"system:serviceaccount:{made.namespace}:{RELEASE}")
    before = len(made.credentials())
    operator.create(job_of({**run, "spec": {**run["spec"], "bindings": [{"name": "keys"}]}}))
    wait_until(
        f"the credential of {name} to come and go",
        lambda: (
            len(made.credentials()) > before
            and not made.users
            and not made.run(name)["metadata"].get("finalizers")
        ),
        _LONGEST,
        every=0.1,
    )


@contextmanager
def _bare_loop(made: LeaseTeam) -> Iterator[None]:
    """The loop of ``bare_lease_loop.py``, with the rights of the operator whose place it takes."""
    settings = {
        "store": made.namespace,
        "namespace": made.namespace,
        "address": made.bao.address,
        "ca": made.bao.ca,
        "role": made.namespace,
        "revoker": f"{made.namespace}-revoker",
        "token": next(made.tokens.iterdir()).read_text(),
        "path": made.creds,
        "seconds": SECONDS,
    }
    file = made.tokens / "settings.json"
    file.write_text(json.dumps(settings))
    log = made.cluster.scratch / f"{made.namespace}-bare-lease-loop.log"
    command = [sys.executable, "-m", "bench.bare_lease_loop", str(made.operator.kubeconfig), str(file)]
    with log.open("wb") as output:
        loop = subprocess.Popen(command, stdout=output, stderr=output, cwd=CHECKOUT)

    def serves() -> bool:
        if loop.poll() is not None:
            raise RuntimeError(log.read_text())
        return "serving" in log.read_text()

    try:
        wait_until("the bare loop", serves)
        yield
    finally:
        loop.kill()
        loop.wait(10)
        print(log.read_text().removeprefix("serving\n"), end="")


def _delays(node: NodeCluster, mark: int, bao: OpenBao, made: LeaseTeam) -> tuple[list[float], list[float]]:
    """Bound to there and ended to gone, in ms, of every pod in the namespace since ``mark``."""
    at: dict[str, dict[str, datetime]] = {}
    steps = {"create pods/binding": "bound", "create secrets": "there", "patch pods/status": "ended"}
    for event in node.audit.events(mark, namespace=made.namespace):
        what = steps.get(f"{event.verb} {event.resource}")
        if what is None or event.status >= 300:
            continue
        job = event.name if event.resource == "secrets" else event.name.rpartition("-")[0]
        at.setdefault(job, {})[what] = event.answered
    for job, gone in _gone(bao, made).items():
        if job in at:
            at[job]["gone"] = gone
    whole = [times for times in at.values() if times.keys() >= {"bound", "there", "ended", "gone"}]
    # A pod of the fake node waits for nothing.
    whole = [times for times in whole if times["there"] < times["ended"]]
    if len(whole) < 2:
        raise RuntimeError(f"{len(whole)} of {len(at)} pods had a credential: this machine is too busy")
    return (
        [_ms(times["there"], times["bound"]) for times in whole],
        [_ms(times["gone"], times["ended"]) for times in whole],
    )


def _gone(bao: OpenBao, made: LeaseTeam) -> dict[str, datetime]:
    """By Job, when the store last said of its pod's lease whether it has it: that it has not."""
    pods: dict[str, str] = {}
    jobs: dict[str, str] = {}
    gone: dict[str, datetime] = {}
    for item in bao.audited("response"):
        request, response = item["request"], item.get("response") or {}
        if request["path"] == "auth/jwt/login" and "auth" in response:
            pods[response["auth"]["accessor"]] = (response["auth"].get("metadata") or {}).get("pod", "")
        elif request["path"] == made.creds and "secret" in response:
            jobs[response["secret"]["lease_id"]] = pods[item["auth"]["accessor"]].rpartition("-")[0]
        elif request["path"] == "sys/leases/lookup":
            job = jobs.get(request["data"]["lease_id"])
            if job is not None:
                gone[job] = datetime.fromisoformat(item["time"])
    return gone


def _ms(later: datetime, earlier: datetime) -> float:
    return (later - earlier).total_seconds() * 1000
