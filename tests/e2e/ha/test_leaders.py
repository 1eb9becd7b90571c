"""The leader dies, is told to stop, or freezes and wakes up, while runs come all the time."""

from __future__ import annotations

import os
import random
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from testing.cluster.base import Cluster, free_port, wait_until
from testing.cluster.client import PATIENCE
from testing.cluster.faults import matching
from testing.cluster.proxy import ApiProxy
from testing.namespace import FINISHES_WHEN_TOLD, python, team_in
from testing.operators import RELEASE
from tests.conftest import FULL
from tests.e2e.ha.pair import LEASE_SECONDS, Load, Pair, PairMaker, gaps, out_of_turn, wait_seconds
from tests.e2e.runs.kills import Hit, Kill, Killer, When
from tests.sampling import sample

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1800 if FULL else 900),
]


@dataclass(frozen=True)
class Blow:
    """One that the leader gets once it has written so many things more.

    :ivar node: its node goes too, so that nobody starts it again before another one leads.
    """

    after: int
    node: bool


def blows(count: int, size: int, name: str) -> list[Blow]:
    """``size`` of ``count`` in a sample, at places that the seed chooses."""
    seeded = random.Random(f"{os.environ['RUNKEYS_SEED']} {name}")
    return sample([Blow(seeded.randint(1, 9), number % 3 != 2) for number in range(count)], size, name=name)


