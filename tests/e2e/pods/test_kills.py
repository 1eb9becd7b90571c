"""A pod that asks gets its values once, and nothing is left, wherever the operator is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import Object
from testing.namespace import Team
from tests.conftest import FULL
from tests.e2e.delivery.test_outages import REQUESTS, requests_of
from tests.e2e.pods.conftest import ARGUMENTS, SETS, asking, events_of, furnish, wait_ended
from tests.e2e.runs import test_kill_at_every_call as kills

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.proof,
    pytest.mark.timeout(7200 if FULL else 900),
]

OWN = frozenset((f"patch {REQUESTS}/status", f"delete {REQUESTS}", "create events"))
"""What the operator writes for such a pod."""

WRITES = OWN | {"create leases", "patch secrets", "patch configmaps", "patch secretbindings/status"}


def ask(team: Team) -> Object:
    furnish(team)
    team.client.create(asking(team))
    return wait_ended(team, "task")


def check(team: Team, found: Object, life: kills.Life) -> None:
    assert found["status"]["phase"] == life.phase, found["status"]
    assert team.client.logs("task", team.namespace) == f"sha256 {team.digest}\n"
    assert {item["restartCount"] for item in found["status"]["initContainerStatuses"]} == {0}
    wait_until("no request to be left", lambda: requests_of(team) == [])
    # The kubelet may have to ask more than once for what its node does not know yet, each time with an Event.
    assert {item["reason"] for item in events_of(team, "task") if item["type"] == "Warning"} <= {
        "FailedMount"
    }
    assert set(team.cluster.etcd.find(team.value.encode(), since=team.since)) == set()


@pytest.mark.usefixtures("crds", "unsealer")
def test_a_pod_that_asks_survives_a_kill_at_every_call(node: Cluster, tmp_path: Path) -> None:
    options = {"sets": SETS, "sources": ()}
    life = kills.Life(ask, "Succeeded", WRITES, check, arguments=ARGUMENTS, options=options)
    rehearsed = kills.rehearse(node, tmp_path, life)
    assert {text.removesuffix("*") for text in rehearsed if text.endswith("*")} == WRITES
    own = WRITES if FULL else OWN
    cases = kills.kills_of(rehearsed, own, 4, "kills for a pod that asks")
    hits = kills.play_all([kills.Case(node, tmp_path, life, (each,)) for each in cases])
    kills.check_hits(cases, hits, own - {"create events"})
