"""Nothing is left, and every run ends as it would have, wherever the operator is killed.

A proxy between the operator and the API server numbers every request. A rehearsal shows which there are, from the
operator's start to the end of a run. Then, for each of them, the operator is killed before the request is forwarded,
or after its answer was lost, and is started again. Between them the lives hold every kind of write that the operator
has the right to. A samples' run takes each kind of write in one of the lives, on both sides, and some of all the other
requests; the full size takes all requests of all lives.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import Object
from testing.cluster.proxy import ApiProxy
from testing.namespace import (
    TASK_IMAGE,
    Team,
    condition,
    exposures,
    make_namespace,
    phase,
    python,
    remove_namespace,
    team_in,
)
from tests.conftest import FULL
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.runs.kills import Hit, Kill, Killer, When, play_side_by_side, shape
from tests.sampling import sample

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.proof,
    pytest.mark.timeout(7200 if FULL else 900),
]

AT_ONCE = 8
SECONDS = 240
"""Longest wait for one step of a run. A kubelet that missed the Secret comes back after 10 to 15 s, and starts
dozens of pods at once slowly."""

ASSERTS = """
import hashlib, os, time
value = os.environ["SECRET_API_TOKEN"].encode()
found = hashlib.sha256(value).hexdigest()
assert found == os.environ["EXPECTED"], found
with open("/dev/termination-log", "w") as log:
    log.write(hashlib.sha256(b"seen " + value).hexdigest())
print("sha256", found, flush=True)
"""


@dataclass(frozen=True)
class Life:
    """What people do to a run from beginning to end, and how it ends."""

    live: Callable[[Team], Object]
    """Returns the run as it was at its end."""
    phase: str
    writes: frozenset[str]
    """The shapes of everything that the operator writes meanwhile."""
    check: Callable[[Team, Object, Life], None] | None = None
    """Asserts that it ended well; None: as a run of one task does."""
    arguments: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the operator's command line, and of `team_in`."""


def succeed(team: Team) -> Object:
    """The run is there before its binding, and ends by itself."""
    team.make_source()
    make_run(team)
    team.wait_condition("job", "Stalled", reason="BindingNotFound", timeout=SECONDS)
    team.make_binding()
    return team.wait_phase("job", "Succeeded", "Failed", "Cancelled", timeout=SECONDS)


def get_cancelled(team: Team) -> Object:
    """The run is cancelled while its task is at work, and goes when its time to live is over."""
    team.make_source()
    team.make_binding()
    make_run(team, "time.sleep(600)", ttlSecondsAfterFinished=1)
    wait_until(
        "the task to see its value", lambda: f"sha256 {team.digest}\n" in team.printed(), SECONDS, every=0.2
    )
    team.client.patch("workflowruns", "job", team.namespace, {"spec": {"cancel": True}})
    team.client.wait_gone("workflowruns", "job", team.namespace, SECONDS)
    wait_until(
        "its pods to be gone", lambda: not team.client.list("pods", team.namespace), SECONDS, every=0.2
    )
    key = f"/registry/runkeys.dev/workflowruns/{team.namespace}/job"
    *_, last = (item.value for item in team.cluster.etcd.history(key, since=team.since) if item.value)
    run: Object = json.loads(last)
    return run


ALWAYS = frozenset(
    (
        "create leases",
        "patch secrets",  # the first sealing key
        "patch configmaps",  # its public half
        "patch secretbindings/status",
        "patch workflowruns/status",
        "create jobs",
        "create secrets",
        "delete secrets",
    )
)
SUCCEEDS = Life(succeed, "Succeeded", ALWAYS | {"create events"})
IS_CANCELLED = Life(get_cancelled, "Cancelled", ALWAYS | {"delete jobs", "delete workflowruns"})


def make_run(team: Team, then: str = "", **spec: Any) -> None:
    """A run whose task asserts its value by a hash, so that it fails with any other."""
    container = {
        "name": "main",
        "image": TASK_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": python(ASSERTS + then),
        "env": [{"name": "EXPECTED", "value": team.digest}],
    }
    team.make_run(pod={"containers": [container]}, **spec)


def is_complete(job: Object) -> bool:
    return any(item["type"] == "Complete" for item in job["status"].get("conditions", []))


def is_ready(binding: Object) -> bool:
    return condition(binding, "Ready").get("status") == "True"


def check_it_ended_well(team: Team, found: Object, life: Life) -> None:
    """The end of a life in which nobody was killed; the same is asked of all others."""
    assert phase(found) == life.phase, found["status"]
    assert condition(found, "SecretsReleased")["status"] == "True", found["status"]
    assert found["status"]["live"] == 0
    (exposure,) = exposures(found)
    assert exposure["created"] <= exposure["deleted"]

    # nothing is left, and the one Secret was made once, complete, and never changed
    assert team.cluster.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []
    assert team.secret_story() == ["made", "gone"]

    # what is said of the binding is true again
    team.client.wait_for("secretbindings", "keys", team.namespace, is_ready)

    # one container saw the right value: none ran twice, none with another
    saw = hashlib.sha256(b"seen " + team.value.encode()).hexdigest().encode()
    pods = f"/registry/pods/{team.namespace}/"
    assert len(team.cluster.etcd.find(saw, prefix=pods, since=team.since)) == 1


