"""Clusters for the end-to-end tests.

All workers of a run share one cluster, started by the first test that needs it; tests keep out of each other's way by
namespaces of their own. What breaks components, or has to be alone, asks for ``own_node``. RUNKEYS_E2E_KEEP=1 leaves
the shared one up, for the next run to use.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from testing.cluster import providers
from testing.cluster.base import Cluster, ClusterError
from testing.cluster.cache import Claim, cache_dir
from testing.cluster.client import KubeClient
from testing.cluster.node import NodeCluster
from testing.cluster.node_layout import NodeOptions
from testing.cluster.proxy import ApiProxy
from testing.namespace import make_namespace, remove_namespace
from testing.operators import install_crds
from tests.conftest import HAS_FAILED
from tests.e2e import operator_calls

_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", secrets.token_hex(4))[:8]
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "m")
_NUMBERS = itertools.count(1)


def pytest_report_header() -> str:
    """Say which cluster it is: where a Docker engine answers it may be another one than is meant."""
    try:
        return f"cluster: {providers.choose()} ({providers.PROVIDER_VARIABLE} chooses another)"
    except ClusterError as none:
        return f"cluster: none. {none}"


class OwnNode(Protocol):
    """Starts a node for one test alone; it ends with the test."""

    def __call__(self, options: NodeOptions | None = None) -> NodeCluster: ...


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster that all tests of this run share."""
    keep = os.environ.get("RUNKEYS_E2E_KEEP", "") not in ("", "0")
    with providers.shared("tests" if keep else f"t-{_RUN}", keep) as shared:
        yield shared
        if shared.provider != "existing":
            operator_calls.check_all(shared.audit)  # each worker for all of them: the last one has seen all


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> Cluster:
    """The shared cluster, for tests that read all of etcd or the audit log."""
    if cluster.provider == "existing":
        pytest.skip("reads etcd or the audit log: only a cluster that the tests start offers that")
    return cluster


@pytest.fixture(scope="session")
def bare_node(cluster: Cluster) -> NodeCluster:
    """The shared cluster, for tests that look at its processes and their logs."""
    if not isinstance(cluster, NodeCluster):
        pytest.skip("looks into a node's components: only the provider 'node' offers that")
    return cluster


@pytest.fixture(scope="session")
def crds(cluster: Cluster) -> None:
    """The kinds are known to the shared cluster."""
    install_crds(cluster)


@pytest.fixture
def client(cluster: Cluster) -> KubeClient:
    """An administrator's client of the shared cluster."""
    return cluster.client


@pytest.fixture
def new_namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Make namespaces with names of their own; they are deleted after the test, without waiting."""
    made: list[str] = []

    def make() -> str:
        made.append(make_namespace(cluster.client, request.node.name))
        return made[-1]

    yield make
    for name in made:
        remove_namespace(cluster, name)


@pytest.fixture
def namespace(new_namespace: Callable[[], str]) -> str:
    """A fresh namespace for this test alone."""
    return new_namespace()


@pytest.fixture
def own_node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OwnNode]:
    """Start nodes for this test alone, for whatever would disturb others.

    If the test fails, the logs of their components are kept in its ``tmp_path``: nothing else is left of such a node.
    """
    if providers.choose() != "node":
        pytest.skip("starts a node for itself: only the provider 'node' offers that")
    with ExitStack() as ends:

        def start(options: NodeOptions | None = None) -> NodeCluster:
            name = f"t-{_RUN}-{_WORKER}-{next(_NUMBERS)}"
            claim = Claim(cache_dir() / "nodes" / f".{name}.claims")
            ends.callback(claim.release)
            node = NodeCluster.start(name, options, claim)
            ends.callback(node.stop)
            ends.callback(keep_logs, node)
            return node

        def keep_logs(node: NodeCluster) -> None:
            if request.node.stash.get(HAS_FAILED, False) and node.paths.logs.exists():
                shutil.copytree(node.paths.logs, tmp_path / f"logs-{node.record.name}")

        yield start


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[ApiProxy]:
    """A numbering proxy in front of the shared cluster's API server."""
    with ApiProxy(cluster) as started:
        yield started
