"""JobSet as its manifests install it, in namespace ``jobset-system``: the controller, with its webhooks."""

from __future__ import annotations

import yaml

from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.cluster.engines import JOBSET, image, image_of
from tests.engines.argo import install_all

NAMESPACE = "jobset-system"
NAME, JOB = "jobset.sigs.k8s.io/jobset-name", "jobset.sigs.k8s.io/replicatedjob-name"
_WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


def install(cluster: Cluster) -> None:
    """Build it if it is not there, install it, and wait for it. Several test workers may do so at once."""
    cluster.load_image(image(JOBSET, "manager"))
    manifests: list[Object] = []
    text = cluster.kubectl("kustomize", str(JOBSET.source() / "config" / "default"))
    for manifest in yaml.load_all(text, Loader=yaml.CSafeLoader):
        if manifest["kind"] == "Deployment":
            [container] = manifest["spec"]["template"]["spec"]["containers"]
            container |= {"image": image_of(JOBSET, "manager"), "imagePullPolicy": "IfNotPresent"}
        manifests.append(manifest)
    # The namespace first: kustomize orders so, but says it nowhere.
    manifests.sort(key=lambda item: item["kind"] != "Namespace")
    kinds = [item["metadata"]["name"] for item in manifests if item["kind"] == "CustomResourceDefinition"]
    install_all(cluster, NAMESPACE, manifests, kinds)


def outcome(job_set: Object) -> str:
    """How a JobSet ended: ``Completed`` or ``Failed``; empty while it runs."""
    return str(job_set.get("status", {}).get("terminalState", ""))


def pods_of(cluster: Cluster, job_set: Object) -> dict[str, list[Object]]:
    """The pods of a JobSet, by the name of the replicated Job."""
    metadata, found = job_set["metadata"], dict[str, list[Object]]()
    for pod in cluster.client.list("pods", metadata["namespace"], labels=f"{NAME}={metadata['name']}"):
        found.setdefault(pod["metadata"]["labels"][JOB], []).append(pod)
    return found