def check(pair: Pair, load: Load, title: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every run went as if nothing had happened, and only the holder of the lease ever sent anything."""
    try:
        runs = load.stop_and_check()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{pair.text()}") from error
    writes = pair.writes()
    assert out_of_turn(writes) == []
    with capsys.disabled():
        print("\n" + gaps(title, writes, runs))


@pytest.mark.proof
def test_the_leader_is_killed_again_and_again(
    new_pair: PairMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = new_pair()
    pair.bring_up()
    plan = blows(20, 5, "kills of the leader")
    with Load(pair.team) as load:
        for blow in plan:
            leader = pair.busy_leader(blow.after)
            if blow.node:
                pair.take_down(leader)
                assert pair.leader(other_than=leader).running
                pair.bring_up(leader)
                leader.wait_says("standby")
            else:
                leader.kill()
                # it is started again, and is the leader as before, if that takes less than the lease
                pair.wait_for_any_write()
        check(pair, load, f"{len(plan)} times kill -9, lease {LEASE_SECONDS} s", capsys)
    took = {write.by for write in pair.writes() if write.takes}
    assert took == set(pair.operators) or not any(blow.node for blow in plan)
    # one that waits too long for its turn on a busy machine ends, too
    assert sum(map(len, pair.exits.values())) >= sum(not blow.node for blow in plan)


@pytest.mark.proof
def test_a_frozen_leader_wakes_up(new_pair: PairMaker, capsys: pytest.CaptureFixture[str]) -> None:
    pair = new_pair()
    pair.bring_up()
    plan = blows(10, 2, "freezes of the leader")
    with Load(pair.team) as load:
        for blow in plan:
            leader = pair.busy_leader(blow.after)
            leader.pause()
            mark = pair.team.cluster.audit.mark()
            wait_seconds(2 * LEASE_SECONDS)
            assert pair.leader(other_than=leader).running
            pair.wait_for_writes(pair.other(leader), 1, mark)
            before = len(pair.exits[leader.identity])
            leader.resume()
            # it ends by itself, and what is started in its place waits
            pair.wait_started_again(leader, before + 1)
            leader.wait_says("standby")
            assert f"the lease ended: {pair.other(leader).identity} holds the lease" in leader.text()
        title = f"{len(plan)} times SIGSTOP for {2 * LEASE_SECONDS} s, lease {LEASE_SECONDS} s"
        check(pair, load, title, capsys)
    codes = [code for codes in pair.exits.values() for code in codes]
    assert (len(codes) >= len(plan), set(codes)) == (True, {1})


def test_told_to_stop_it_hands_over_at_once(new_pair: PairMaker, capsys: pytest.CaptureFixture[str]) -> None:
    # a lease so long that nobody would lead within the test if it were not given back
    ports = [free_port(), free_port()]
    pair = new_pair(lease_seconds=3600, arguments=[("--health-port", str(number)) for number in ports])
    health = dict(zip(pair.operators, ports, strict=True))
    pair.bring_up()
    with Load(pair.team) as load:
        for _ in range(4):
            leader = pair.busy_leader(5)
            pair.other(leader).wait_says("standby")
            # Prometheus keeps its connection between two scrapes
            with closing(HTTPConnection("127.0.0.1", health[leader.identity], timeout=PATIENCE)) as scrape:
                scrape.request("GET", "/metrics")
                scrape.getresponse().read()
                assert pair.retire(leader) == 0
            assert pair.leader(other_than=leader).running
            pair.wait_for_writes(pair.other(leader), 1)
            last = [write for write in pair.writes() if write.by == leader.identity][-1]
            assert last.takes, "the last that it does is to give the lease back"
            pair.bring_up(leader)
        check(pair, load, "4 times SIGTERM", capsys)


def test_control_nobody_leads_when_the_lease_is_not_given_back(new_pair: PairMaker) -> None:
    pair = new_pair(lease_seconds=3600)
    pair.bring_up()
    leader = pair.leader()
    standby = pair.other(leader)
    standby.wait_says("standby")
    pair.take_down(leader)
    mark = pair.team.cluster.audit.mark()
    pair.team.make_run()
    pair.wait_for_looks(standby, 5)
    assert pair.holder == leader.identity
    assert pair.writes(mark) == []


def test_control_two_that_have_a_lease_each_are_found_out(new_pair: PairMaker) -> None:
    """The check sees two that act at a time: the second one has been told of another lease, and may have it."""
    elsewhere = f"{RELEASE}-of-its-own"
    pair = new_pair(arguments=((), ("--lease", "{namespace}/" + elsewhere)))
    team = pair.team
    [role] = [
        item
        for item in team.client.list("roles", team.namespace)
        if item["metadata"]["name"].endswith("-lease")
    ]
    for rule in role["rules"]:
        if "resourceNames" in rule:
            rule["resourceNames"].append(elsewhere)
    team.client.patch("roles", role["metadata"]["name"], team.namespace, {"rules": role["rules"]})
    one, two = pair.operators.values()
    pair.bring_up()
    for operator in (one, two):
        operator.wait_serving()
    with Load(team):
        pair.wait_for_writes(one, 3)
        pair.wait_for_writes(two, 3)
    assert out_of_turn(pair.writes())


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("verb", ["create", "update"])
@pytest.mark.usefixtures("crds")
def test_killed_at_a_call_for_the_lease(
    cluster: Cluster, namespace: str, proxy: ApiProxy, tmp_path: Path, verb: str, when: When
) -> None:
    kill = Kill(when, f"{verb} leases", 1)
    hits: list[Hit] = []
    lease = ("--lease-seconds", str(LEASE_SECONDS))
    with team_in(cluster, namespace, tmp_path, *lease, server=proxy.url) as team:
        Killer(proxy, team.operator, [kill], hits)
        team.operator.start()
        team.make_source()
        team.make_binding()
        team.make_run()
        wait_until("the kill", lambda: bool(hits), PATIENCE)
        team.wait_phase("job", "Succeeded")
        team.wait_condition("job", "SecretsReleased")
        assert team.secret_story() == ["made", "gone"]
    assert [hit.kill for hit in hits] == [kill]


@pytest.mark.parametrize("late", ["while it is used", "after its end"])
def test_a_secret_of_a_frozen_leader_that_arrives_after_the_take_over(
    new_pair: PairMaker, node: Cluster, late: str
) -> None:
    """The network keeps the request back, whatever the leader does. It is also the twin of the check of turns."""
    with ApiProxy(node) as proxy:
        held = proxy.hold(matching("create", "secrets"))
        pair = new_pair(servers=(proxy.url, None))
        team = pair.team
        leader, standby = pair.operators.values()
        pair.bring_up(leader)
        assert pair.leader() is leader
        pair.bring_up(standby)
        run = team.make_run(command=python(FINISHES_WHEN_TOLD))
        held.wait_arrived(PATIENCE)
        leader.pause()
        assert pair.leader(other_than=leader) is standby
        team.wait_running(run)
        assert out_of_turn(pair.writes()) == []
        if late == "while it is used":
            held.release()
            arrived = proxy.wait_for(matching("create", "secrets"), PATIENCE)
            assert [request.status for request in arrived] == [409]
        team.tell_to_finish(run)
        team.wait_phase("job", "Succeeded")
        team.wait_condition("job", "SecretsReleased")
        if late == "after its end":
            held.release()
            arrived = proxy.wait_for(matching("create", "secrets"), PATIENCE)
            assert [request.status for request in arrived] == [201]
            wait_until("it to be gone again", lambda: not team.live_secrets(), 2 * PATIENCE, every=0.2)
        leader.resume()
        pair.wait_started_again(leader, 1)
        found = ["made", "gone"] * (1 if late == "while it is used" else 2)
        assert team.secret_story(team.object_name(run)) == found
        [late_one] = out_of_turn(pair.writes())
        assert late_one.startswith("one create secrets"), late_one
