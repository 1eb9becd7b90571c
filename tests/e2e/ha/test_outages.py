"""What lies between the operators and the cluster's memory goes away for a while, under both or under the leader."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.cluster.base import Cluster
from testing.cluster.proxy import ApiProxy
from testing.namespace import make_namespace
from testing.operators import install_crds
from tests.conftest import FULL
from tests.e2e.conftest import OwnNode
from tests.e2e.ha.pair import LEASE_SECONDS, Load, Network, PairMaker, pair_in, wait_seconds
from tests.e2e.ha.test_leaders import check

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.proof,
    pytest.mark.timeout(1200 if FULL else 900),
    # A server that is killed in the middle of a handshake leaves the test's own socket to be collected.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]

TIMES = 5 if FULL else 1
AWAY_SECONDS = 60 if FULL else 2 * LEASE_SECONDS


@pytest.mark.parametrize("component", ["kube-apiserver", "etcd"])
def test_a_component_is_away_for_longer_than_the_lease(
    own_node: OwnNode, tmp_path: Path, component: str, capsys: pytest.CaptureFixture[str]
) -> None:
    node = own_node()
    install_crds(node)
    with pair_in(node, make_namespace(node.client, "team"), tmp_path) as pair:
        pair.bring_up()
        with Load(pair.team) as load:
            for _ in range(TIMES):
                pair.busy_leader(5)
                node.kill(component)
                wait_seconds(AWAY_SECONDS)
                mark = pair.team.cluster.audit.mark()
                node.start_component(component)
                node.client.wait_ready()
                pair.busy_leader(9, mark)
            check(pair, load, f"{TIMES} times without {component} for {AWAY_SECONDS} s", capsys)
        # whoever ended did so because the other one leads, and not for want of an answer
        codes = [code for codes in pair.exits.values() for code in codes]
        assert codes == [1] * sum(
            op.text().count("CRITICAL app  the lease ended") for op in pair.operators.values()
        )


def test_only_the_leader_is_cut_off(
    new_pair: PairMaker, node: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with ApiProxy(node) as one, ApiProxy(node) as two:
        pair = new_pair(servers=(one.url, two.url))
        networks = dict(zip(pair.operators, (Network(one), Network(two)), strict=True))
        pair.bring_up()
        with Load(pair.team) as load:
            for _ in range(TIMES):
                leader = pair.busy_leader(5)
                pair.other(leader).wait_says("standby")
                before = len(pair.exits[leader.identity])
                networks[leader.identity].cut()
                assert pair.leader(other_than=leader).running
                leader.wait_says("cannot renew the lease")
                wait_seconds(AWAY_SECONDS)
                networks[leader.identity].mend()
                pair.wait_started_again(leader, before + 1)
                leader.wait_says("standby")
            check(pair, load, f"{TIMES} times the leader cut off for {AWAY_SECONDS} s", capsys)


def test_both_are_cut_off(new_pair: PairMaker, node: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    with ApiProxy(node) as one, ApiProxy(node) as two:
        pair = new_pair(servers=(one.url, two.url))
        networks = [Network(one), Network(two)]
        pair.bring_up()
        with Load(pair.team) as load:
            for _ in range(TIMES):
                leader = pair.busy_leader(5)
                pair.other(leader).wait_says("standby")
                for network in networks:
                    network.cut()
                mark = node.audit.mark()
                leader.wait_says("cannot renew the lease")
                wait_seconds(AWAY_SECONDS)
                for network in networks:
                    network.mend()
                pair.busy_leader(9, mark)
            check(pair, load, f"{TIMES} times both cut off for {AWAY_SECONDS} s", capsys)
