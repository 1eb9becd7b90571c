"""Workflow engines of others, in their own namespaces and with their own manifests, on the node of the e2e tests.

They are apart from tests/e2e, so that `make test` builds neither: `make test-engines`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from runkeys.sealing import BindingEntry
from testing import examples
from testing.cluster.base import Cluster, ClusterError
from testing.cluster.client import Object
from testing.namespace import Team
from testing.people import sealed
from tests.e2e.conftest import client, cluster, crds, namespace, new_namespace, node
from tests.e2e.pods.conftest import ARGUMENTS, SETS, unsealer, wait_asking
from tests.e2e.runs.conftest import TeamMaker, new_team
from tests.engines import argo, jobset, tekton

__all__ = ["client", "cluster", "crds", "namespace", "new_namespace", "new_team", "node", "unsealer"]

EngineTeam = Callable[[str], Team]
BINDING, ENTRY = "ibm", "ibmq-token"


@pytest.fixture(scope="session")
def argo_workflows(cluster: Cluster) -> Cluster:
    """The cluster, in which Argo Workflows runs."""
    argo.install(cluster)
    return cluster


@pytest.fixture(scope="session")
def tekton_pipelines(cluster: Cluster) -> Cluster:
    """The cluster, in which Tekton runs."""
    tekton.install(cluster)
    return cluster


@pytest.fixture(scope="session")
def job_sets(cluster: Cluster) -> Cluster:
    """The cluster, in which JobSet runs."""
    jobset.install(cluster)
    return cluster


@pytest.fixture
def engine_team(new_team: TeamMaker, unsealer: None) -> EngineTeam:  # noqa: ARG001
    """Make a team with account and binding of an engine's example, the value sealed."""

    def make(example: str) -> Team:
        team = new_team(*ARGUMENTS, sets=SETS, sources=())
        swaps = {"rk1.0000000000000000.AAAA": value_of(team), **argo.SWAPS, **tekton.SWAPS}
        for name in ("account.yaml", "binding.yaml"):
            for manifest in examples.of_engine(f"{example}/{name}", team.namespace, swaps):
                team.client.create(manifest)
        wait_asking(team)
        return team

    return make


def value_of(team: Team) -> str:
    """The team's value, sealed for the binding of the examples."""
    return sealed(team, BindingEntry(team.namespace, BINDING, ENTRY), team.value)


def holders(value: str) -> dict[int, str]:
    """The processes of this machine that have a value in their environment: command lines by process ID."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            # A process may end while it is looked at.
            with suppress(OSError):
                if value.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = command_line(folder)
    return found


def command_line(folder: Path) -> str:
    return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def carriers(pod: Object, variable: str) -> set[str]:
    """Names of a pod's containers whose spec has this variable, or mounts what carries the values."""
    spec = pod["spec"]
    return {
        item["name"]
        for item in (*spec.get("initContainers", []), *spec["containers"])
        if any(one["name"] == variable for one in item.get("env", []))
        or any(one["name"].startswith("runkeys-") for one in item.get("volumeMounts", []))
    }


def show(cluster: Cluster, namespace: str) -> str:
    """What an engine's controller has printed lately, for the error of a test."""
    try:
        return cluster.kubectl("-n", namespace, "logs", "deployment", "--all-pods=true", "--tail=60")
    except ClusterError as error:
        return str(error)
