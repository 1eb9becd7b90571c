"""The image that Docker built, installed by the chart on a real node: runs are delivered to, plainly and sealed."""

from __future__ import annotations

import pytest

from scripts.image import build
from testing import examples
from testing.cluster.node import NodeCluster
from testing.namespace import make_namespace
from testing.operators import CHART, RELEASE
from tests.e2e.conftest import OwnNode, own_node
from tests.e2e.test_chart_install import SYSTEM, becomes_available, runs_the_example
from tests.image.conftest import TAG

__all__ = ["own_node"]


@pytest.fixture
def installed(own_node: OwnNode, made: build.Made) -> NodeCluster:
    """A node with the operator as the chart installs it, with the user that the chart names and no name for it."""
    node = own_node()
    node.load_image(made.archive)
    repository, _, tag = TAG.rpartition(":")
    node.helm(
        *("install", RELEASE, str(CHART), f"--namespace={SYSTEM}", "--create-namespace"),
        *(f"--set=image.repository={repository},image.tag={tag}", "--set=sealedDelivery.enabled=true"),
    )
    becomes_available(node, SYSTEM)
    return node


def test_runs_have_their_secrets_with_the_image_that_docker_built(installed: NodeCluster) -> None:
    namespace = make_namespace(installed.client, "team")
    runs_the_example(installed, namespace)

    # The program that opens values in a pod is in the same image.
    binding, run = examples.sealed_delivery(namespace)
    installed.client.create(binding)
    installed.client.create(run)
    name = run["metadata"]["name"]
    installed.kubectl(
        *("-n", namespace, "wait", "--for=condition=SecretsReleased", f"wfr/{name}", "--timeout=180s"),
        timeout=240,
    )
    ended = installed.client.get("workflowruns", name, namespace)
    assert ended["status"]["phase"] == "Succeeded", ended["status"]
    (pod,) = installed.client.list("pods", namespace, labels=f"runkeys.dev/run={name}")
    assert [item["image"] for item in pod["spec"]["initContainers"]] == [TAG]
