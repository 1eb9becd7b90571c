"""A second node joins, the first one is drained while runs are live, and then the other way round."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing import workflows
from testing.cluster import images
from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster
from testing.cluster.node_config import NODE_NAME
from testing.namespace import FINISHES_WHEN_TOLD, Team, phase, python
from testing.operators import RELEASE
from tests.e2e.conftest import OwnNode
from tests.e2e.test_chart_install import SYSTEM, becomes_available, install, settled_node
from tests.e2e.test_chart_life import a_stream_of_runs, run_secrets, team_on

pytestmark = pytest.mark.e2e


def nodes_of_operators(node: NodeCluster) -> list[str]:
    """Where the operator's pods run that are there to stay."""
    pods = node.client.list("pods", SYSTEM, labels=f"app.kubernetes.io/name={RELEASE}")
    return sorted(
        pod["spec"].get("nodeName", "") for pod in pods if "deletionTimestamp" not in pod["metadata"]
    )


def drain(node: NodeCluster, name: str) -> None:
    """As an administrator does; waits for the operator's disruption budget."""
    node.kubectl(
        "drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s", timeout=360
    )


def requester_of(team: Team) -> Object:
    """What the API server fills in for whoever makes the runs here."""
    filled: Object = team.make_run("first")["spec"]["requester"]
    return filled


def move(node: NodeCluster, team: Team, requester: Object, source: str, target: str) -> list[Object]:
    """Have runs live on ``source``, drain it, and go on until the operators are on ``target``. Returns the runs."""
    node.kubectl("cordon", target)
    long = [
        team.make_run(
            f"long-{source}-{number}",
            command=python(FINISHES_WHEN_TOLD),
            task={"backoffLimit": 0},
            requester=requester,
        )
        for number in range(3)
    ]
    for run in long:
        team.wait_running(run)
    node.kubectl("uncordon", target)
    with a_stream_of_runs(team, requester, f"during-{source}") as short:
        drain(node, source)
        wait_until(f"the operators to run on {target}", lambda: nodes_of_operators(node) == [target, target])
        becomes_available(node, SYSTEM)
    node.kubectl("uncordon", source)
    for run in long:
        again = workflows.wait_pod(team, run, "work", attempt=2)
        assert again["spec"]["nodeName"] == target
        team.tell_pod_to_finish(again["metadata"]["name"])
    return [*long, *short]


def test_runs_and_operators_move_and_nothing_is_left(
    own_node: OwnNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = settled_node(own_node)
    install(node, RELEASE, SYSTEM)
    becomes_available(node, SYSTEM)
    team = team_on(node, tmp_path)
    requester = requester_of(team)
    second = node.join_second_node([images.operator_image(), images.task_image()])

    runs = move(node, team, requester, NODE_NAME, second)
    runs += move(node, team, requester, second, NODE_NAME)

    attempts = 0
    for run in runs:
        ended = team.wait_condition(run["metadata"]["name"], "SecretsReleased")
        assert phase(ended) == "Succeeded", ended["status"]
        (task,) = ended["status"]["tasks"]
        outcomes = [item["outcome"] for item in task["attempts"]]
        # What the drain took does not count: there is no back-off limit left to spend.
        assert outcomes == ["Disrupted"] * (len(outcomes) - 1) + ["Succeeded"], outcomes
        attempts += len(outcomes)
    assert run_secrets(node, team) == []
    assert attempts > len(runs), "the drains have met no run"
    made_once(node, team)
    with capsys.disabled():
        print(
            f"\ntwo drains: {len(runs)} runs, {attempts - len(runs)} attempts disrupted, 0 failed, 0 Secrets left"
        )


def made_once(node: NodeCluster, team: Team) -> None:
    """Each run's Secret was made once for its attempt."""
    made: dict[str, int] = {}
    for item in node.etcd.history(f"/registry/secrets/{team.namespace}/", since=1):
        if "/rk-" in item.key and item.value is not None:
            made[item.key] = made.get(item.key, 0) + 1
    assert made
    assert {key: times for key, times in made.items() if times != 1} == {}
