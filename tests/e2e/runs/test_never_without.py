"""I2: no container starts without its secret, or with another's, whatever happens to the operator's requests.

Each task asserts what it was given. In full size a thousand runs, with an API server and a kubelet that restart; in
`make test` a seeded sample.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import wait_until, wait_with_progress
from testing.cluster.client import Object
from testing.cluster.faults import Action, Answer, Delay, LoseAnswer, Request, Reset
from testing.cluster.node import NodeCluster
from testing.cluster.proxy import ApiProxy
from testing.namespace import Team, canary, condition, make_namespace, phase, team_in
from testing.operators import install_crds
from testing.workflows import make, task
from tests.conftest import FULL
from tests.e2e.conftest import OwnNode

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.proof,
    pytest.mark.timeout(14_400 if FULL else 900),
]

RUNS, AT_ONCE = (1000, 20) if FULL else (24, 12)
WRONG = "wrong-or-missing-value"
SECONDS = 300
"""Longest time in which nothing changes: a kubelet that comes back, or the longest back-off of an attempt."""

FAULTS: tuple[Action, ...] = (
    Delay(0.5),
    Delay(3),
    Answer(500),
    Answer(429, "TooManyRequests", retry_after=1),
    Answer(503, "ServiceUnavailable"),
    Reset(),
    LoseAnswer(),
)


def checks(expected: str, *, as_file: bool, fails_once: bool) -> str:
    """Code that fails with a mark unless the value is the run's own."""
    read = '(runtime / "secrets" / "token").read_text()' if as_file else 'os.environ["SECRET_API_TOKEN"]'
    again = 'if os.environ["HOSTNAME"].split("-")[-3] == "1": sys.exit(1)' if fails_once else ""
    return f"""
try: right = sha({read}) == "{expected}"
except Exception: right = False
if not right:
    open("/dev/termination-log", "w").write("{WRONG}")
    sys.exit(77)
{again}
"""


def make_one(team: Team, number: int, value: str) -> Object:
    """One run of one of the four kinds, with a value of its own."""
    as_file, fails_once = bool(number & 1), bool(number & 2)
    expected = hashlib.sha256(value.encode()).hexdigest()
    asked: dict[str, Any] = {"name": "api_token", "secret": f"value-{number}"}
    if as_file:
        asked["file"] = "token"
    return make(
        team,
        task(
            "work",
            checks(expected, as_file=as_file, fails_once=fails_once),
            secrets=[asked],
            backoffLimit=2,
            releasePolicy="OnStart" if number & 4 else "OnCompletion",
        ),
        name=f"run-{number:04d}",
        bindings=[{"name": f"keys-{number // 60}"}],
    )


def prepare(team: Team, values: list[str]) -> None:
    """One source with a key for each run, and as many bindings as that takes."""
    team.make_source(**{f"value-{number}": value for number, value in enumerate(values)})
    for first in range(0, len(values), 60):
        names = [f"value-{number}" for number in range(first, min(first + 60, len(values)))]
        entries = [{"name": name, "secretKeyRef": {"name": "source", "key": name}} for name in names]
        team.make_binding(f"keys-{first // 60}", secrets=entries)


def with_faults(proxy: ApiProxy, chance: random.Random) -> Counter[str]:
    """Have one request in eight fail in one way or another; counts them by kind."""
    done: Counter[str] = Counter()

    async def fault(request: Request) -> Action | None:
        if request.is_watch or chance.random() > 0.125:
            return None
        action = chance.choice(FAULTS)
        done[type(action).__name__] += 1
        return action

    proxy.before_forward = fault
    return done


def play(
    node: NodeCluster, team: Team, values: list[str], proxy: ApiProxy, *, restarts: bool
) -> list[Object]:
    faults = with_faults(proxy, random.Random(os.environ["RUNKEYS_SEED"]))
    prepare(team, values)
    team.operator.start()
    for first in range(0, len(values), AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, len(values)))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: make_one(team, number, values[number]), numbers))
        if restarts and (first // AT_ONCE) % 5 == 2:
            node.restart("kube-apiserver" if first // AT_ONCE % 2 else "kubelet")
        names = [f"run-{number:04d}" for number in numbers]
        wait_with_progress(
            *("these runs to end", team.versions, partial(all_ended, team, names), SECONDS),
            every=1,
            tell=team.unfinished,
        )
    assert len(faults) >= 3, faults
    print(f"{len(values)} runs, faults: {dict(faults)}")
    return team.client.list("workflowruns", team.namespace)


def all_ended(team: Team, names: list[str]) -> bool:
    found = {
        item["metadata"]["name"]: phase(item) for item in team.client.list("workflowruns", team.namespace)
    }
    return all(found[name] in ("Succeeded", "Failed", "Cancelled") for name in names)


def finished_with(team: Team, exit_code: int) -> int:
    """How many pods have a container that ended with this code."""
    return sum(
        item.get("state", {}).get("terminated", {}).get("exitCode") == exit_code
        for pod in team.client.list("pods", team.namespace)
        for item in pod["status"].get("containerStatuses", [])
    )


def test_no_container_starts_without_or_with_anothers_value(own_node: OwnNode, tmp_path: Path) -> None:
    node = own_node()
    install_crds(node)
    values = [canary() for _ in range(RUNS)]
    with ApiProxy(node) as proxy:
        namespace = make_namespace(node.client, "never-without")
        with team_in(node, namespace, tmp_path, server=proxy.url) as team:
            runs = play(node, team, values, proxy, restarts=FULL)
            assert finished_with(team, 77) == 0
            ended = Counter(phase(run) for run in runs)
            assert ended == {"Succeeded": RUNS}, ended
            proxy.before_forward = None
            assert {condition(run, "SecretsReleased")["status"] for run in runs} == {"True"}
            wait_until(
                "nothing to be left", lambda: node.etcd.keys(f"/registry/secrets/{namespace}/rk-") == []
            )


def test_control_a_value_that_is_not_the_runs_own_is_noticed(own_node: OwnNode, tmp_path: Path) -> None:
    """The run expects another value than its source has."""
    node = own_node()
    install_crds(node)
    with ApiProxy(node) as proxy:
        namespace = make_namespace(node.client, "never-without-twin")
        with team_in(node, namespace, tmp_path, server=proxy.url) as team:
            prepare(team, [canary()])
            team.operator.start()
            make_one(team, 0, "another value than the source has")
            wait_until("the run to end", lambda: all_ended(team, ["run-0000"]), SECONDS)
            assert finished_with(team, 77) > 0
