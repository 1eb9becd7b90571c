"""Argo Workflows as its manifests install it, in namespace ``argo``: the controller, without its server."""

from __future__ import annotations

import yaml

from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.cluster.engines import ARGO, image, image_of
from testing.operators import wait_established

NAMESPACE = "argo"
EXECUTOR = image_of(ARGO, "argoexec")
SWAPS = {"quay.io/argoproj/argoexec:*": EXECUTOR.rpartition(":")[0] + ":*"}
OF_WORKFLOW = "workflows.argoproj.io/workflow"
NODE_NAME = "workflows.argoproj.io/node-name"
_FOLDERS = ("base/crds/minimal", "cluster-install-no-crds")


def install(cluster: Cluster) -> None:
    """Build it if it is not there, install it, and wait for it. Several test workers may do so at once."""
    for name in ARGO.programs:
        cluster.load_image(image(ARGO, name))
    manifests = _manifests(cluster)
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            [container] = manifest["spec"]["template"]["spec"]["containers"]
            container |= {
                "image": image_of(ARGO, "workflow-controller"),
                "args": ["--executor-image", EXECUTOR],
            }
    names = [item["metadata"]["name"] for item in manifests if item["kind"] == "CustomResourceDefinition"]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    install_all(cluster, NAMESPACE, [namespace, *manifests], names)


def install_all(cluster: Cluster, namespace: str, manifests: list[Object], kinds: list[str]) -> None:
    """Apply an engine's manifests, and wait until its kinds are there and its controller is available."""
    definitions = [item for item in manifests if item["metadata"]["name"] in kinds]
    deployments = [item for item in manifests if item["kind"] == "Deployment"]
    others = [item for item in manifests if item not in definitions and item not in deployments]
    for batch in (definitions, others, deployments):
        cluster.kubectl(
            *("apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-"),
            input=yaml.safe_dump_all(batch),
        )
    wait_established(cluster, *kinds)
    cluster.kubectl(
        *("-n", namespace, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=300s"),
        timeout=330,
    )


def _manifests(cluster: Cluster) -> list[Object]:
    source = ARGO.source() / "manifests"
    return [
        manifest
        for folder in _FOLDERS
        for manifest in yaml.load_all(
            cluster.kubectl("kustomize", str(source / folder)), Loader=yaml.CSafeLoader
        )
        if not manifest["metadata"]["name"].startswith("argo-server")
    ]


def ended(workflow: Object) -> bool:
    """Whether a Workflow has ended."""
    return workflow.get("status", {}).get("phase") in ("Succeeded", "Failed", "Error")


def pods_of(cluster: Cluster, workflow: Object) -> dict[str, Object]:
    """The pods of a Workflow, by what follows its name in the names of its nodes: ``compute(0)``."""
    metadata = workflow["metadata"]
    found = cluster.client.list("pods", metadata["namespace"], labels=f"{OF_WORKFLOW}={metadata['name']}")
    return {
        pod["metadata"]["annotations"][NODE_NAME].removeprefix(metadata["name"]).lstrip("."): pod
        for pod in found
    }
