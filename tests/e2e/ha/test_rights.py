"""The right to the lease is the right to act: without it both keep still, say so, and go on when they have it again."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from testing.cluster.base import free_port, wait_until
from testing.cluster.client import PATIENCE
from testing.namespace import FINISHES_WHEN_TOLD, python
from tests.e2e.ha.pair import Pair, PairMaker, out_of_turn

pytestmark = pytest.mark.e2e


def ready(number: int) -> str:
    """What the operator's probe says: the status and the text."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{number}/readyz", timeout=PATIENCE) as answer:
            return f"{answer.status} {answer.read().decode().strip()}"
    except urllib.error.HTTPError as refused:
        with refused:
            return f"{refused.code} {refused.read().decode().strip()}"
    except OSError:
        return ""


def grant(pair: Pair, *verbs: str) -> None:
    """Have the operators' account have only these rights on the lease, and none to make one."""
    client, namespace = pair.team.client, pair.team.namespace
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["runkeys"],
        "verbs": list(verbs),
    }
    client.patch("roles", "runkeys-lease", namespace, {"rules": [rule]})


def test_without_the_right_to_renew_nobody_acts(new_pair: PairMaker) -> None:
    ports = [free_port(), free_port()]
    pair = new_pair(arguments=[("--health-port", str(number)) for number in ports])
    team = pair.team
    probes = dict(zip(pair.operators, ports, strict=True))
    pair.bring_up()
    leader = pair.leader()
    standby = pair.other(leader)
    wait_until("a leader", lambda: ready(probes[leader.identity]) == "200 leader", PATIENCE)
    wait_until("a standby", lambda: ready(probes[standby.identity]) == "200 standby", PATIENCE)
    running = team.make_run("runs", command=python(FINISHES_WHEN_TOLD))
    team.wait_running(running)

    grant(pair, "get")
    leader.wait_says("cannot renew the lease")
    wait_until(
        "the leader to keep still",
        lambda: ready(probes[leader.identity]) == "503 leader, but it could not renew its lease",
        PATIENCE,
    )
    mark = team.cluster.audit.mark()
    # something to make, and something to take away
    team.make_run("new")
    team.tell_to_finish(running)
    leader.wait_says("NotLeader")
    standby.wait_says("cannot access the lease")
    pair.wait_for_looks(standby, 5)
    assert [str(write) for write in pair.writes(mark) if not write.of_lease] == []
    assert {write.event.status for write in pair.writes(mark)} <= {403}
    assert ready(probes[standby.identity]).startswith("503")

    grant(pair, "get", "update")
    for name in ("runs", "new"):
        team.wait_phase(name, "Succeeded")
        team.wait_condition(name, "SecretsReleased")
    assert team.live_secrets() == []
    assert out_of_turn(pair.writes()) == []


def test_control_with_the_right_it_acts(new_pair: PairMaker) -> None:
    """What is asserted to be empty above is not when nothing is taken away."""
    pair = new_pair()
    pair.bring_up()
    mark = pair.team.cluster.audit.mark()
    pair.team.make_run("new")
    pair.team.wait_phase("new", "Succeeded")
    assert [write for write in pair.writes(mark) if not write.of_lease] != []
