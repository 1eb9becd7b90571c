"""Fixtures: a user of the team, a service account with a token, in front of a shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from testing.namespace import Team
from testing.operators import CHART
from testing.people import give, public_key
from tests.e2e.runs.conftest import TeamMaker, new_team
from tests.unit.cli.terminal import Terminal

__all__ = ["new_team"]

RULES = [
    {
        "apiGroups": ["runkeys.dev"],
        "resources": ["workflowruns", "secretbindings", "secretreveals"],
        "verbs": ["create", "get", "list", "watch", "patch", "update", "delete"],
    },
    {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]},
]


@pytest.fixture
def team(new_team: TeamMaker) -> Team:
    """A team with an operator that has made its key, a source and a binding."""
    made = new_team()
    made.make_source()
    made.make_binding()
    public_key(made)
    return made


UserMaker = Callable[..., Terminal]


@pytest.fixture
def user(team: Team, tmp_path: Path) -> UserMaker:
    """Make users: service accounts that may work with runs and bindings, and use the bindings that are named."""

    def make(name: str = "alice", use: tuple[str, ...] = ("keys",), *, may: bool = True) -> Terminal:
        client, namespace = team.client, team.namespace
        client.create(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        )
        rules = [
            *(RULES if may else []),
            {
                "apiGroups": ["runkeys.dev"],
                "resources": ["secretbindings"],
                "resourceNames": list(use) or ["none"],
                "verbs": ["use", "reveal"],
            },
        ]
        give(team, f"user-{name}", f"system:serviceaccount:{namespace}:{name}", rules)
        folder = tmp_path / name
        folder.mkdir()
        token = client.token(namespace, name)
        path = team.cluster.kubeconfig_for(token, folder / "kubeconfig", namespace=namespace)
        more = {"KUBECONFIG": str(path), "RUNKEYS_OPERATOR_NAMESPACE": namespace}
        return Terminal(folder, more)

    return make


def charts_role(team: Team, which: str) -> str:
    """Make the chart's ClusterRole ``view``, ``edit`` or ``user`` under a name of the team's own, and return that."""
    printed = team.cluster.helm("template", "runkeys", str(CHART), "--show-only=templates/roles.yaml")
    [role] = [item for item in yaml.safe_load_all(printed) if item["metadata"]["name"] == f"runkeys-{which}"]
    # Without the labels by which it would become part of everybody's roles in the shared cluster.
    name = f"{team.namespace}-{which}"
    team.client.apply(
        {**role, "metadata": {"name": name, "labels": {"runkeys.test/namespace": team.namespace}}}
    )
    return name


def bind(team: Team, account: str, role: str) -> None:
    """Give a service account of the team a ClusterRole in the team's namespace."""
    team.cluster.kubectl(
        *("-n", team.namespace, "create", "rolebinding", f"{account}-{role}", f"--clusterrole={role}"),
        f"--serviceaccount={team.namespace}:{account}",
    )


@pytest.fixture
def alice(user: UserMaker) -> Terminal:
    """A user who may use the team's binding."""
    return user()


STORE_RULES = [
    {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["runkeys-kv"],
        "verbs": ["get", "patch"],
    },
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
]


def allow_store(team: Team, name: str) -> None:
    """Give a service account those rights in its namespace."""
    give(team, f"kv-{name}", f"system:serviceaccount:{team.namespace}:{name}", STORE_RULES)


@pytest.fixture
def writer(team: Team, user: UserMaker) -> Terminal:
    """A user who may use the key-value store."""
    made = user("writer")
    allow_store(team, "writer")
    return made
