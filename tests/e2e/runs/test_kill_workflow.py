"""A workflow survives a kill at every call.

Three tasks, a retry, a variable, a file, both release policies, a value that the requester brought along; and the
making of the first sealing key, since each life is the first in its namespace.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from runkeys.sealing import RunInput
from runkeys_operator.checks import preflight
from runkeys_operator.leader_election import LeaseName
from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.namespace import Team, condition, exposures, phase
from testing.operators import requester_of as requester
from testing.people import sealed
from testing.workflows import make, object_name, outcomes, states, task
from tests.conftest import FULL
from tests.e2e.runs.test_kill_at_every_call import (
    ALWAYS,
    IS_CANCELLED,
    SECONDS,
    SUCCEEDS,
    Case,
    Life,
    check_hits,
    kills_of,
    play_all,
    rehearse,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.proof,
    pytest.mark.timeout(7200 if FULL else 900),
]


def seen(task: str) -> str:
    """What a container of the task leaves behind when all was as it should be; its code does not hold it."""
    return hashlib.sha256(f"seen {task}".encode()).hexdigest()


def live(team: Team) -> Object:
    """The first task fails once; the second takes what it wrote, and a file; the third has no secret."""
    team.make_source()
    team.make_binding()
    right = f"== {team.digest!r}"
    first = f"""
assert sha(os.environ["SECRET_API_TOKEN"]) {right}
write({{"note": sha("seen a")}})
if os.environ["HOSTNAME"].split("-")[3] == "1": sys.exit(1)
"""
    second = f"""
assert sha((runtime / "secrets" / "token").read_bytes()) {right}
assert given("note") == {{"note": sha("seen a")}}
open("/dev/termination-log", "w").write(sha("seen b"))
"""
    third = f"""
assert not (runtime / "secrets").exists() and "SECRET_API_TOKEN" not in os.environ
assert sha(os.environ["SECRET_OWN"]) {right}
open("/dev/termination-log", "w").write(sha("seen c"))
"""
    who = requester(team.client)
    own = sealed(team, RunInput(team.namespace, who["username"], "own"), team.value)
    make(
        team,
        task("a", first, secret=True, backoffLimit=1, recordOutput=True, releasePolicy="OnStart"),
        task(
            "b",
            second,
            dependsOn=["a"],
            secrets=[{"name": "api_token", "secret": "token", "file": "token"}],
            input=[{"name": "note", "from": "tasks.a.output"}],
        ),
        task("c", third, dependsOn=["b"], secrets=[{"name": "own", "input": "own"}]),
        requester=who,
        sealedInput={"own": own},
    )
    return team.wait_phase("flow", "Succeeded", "Failed", "Cancelled", timeout=SECONDS)


def check(team: Team, found: Object, life: Life) -> None:
    """The end of a workflow during which nobody was killed; the same is asked of all others."""
    assert phase(found) == life.phase, found["status"]
    assert condition(found, "SecretsReleased")["status"] == "True", found["status"]
    assert states(found) == dict.fromkeys("abc", "Succeeded")
    assert [outcomes(found, name) for name in "abc"] == [
        ["Failed", "Succeeded"],
        ["Succeeded"],
        ["Succeeded"],
    ]
    assert "sealedInput" not in found["spec"]
    assert len(exposures(found)) == 4
    assert all(item["created"] <= item["deleted"] for item in exposures(found))

    # nothing is left, and the Secret of each attempt was made once, complete, and never changed
    assert team.cluster.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []
    with_secret = [object_name(found, *which) for which in (("a", 1), ("a", 2), ("b", 1), ("c", 1))]
    assert [team.secret_story(name) for name in with_secret] == [["made", "gone"]] * 4
    assert len(team.secret_story()) == 8

    # one container of each attempt found what it should: none ran twice, none with something else
    for name, attempts in {"a": 2, "b": 1, "c": 1}.items():
        pods = f"/registry/pods/{team.namespace}/rk-flow-{name}-"
        keys = team.cluster.etcd.find(seen(name).encode(), prefix=pods, since=team.since)
        jobs = sorted(key.rpartition("/")[2].rpartition("-")[0] for key in keys)
        assert jobs == sorted(object_name(found, name, number + 1) for number in range(attempts))


WORKFLOW = Life(
    live,
    "Succeeded",
    ALWAYS | {"patch workflowruns"},  # which takes the sealed input out
    check,
)


@pytest.mark.usefixtures("crds")
def test_a_workflow_survives_a_kill_at_every_call(node: Cluster, tmp_path: Path) -> None:
    rehearsed = rehearse(node, tmp_path, WORKFLOW)
    assert {text.removesuffix("*") for text in rehearsed if text.endswith("*")} == WORKFLOW.writes
    own = WORKFLOW.writes if FULL else WORKFLOW.writes - SUCCEEDS.writes
    kills = kills_of(rehearsed, own, 8, "kills of a workflow")
    hits = play_all([Case(node, tmp_path, WORKFLOW, (each,)) for each in kills])
    check_hits(kills, hits, own)


def test_the_lives_hold_every_write_that_the_operator_has_the_right_to() -> None:
    rights = {
        f"{right.verb} {right.resource.plural}" + (f"/{right.subresource}" if right.subresource else "")
        for right in (*preflight.NEEDED, *preflight.rights_on(LeaseName("any", "any")))
        if right.verb not in ("get", "list", "watch") and not right.resource.plural.endswith("reviews")
    }
    by_name = {"patch secrets", "patch configmaps"}  # the keys, in the operator's own namespace
    renewals = {"update leases"}  # tests/e2e/ha kills it at those
    # A question for a value is no run's; tests/e2e/sealed/test_reveal.py has the operator away meanwhile.
    reveals = {"patch secretreveals/status", "delete secretreveals"}
    runs = SUCCEEDS.writes | IS_CANCELLED.writes | WORKFLOW.writes
    assert rights | by_name == runs | renewals | reveals
