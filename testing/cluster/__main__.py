"""Start, look at and stop a cluster by hand: ``python -m testing.cluster up|down|status|shell|build``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable

from testing.cluster import build, docker, engines, images, kind, kind_image, providers
from testing.cluster.base import Cluster, ClusterError
from testing.cluster.client import ApiError
from testing.cluster.golang import GoMissing
from testing.cluster.node import NodeCluster

DEFAULT_NAME = "demo"


def main() -> int:
    """Carry out one verb.

    :return: exit code: 0 done, 1 failed, 2 wrong usage, 3 no such cluster, 130 interrupted.
    """
    parser = argparse.ArgumentParser(prog="python -m testing.cluster", description=__doc__)
    parser.add_argument("verb", choices=sorted(VERBS))
    parser.add_argument("--name", default=DEFAULT_NAME, help=f"which cluster (default: {DEFAULT_NAME})")
    arguments = parser.parse_args()
    try:
        return VERBS[arguments.verb](arguments.name)
    except (ClusterError, build.BuildError, GoMissing) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What was built so far is kept.", file=sys.stderr)
        return 130


def up(name: str) -> int:
    """Start the cluster unless it runs."""
    cluster = providers.attach(name)
    if cluster is None:
        build_all(name)
        began = time.monotonic()
        cluster = providers.start(name)
        print(f"Cluster {name!r} is ready after {time.monotonic() - began:.1f} s: {_version(cluster)}.")
    else:
        print(f"Cluster {name!r} runs: {_version(cluster)}.")
    print(f"  look around   make cluster-shell{_option(name)}")
    print(f"  stop it       make cluster-down{_option(name)}")
    return 0


def down(name: str) -> int:
    """Stop the cluster and remove everything that it left."""
    cluster = providers.attach(name)
    if cluster is not None:
        cluster.stop()
        print(f"Cluster {name!r} is gone.")
        return 0
    if NodeCluster.clean_up(name):
        print(f"Cluster {name!r} had ended already; what it left is gone too.")
    else:
        print(f"There is no cluster {name!r}.")
    return 0


def status(name: str) -> int:
    """Print the state of the cluster, and where its kubeconfig and logs are."""
    cluster = _running(name)
    if cluster is None:
        return 3
    print(f"Cluster {name!r} ({cluster.provider}): {_version(cluster)} at {cluster.server}")
    print(f"  kubeconfig    {cluster.kubeconfig}")
    if isinstance(cluster, NodeCluster):
        running = cluster.component_pids()
        stopped = [component for component in cluster.components if component not in running]
        print(f"  logs          {cluster.paths.logs}")
        print(f"  audit log     {cluster.paths.audit}")
        print(f"  components    {'all run' if not stopped else 'stopped: ' + ', '.join(stopped)}")
    pods = cluster.client.list("pods")
    print(f"  pods          {len(pods)}, running {sum(p['status']['phase'] == 'Running' for p in pods)}")
    return 0


def shell(name: str) -> int:
    """Open a shell that talks to the cluster."""
    cluster = _running(name)
    if cluster is None:
        return 3
    where = cluster.environment()
    program = os.environ.get("SHELL") or shutil.which("bash") or "/bin/sh"
    print(f"kubectl and helm talk to {name!r} here. Try: kubectl get pods -A. Leave with exit.", flush=True)
    os.execvpe(program, [program], where)  # noqa: S606  it is the user's own shell
    return 0


def build_all(_: str) -> int:
    """Build the programs and images that the provider of this machine needs."""
    build.ensure(providers.groups(), out=sys.stderr)
    provider = providers.choose()
    if provider == "node":
        images.pause_image()
    if provider != "existing":
        images.task_image()
    if provider == "kind" and kind.wanted_image() == kind.FROM_SOURCE:
        print("kind's node image, from source …", file=sys.stderr, flush=True)
        with docker.engine() as engine:
            kind_image.node_image(engine)
    return 0


def build_oldest(_: str) -> int:
    """Build the API server of the oldest Kubernetes version that Runkeys supports."""
    build.ensure(("kube-1.34",), out=sys.stderr)
    return 0


def build_engines(_: str) -> int:
    """Build the workflow engines that ``make test-engines`` runs."""
    engines.ensure()
    return 0


def _running(name: str) -> Cluster | None:
    cluster = providers.attach(name)
    if cluster is None:
        print(f"There is no cluster {name!r}. Start it: make cluster-up{_option(name)}", file=sys.stderr)
        others = [node.name for node in NodeCluster.running()]
        if others:
            print(f"Running here: {', '.join(others)}.", file=sys.stderr)
    return cluster


def _version(cluster: Cluster) -> str:
    try:
        version = cluster.client.request("GET", "/version")["gitVersion"]
    except (ApiError, OSError) as error:
        raise ClusterError(f"The API server of {cluster.name!r} does not answer: {error}") from error
    return f"Kubernetes {version}"


def _option(name: str) -> str:
    return "" if name == DEFAULT_NAME else f" ARGS='--name {name}'"


VERBS: dict[str, Callable[[str], int]] = {
    "up": up,
    "down": down,
    "status": status,
    "shell": shell,
    "build": build_all,
    "build-oldest": build_oldest,
    "build-engines": build_engines,
}

if __name__ == "__main__":
    sys.exit(main())
