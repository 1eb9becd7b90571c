"""deploy/: the chart's objects for `kubectl apply -k`, the same as the chart's, and they work."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

import runkeys
from runkeys.names import PUBLIC_KEYS
from scripts import manifests
from testing.cluster import images
from testing.cluster.base import Cluster, ClusterError
from testing.namespace import make_namespace
from tests.e2e.conftest import OwnNode
from tests.e2e.test_chart_install import SYSTEM, becomes_available, runs_the_example, settled_node

pytestmark = pytest.mark.e2e

Identity = tuple[str, str, str]


def identified(objects: list[dict[str, Any]]) -> dict[Identity, dict[str, Any]]:
    return {
        (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]): item
        for item in objects
    }


def test_the_files_are_those_of_the_chart_as_it_is() -> None:
    """`make manifests` mends this."""
    there = {*manifests.DEPLOY.rglob("*.yaml"), manifests.CRDS / "Kustomization"}
    due = manifests.files()

    assert there == due.keys()
    assert {path: path.read_text() for path in there} == due


@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_kustomize_makes_what_helm_makes(cluster: Cluster, overlay: str) -> None:
    printed = cluster.kubectl("kustomize", str(manifests.DEPLOY / overlay))
    by_kustomize = identified(list(yaml.safe_load_all(printed)))
    namespaces = manifests.OVERLAYS[overlay]
    served = (f"--set=watchNamespaces={{{','.join(namespaces)}}}",) if namespaces else ()
    text = cluster.helm(
        *("template", "runkeys", str(manifests.CHART), f"--namespace={SYSTEM}", "--no-hooks"),
        *(
            "--set=drain.enabled=false",
            "--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",
        ),
        *served,
    )
    by_helm = identified([manifests.plain(item) for item in yaml.safe_load_all(text) if item])

    del by_kustomize["Namespace", "", SYSTEM]
    for (kind, _, _), item in by_helm.items():
        if kind == "CustomResourceDefinition":
            item["metadata"].pop("labels")
    assert by_kustomize == by_helm


def test_apply_and_nothing_drifts(own_node: OwnNode) -> None:
    node = settled_node(own_node)
    node.load_image(images.operator_image(tag=f"localhost/runkeys-operator:{runkeys.__version__}"))
    folder = str(manifests.DEPLOY / "all-namespaces")

    node.kubectl("apply", "--server-side", "-k", folder)
    becomes_available(node, SYSTEM)
    runs_the_example(node, make_namespace(node.client, "team"))

    # The operator has filled in its keys since: a second look finds nothing to do, and raises no conflict.
    def diff() -> str | None:
        """Without a write of the operator in the middle: kubectl reads, and then asks what an apply would do."""
        before = node.client.get("configmaps", PUBLIC_KEYS, SYSTEM)["metadata"]["resourceVersion"]
        found = ""
        try:
            node.kubectl("diff", "--server-side", "-k", folder)
        except ClusterError as error:  # its exit code says that there is something
            found = str(error)
        after = node.client.get("configmaps", PUBLIC_KEYS, SYSTEM)["metadata"]["resourceVersion"]
        return found if before == after else None

    found = next(each for _ in range(20) if (each := diff()) is not None)
    assert found == ""
    node.kubectl("apply", "--server-side", "-k", folder)