@dataclass(frozen=True)
class Case:
    """One life with its kills."""

    node: Cluster
    folder: Path
    life: Life
    kills: tuple[Kill, ...] = ()

    def play(self, proxy: ApiProxy, namespace: str, hits: list[Hit]) -> None:
        """Live it and check its end; adds which kills took place. Raises AssertionError."""
        # so long that it is not renewed meanwhile: how often it were would depend on the machine
        lease = ("--lease-seconds", "3600")
        with team_in(
            self.node,
            namespace,
            self.folder,
            *lease,
            *self.life.arguments,
            server=proxy.url,
            **self.life.options,
        ) as team:
            killer = Killer(proxy, team.operator, self.kills, hits)
            try:
                team.operator.start()
                check = self.life.check or check_it_ended_well
                check(team, self.life.live(team), self.life)
            finally:
                killer.disarm()

    def __str__(self) -> str:
        return " and ".join(map(str, self.kills)) or "nobody killed"


def rehearse(node: Cluster, folder: Path, life: Life) -> list[str]:
    """Shapes of all requests, in order, of a life in which nobody is killed; writes end with an asterisk."""
    with ApiProxy(node) as proxy:
        namespace = make_namespace(node.client, "rehearsal")
        try:
            Case(node, folder, life).play(proxy, namespace, [])
        finally:
            remove_namespace(node, namespace)
        return [shape(request) + ("*" if request.mutates else "") for request in proxy.requests]


def kills_of(rehearsed: Sequence[str], writes: frozenset[str], size: int, name: str) -> list[Kill]:
    """The first of each kind of these writes, and ``size`` of all other requests (all in full size).

    Before and after. A write is known by its kind and how many of that there were, a read by its number.
    """
    counts: Counter[str] = Counter()
    first: list[Kill] = []
    others: list[Kill] = []
    for number, text in enumerate(rehearsed, start=1):
        write = text.removesuffix("*")
        counts[text] += 1
        for when in When:
            kill = Kill(when, write, counts[text]) if text.endswith("*") else Kill(when, "", number)
            (first if kill.shape in writes and kill.occurrence == 1 else others).append(kill)
    return first + sample(others, size, name=name)


def play_all(cases: Sequence[Case]) -> list[Hit]:
    """Play the cases, each with a namespace, proxy and operator of its own."""

    def play(case: Case, hits: list[Hit]) -> None:
        namespace = make_namespace(case.node.client, "kills")
        try:
            with ApiProxy(case.node) as proxy:
                case.play(proxy, namespace, hits)
        finally:
            remove_namespace(case.node, namespace)

    return play_side_by_side(cases, play, AT_ONCE)


def check_hits(cases: Sequence[object], hits: Sequence[Hit], writes: frozenset[str]) -> None:
    """Both sides of each of these kinds of write were hit, and nearly all that was to be hit."""
    hit_writes = {(shape(hit.request), hit.kill.when) for hit in hits if hit.request.mutates}
    assert hit_writes >= {(write, when) for write in writes for when in When}
    assert len(hits) >= 0.8 * len(cases), "kills that did not come prove nothing"


@pytest.mark.usefixtures("crds")
def test_a_run_that_succeeds_survives_a_kill_at_every_call(node: Cluster, tmp_path: Path) -> None:
    rehearsed = rehearse(node, tmp_path, SUCCEEDS)
    assert {text.removesuffix("*") for text in rehearsed if text.endswith("*")} == SUCCEEDS.writes
    kills: list[tuple[Kill, ...]] = [
        (kill,) for kill in kills_of(rehearsed, SUCCEEDS.writes, 6, "kills of a success")
    ]
    # A Job whose creation nobody remembers is taken away before another is made: die there as well.
    forgotten = Kill(When.AFTER, "create jobs", 1)
    kills += [(forgotten, Kill(when, "delete jobs", 1)) for when in When]
    hits = play_all([Case(node, tmp_path, SUCCEEDS, each) for each in kills])
    check_hits(kills, hits, SUCCEEDS.writes | {"delete jobs"})


@pytest.mark.usefixtures("crds")
def test_a_run_that_is_cancelled_survives_a_kill_at_every_call(node: Cluster, tmp_path: Path) -> None:
    rehearsed = rehearse(node, tmp_path, IS_CANCELLED)
    assert {text.removesuffix("*") for text in rehearsed if text.endswith("*")} == IS_CANCELLED.writes
    own = IS_CANCELLED.writes if FULL else IS_CANCELLED.writes - SUCCEEDS.writes
    kills = kills_of(rehearsed, own, 6, "kills of a cancelled run")
    hits = play_all([Case(node, tmp_path, IS_CANCELLED, (each,)) for each in kills])
    check_hits(kills, hits, own)


@pytest.mark.parametrize(
    "kill", [Kill(When.AFTER, "create secrets", 1), Kill(When.BEFORE, "delete secrets", 1)]
)
def test_control_the_check_fails_when_nobody_starts_the_operator_again(
    new_team: TeamMaker, proxy: ApiProxy, kill: Kill
) -> None:
    team = new_team(server=proxy.url, start=False)
    hits: list[Hit] = []
    Killer(proxy, team.operator, [kill], hits, start_again=False)
    team.operator.start()
    team.make_source()
    team.make_binding()
    make_run(team)
    name = team.object_name(team.run())
    team.client.wait_for("jobs", name, team.namespace, is_complete, SECONDS)
    with pytest.raises(AssertionError, match="phase"):
        team.wait_phase("job", SUCCEEDS.phase, timeout=5)
    with pytest.raises(AssertionError):
        check_it_ended_well(team, team.run(), SUCCEEDS)
    assert [hit.kill for hit in hits] == [kill]
    assert team.cluster.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") != []
