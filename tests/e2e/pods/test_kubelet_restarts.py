"""A kubelet that starts again asks for every pod of its node: none of them is stranded, and none needs the operator.

On a node of its own: it asks again for the pods of all others, too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.cluster import images
from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.namespace import FINISHES_WHEN_TOLD, Team, make_namespace, team_in
from testing.operators import install_crds
from tests.e2e.conftest import OwnNode
from tests.e2e.delivery.test_kubelet_restarts import process_has_ended, runs_in, state
from tests.e2e.delivery.test_outages import requests_of
from tests.e2e.pods.conftest import ARGUMENTS, SETS, asking, furnish
from tests.e2e.pods.test_main_path import template_of

pytestmark = pytest.mark.e2e


def deploy(team: Team) -> None:
    pod = asking(team, code=FINISHES_WHEN_TOLD, labels={"app": "web"}, restartPolicy="Always")
    pod["spec"]["containers"][0]["env"] = [{"name": "PYTHONUNBUFFERED", "value": "1"}]
    metadata = {"name": "web", "namespace": team.namespace}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template_of(pod)}
    team.client.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})


def web(team: Team) -> list[Object]:
    return team.client.list("pods", team.namespace, labels="app=web")


def test_pods_go_on_after_the_kubelet_was_started_again(own_node: OwnNode, tmp_path: Path) -> None:
    node = own_node()
    install_crds(node)
    node.load_image(images.operator_image())
    namespace = make_namespace(node.client, "kubelet")
    with team_in(node, namespace, tmp_path, *ARGUMENTS, sets=SETS, sources=()) as team:
        team.operator.start()
        furnish(team)
        deploy(team)
        team.client.create(asking(team, "task", code=FINISHES_WHEN_TOLD))
        team.client.wait_for(
            "deployments", "web", namespace, lambda item: item["status"].get("readyReplicas") == 2
        )
        team.client.wait_for("pods", "task", namespace, lambda pod: pod["status"].get("phase") == "Running")
        first, second = sorted(pod["metadata"]["name"] for pod in web(team))
        wait_until("the used requests to be deleted", lambda: requests_of(team) == [])

        # The control: without an answer nothing is done for a pod, though its container has ended.
        team.operator.kill()
        node.restart("kubelet")
        wait_until(
            "the kubelet to ask again for every pod",
            lambda: {item["spec"]["podName"] for item in requests_of(team)} == {first, second, "task"},
        )
        team.tell_pod_to_finish(first)
        wait_until("the container to end", lambda: process_has_ended(team, first, "main"))
        assert restarts(team.client.get("pods", first, namespace)) == 0
        team.operator.start()

        # It is started again with its value, and a pod that runs to its end is seen to end.
        team.client.wait_for(
            "pods", first, namespace, lambda pod: restarts(pod) == 1 and runs_in(pod, "main")
        )
        printed = f"sha256 {team.digest}\n"
        wait_until("it to find its value", lambda: team.client.logs(first, namespace) == printed)
        team.tell_pod_to_finish("task")
        team.client.wait_for("pods", "task", namespace, lambda pod: pod["status"].get("phase") == "Succeeded")

        # A pod that starts again with its node may need its values again; one that ends for good gets nothing.
        assert sorted(state(item) for item in requests_of(team)) == [
            ("Issued", "Delivered"),
            ("Issued", "Delivered"),
            ("Issued", "NothingToDeliver"),
        ]


def restarts(pod: Object) -> int:
    (status,) = pod["status"]["containerStatuses"]
    return int(status["restartCount"])
