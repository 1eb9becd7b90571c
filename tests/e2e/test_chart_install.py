"""The chart on a cluster of its own, for all namespaces: helm brings everything, and takes it away again."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from runkeys.api.crd import KINDS
from testing import examples
from testing.cluster import images
from testing.cluster.base import Cluster, ClusterError
from testing.cluster.client import KubeClient
from testing.cluster.node import NodeCluster
from testing.namespace import make_namespace
from testing.operators import CHART, RELEASE
from tests.e2e.conftest import OwnNode
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e

SYSTEM = "runkeys-system"
# Kubernetes' own, which come and go with time.
PASSING = ("/registry/events/", "/registry/leases/", "/registry/masterleases/")
TAG = images.OPERATOR_IMAGE.rpartition(":")[2]


def install(cluster: Cluster, release: str, namespace: str, *values: str) -> None:
    """Install the chart as its notes say, with the operator of this checkout."""
    cluster.load_image(images.operator_image())
    cluster.helm(
        *("install", release, str(CHART), f"--namespace={namespace}", "--create-namespace"),
        *(f"--set=image.tag={TAG}", *values),
    )


def becomes_available(cluster: Cluster, namespace: str, seconds: int = 180) -> None:
    """Wait for the Deployment, whose pod is ready when its probe says so."""
    cluster.kubectl(
        *("-n", namespace, "wait", "--for=condition=Available", "deployment", "--all"),
        f"--timeout={seconds}s",
        timeout=seconds + 30,
    )


def runs_the_example(node: NodeCluster, namespace: str) -> None:
    """Apply examples/hello as a team would, and see it through."""
    value = secrets.token_hex(16)
    client = node.client
    client.create(examples.source_secret(namespace, value))
    for manifest in examples.source_role(namespace, RELEASE, SYSTEM):
        client.create(manifest)
    client.create(examples.hello_binding(namespace))
    client.create(examples.hello_run(namespace))
    node.kubectl(
        *("-n", namespace, "wait", "--for=condition=SecretsReleased", "wfr/hello", "--timeout=180s"),
        timeout=240,
    )
    run = client.get("workflowruns", "hello", namespace)
    assert run["status"]["phase"] == "Succeeded", run["status"]
    assert node.etcd.keys(f"/registry/secrets/{namespace}/") == [
        f"/registry/secrets/{namespace}/{examples.SOURCE}"
    ]
    made = [key for key in node.etcd.find(value.encode()) if not key.endswith(f"/{examples.SOURCE}")]
    assert len(made) == 1, made
    assert made[0].startswith(f"/registry/secrets/{namespace}/rk-hello-greet-1-")


def settled_node(own_node: OwnNode) -> NodeCluster:
    """A node whose own namespaces have all that Kubernetes puts into every namespace."""
    node = own_node()
    for namespace in node.client.list("namespaces"):
        name = namespace["metadata"]["name"]
        node.client.wait_for("serviceaccounts", "default", name, bool)
        node.client.wait_for("configmaps", "kube-root-ca.crt", name, bool)
    return node


def kept(node: NodeCluster) -> set[str]:
    """Keys of everything that does not pass by itself."""
    return {key for key in node.etcd.keys("/registry/") if not key.startswith(PASSING)}


NAMESPACE_ITSELF = (
    f"/registry/namespaces/{SYSTEM}",
    f"/registry/serviceaccounts/{SYSTEM}/default",
    f"/registry/configmaps/{SYSTEM}/kube-root-ca.crt",
)
OF_THE_KINDS = (
    *(
        f"/registry/apiextensions.k8s.io/customresourcedefinitions/{kind.CRD.plural}.runkeys.dev"
        for kind in KINDS
    ),
    "/registry/apiregistration.k8s.io/apiservices/v1alpha1.runkeys.dev",
)
# Without the private keys nothing that is sealed, in Git too, would open again.
KEYS = (
    f"/registry/secrets/{SYSTEM}/runkeys-sealing-keys",
    f"/registry/configmaps/{SYSTEM}/runkeys-public-keys",
)


def test_it_serves_all_namespaces_and_leaves_only_kinds_and_keys(own_node: OwnNode) -> None:
    node = settled_node(own_node)
    before = kept(node)
    install(node, RELEASE, SYSTEM)
    becomes_available(node, SYSTEM)
    printed = node.kubectl("-n", SYSTEM, "logs", "--selector=app.kubernetes.io/name=runkeys", "--tail=-1")
    assert (printed.count("serving all namespaces"), printed.count("standby")) == (1, 1), printed
    # Both are made after the operator began, and nobody tells it of them.
    teams = [make_namespace(node.client, "team") for _ in range(2)]
    for team in teams:
        runs_the_example(node, team)

    # The twin: what stays when helm takes nothing away is seen.
    assert f"/registry/clusterroles/{RELEASE}" in kept(node)
    assert f"/registry/deployments/{SYSTEM}/{RELEASE}" in kept(node)

    uninstall(node)
    for team in teams:
        assert node.client.find("workflowruns", "hello", team) is not None, "the teams' runs stay"
        node.client.delete("namespaces", team)
        node.client.wait_gone("namespaces", team, None)
    assert kept(node) - before == {*NAMESPACE_ITSELF, *OF_THE_KINDS, *KEYS}


def uninstall(node: NodeCluster) -> None:
    """Uninstall, and wait for the pods, which Kubernetes collects afterwards."""
    pods = node.client.list("pods", SYSTEM)
    node.helm("uninstall", RELEASE, f"--namespace={SYSTEM}", "--wait")
    for pod in pods:
        node.client.wait_gone("pods", pod["metadata"]["name"], SYSTEM)


def test_the_command_line_installs_and_upgrades_it(own_node: OwnNode, tmp_path: Path) -> None:
    node = own_node()
    node.load_image(images.operator_image())
    user = Terminal(tmp_path, {key: node.environment()[key] for key in ("KUBECONFIG", "PATH")})
    wrong = user.run("install", "--set", "replicas=many")
    assert wrong.code == 1
    assert "replicas" in wrong.err
    made = user.run("install", "--set", f"image.tag={TAG}")
    assert made.code == 0, made
    assert "the operator is ready in namespace runkeys-system" in made.err
    team = make_namespace(node.client, "team")
    runs_the_example(node, team)
    upgraded = user.run("install", "--set", f"image.tag={TAG}", "--set", "replicas=1")
    assert upgraded.code == 0, upgraded
    assert node.client.get("deployments", RELEASE, SYSTEM)["spec"]["replicas"] == 1


@pytest.mark.usefixtures("crds")
def test_control_without_its_rights_it_is_not_available(
    cluster: Cluster, client: KubeClient, new_namespace: Callable[[], str]
) -> None:
    system, served = new_namespace(), new_namespace()
    release = f"runkeys-{secrets.token_hex(3)}"
    install(cluster, release, system, f"--set=watchNamespaces={{{served}}}", "--set=crds.install=false")
    becomes_available(cluster, system)

    client.delete("rolebindings", release, served)
    names = [pod["metadata"]["name"] for pod in client.list("pods", system)]
    for name in names:
        client.delete("pods", name, system)
    for name in names:
        client.wait_gone("pods", name, system)

    with pytest.raises(ClusterError, match="timed out waiting"):
        becomes_available(cluster, system, seconds=8)
