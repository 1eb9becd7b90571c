"""What is about kind itself: `make test-kind` runs it beside the end-to-end tests that `tests/on-kind.txt` lists."""

from __future__ import annotations

import pytest

from testing.cluster.base import Cluster
from testing.cluster.kind import KindCluster
from tests.e2e.conftest import client, cluster, namespace, new_namespace

__all__ = ["client", "cluster", "namespace", "new_namespace"]


@pytest.fixture
def kind_cluster(cluster: Cluster) -> KindCluster:
    """The shared cluster."""
    assert isinstance(cluster, KindCluster), "make test-kind runs this"
    return cluster
