"""The example's Application, ConfigMap and Kustomizations against the definitions of the kinds that they are of."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.cluster.base import ClusterError
from testing.cluster.golang import module_folder
from testing.cluster.node import NodeCluster
from testing.examples import EXAMPLES
from testing.operators import wait_established
from tests.e2e.conftest import OwnNode

PINS = Path(__file__).parent / "schemas_go"
DEFINITIONS = {
    "github.com/argoproj/argo-cd/v3": "manifests/crds/application-crd.yaml",
    "github.com/fluxcd/kustomize-controller": (
        "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml"
    ),
}
MANIFESTS = ("argocd/application.yaml", "argocd/argocd-cm.yaml", "flux/kustomizations.yaml")
NAMESPACES = ("argocd", "team-a")

pytestmark = pytest.mark.e2e


@pytest.fixture
def tools(own_node: OwnNode) -> NodeCluster:
    """An API server that knows the kinds of Argo CD and Flux, which do not run there."""
    node = own_node()
    for module, path in DEFINITIONS.items():
        # They are too large for the annotation of a plain apply.
        made = node.kubectl("create", "-o", "name", "-f", str(module_folder(PINS, module) / path))
        kinds = [name.partition("/")[2] for name in made.split() if name.startswith("customresourcedef")]
        assert kinds
        wait_established(node, *kinds)
    for name in NAMESPACES:
        node.kubectl("create", "namespace", name)
    return node


def test_they_are_what_the_tools_take_and_a_misspelt_field_is_not(tools: NodeCluster) -> None:
    assert {str(path.relative_to(EXAMPLES / "gitops")) for path in manifests()} == set(MANIFESTS)
    for path in manifests():
        tools.kubectl("create", "--dry-run=server", "--validate=strict", "-f", str(path))
    # the twin
    for name, right, wrong in (
        ("argocd/application.yaml", "repoURL", "repoUrl"),
        ("flux/kustomizations.yaml", "dependsOn", "dependOn"),
    ):
        text = (EXAMPLES / "gitops" / name).read_text()
        assert right in text
        with pytest.raises(ClusterError, match=f"unknown field .*{wrong}"):
            tools.kubectl(
                *("create", "--dry-run=server", "--validate=strict", "-f", "-"),
                input=text.replace(right, wrong),
            )


def manifests() -> list[Path]:
    """What a tool is given about itself: everything but the run that it makes as a hook, which is of our kind."""
    found = [path for tool in ("argocd", "flux") for path in (EXAMPLES / "gitops" / tool).glob("*.yaml")]
    return [path for path in found if path.name != "hook.yaml"]
