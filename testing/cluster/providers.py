"""Chooses a provider, and starts, finds and shares clusters of any provider."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from testing.cluster import build, kind
from testing.cluster.base import Cluster, ClusterError
from testing.cluster.cache import Claim, cache_dir, claims_of, file_lock
from testing.cluster.docker import docker_answers
from testing.cluster.existing import CONTEXT_VARIABLE, ExistingCluster
from testing.cluster.kind import KindCluster
from testing.cluster.node import NodeCluster

PROVIDER_VARIABLE = "RUNKEYS_E2E_PROVIDER"
_PROVIDERS = ("existing", "kind", "node")


def choose() -> str:
    """Return the provider to use: the one in RUNKEYS_E2E_PROVIDER, or the first that works here.

    That is ``existing`` if RUNKEYS_E2E_CONTEXT names a context, ``kind`` if a Docker engine answers, ``node`` for
    root on Linux.

    :raises ClusterError: none works.
    """
    named = os.environ.get(PROVIDER_VARIABLE, "")
    if named and named not in _PROVIDERS:
        raise ClusterError(f"{PROVIDER_VARIABLE} is {named!r}; it can be {', '.join(_PROVIDERS)}.")
    if named == "existing" and not os.environ.get(CONTEXT_VARIABLE):
        raise ClusterError(f"{PROVIDER_VARIABLE}=existing needs {CONTEXT_VARIABLE}: the context to use.")
    if named:
        return named
    if os.environ.get(CONTEXT_VARIABLE):
        return "existing"
    if docker_answers():
        return "kind"
    if sys.platform == "linux" and os.geteuid() == 0:
        return "node"
    raise ClusterError(
        "There is no way to a cluster here. Become root on Linux, or start Docker, or name a cluster of yours by "
        f"{CONTEXT_VARIABLE}. Without one, `make lint unit` still works."
    )


def groups() -> tuple[str, ...]:
    """Return the groups of programs that the chosen provider needs.

    :raises ClusterError: no provider works.
    """
    provider = choose()
    if provider == "kind":
        return kind.groups()
    return build.NODE_GROUPS if provider == "node" else build.CLIENT_GROUPS


def attach(name: str) -> Cluster | None:
    """Return the running cluster of this name; None if there is none.

    :raises ClusterError: no provider works.
    """
    provider = choose()
    if provider == "node":
        return NodeCluster.attach(name)
    return KindCluster.attach(name) if provider == "kind" else None


def start(name: str, claim: Claim | None = None) -> Cluster:
    """Start a cluster, or use the existing one.

    :param claim: see NodeCluster.start. A kind cluster ignores it and stays until it is stopped.
    :raises ClusterError: no provider works, or the cluster did not start.
    """
    provider = choose()
    if provider == "existing":
        return ExistingCluster.use(os.environ[CONTEXT_VARIABLE])
    return KindCluster.start(name) if provider == "kind" else NodeCluster.start(name, claim=claim)


@contextmanager
def shared(name: str, keep: bool = False) -> Iterator[Cluster]:
    """Share one cluster with all other processes that use this name. The first starts it, the last stops it.

    :param keep: do not stop it, so that the next process can use it.
    """
    claim = Claim(claims_of(name))
    try:
        with file_lock(cache_dir() / "nodes" / f".{name}.shared"):
            cluster = attach(name) or start(name, None if keep else claim)
        try:
            yield cluster
        finally:
            if not keep and claim.is_last():
                cluster.stop()
    finally:
        claim.release()
