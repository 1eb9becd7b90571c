"""An API server of the oldest Kubernetes that the chart takes, with etcd and nothing else (`make test-1.34`).

Nothing makes pods here, nor the service account of a new namespace: the tests are about what the API server decides.
They are apart from tests/e2e, so that `make test` does not build a second Kubernetes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from testing.cluster import build
from testing.cluster.cache import Claim, cache_dir
from testing.cluster.client import KubeClient
from testing.cluster.node import NodeCluster
from testing.cluster.node_layout import NodeOptions
from tests.e2e.conftest import OwnNode, crds
from tests.e2e.runs.conftest import new_team

__all__ = ["crds", "new_team"]

OLDEST = NodeOptions(api_server_program="kube-apiserver-1.34", api_server_only=True)


def start(ends: ExitStack) -> NodeCluster:
    build.ensure(("kube-1.34",))
    name = f"oldest-{secrets.token_hex(4)}"
    claim = Claim(cache_dir() / "nodes" / f".{name}.claims")
    ends.callback(claim.release)
    node = NodeCluster.start(name, OLDEST, claim)
    ends.callback(node.stop)
    return node


@pytest.fixture(scope="session")
def cluster() -> Iterator[NodeCluster]:
    """The one that the tests share."""
    with ExitStack() as ends:
        yield start(ends)


@pytest.fixture(scope="session")
def node(cluster: NodeCluster) -> NodeCluster:
    """The same, under the name by which tests look into etcd and logs."""
    return cluster


@pytest.fixture
def own_node() -> Iterator[OwnNode]:
    """One for a test alone."""
    with ExitStack() as ends:
        yield lambda options=None: start(ends)  # noqa: ARG005 -- there is one kind of them


@pytest.fixture
def client(cluster: NodeCluster) -> KubeClient:
    """An administrator's client."""
    return cluster.client


@pytest.fixture
def new_namespace(cluster: NodeCluster) -> Callable[[], str]:
    """Make namespaces, each with the service account that a controller would make."""

    def make() -> str:
        name = f"team-{secrets.token_hex(3)}"
        cluster.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        metadata = {"name": "default", "namespace": name}
        cluster.client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        return name

    return make


@pytest.fixture
def namespace(new_namespace: Callable[[], str]) -> str:
    """One of them."""
    return new_namespace()
