"""Choose a provider, and start, find and share clusters whichever it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from testing.cluster import build
from testing.cluster.base import Cluster, ClusterError
from testing.cluster.cache import Claim, cache_dir, file_lock
from testing.cluster.existing import CONTEXT_VARIABLE, ExistingCluster
from testing.cluster.kind import GROUPS as KIND_GROUPS
from testing.cluster.kind import KindCluster, docker_answers
from testing.cluster.node import NodeCluster

PROVIDER_VARIABLE = "RUNKEYS_E2E_PROVIDER"
_GROUPS = {"node": build.NODE_GROUPS, "kind": KIND_GROUPS, "existing": build.CLIENT_GROUPS}


def choose() -> str:
    """Return the provider to use: the one named in RUNKEYS_E2E_PROVIDER, or the first that works here.

    That is ``existing`` if RUNKEYS_E2E_CONTEXT names a context, ``kind`` if a Docker engine answers, ``node`` for
    root on Linux. Raises ClusterError when none does.
    """
    named = os.environ.get(PROVIDER_VARIABLE, "")
    if named and named not in _GROUPS:
        raise ClusterError(f"{PROVIDER_VARIABLE} is {named!r}; it can be {', '.join(sorted(_GROUPS))}.")
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
    """Return the groups of programs that the chosen provider needs. Raises ClusterError."""
    return _GROUPS[choose()]


def attach(name: str) -> Cluster | None:
    """Return the running cluster of this name; None when there is none. Raises ClusterError."""
    provider = choose()
    if provider == "node":
        return NodeCluster.attach(name)
    return KindCluster.attach(name) if provider == "kind" else None


def start(name: str, claim: Claim | None = None) -> Cluster:
    """Start a cluster, or use the existing one. Raises ClusterError.

    See NodeCluster.start for the claim; a kind cluster stays until it is stopped.
    """
    provider = choose()
    if provider == "existing":
        return ExistingCluster.use(os.environ[CONTEXT_VARIABLE])
    return KindCluster.start(name) if provider == "kind" else NodeCluster.start(name, claim=claim)


@contextmanager
def shared(name: str, keep: bool = False) -> Iterator[Cluster]:
    """Use one cluster together with all other processes that name it: the first starts it, the last stops it.

    With ``keep`` it stays up, for the next to use as it is.
    """
    claim = Claim(cache_dir() / "nodes" / f".{name}.claims")
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
