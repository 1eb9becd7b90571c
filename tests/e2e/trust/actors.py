"""Those who make and change runs in a team's namespace: users, a group, service accounts, an impersonator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from testing.cluster.base import wait_until
from testing.cluster.client import KubeClient, Object
from testing.namespace import SOURCE, Team
from testing.people import may

_RBAC = "rbac.authorization.k8s.io"
EDITS = [
    {
        "apiGroups": ["runkeys.dev"],
        "resources": ["workflowruns", "secretbindings"],
        "verbs": ["create", "get", "list", "watch", "patch", "update", "delete"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "list", "patch", "delete"]},
]


@dataclass(frozen=True)
class Actor:
    """Somebody with the rights of a namespace's editor, but without ``use``.

    :ivar subject: as a RoleBinding names them.
    """

    kind: str
    client: KubeClient
    subject: Object
    team: Team

    def give(self, name: str, rules: list[Object]) -> None:
        """A Role and its RoleBinding, both called ``name``."""
        namespace = self.team.namespace
        role = {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "Role",
            "metadata": {"name": name, "namespace": namespace},
        }
        self.team.client.create({**role, "rules": rules})
        reference = {"apiGroup": _RBAC, "kind": "Role", "name": name}
        self.team.client.create(
            {**role, "kind": "RoleBinding", "roleRef": reference, "subjects": [self.subject]}
        )

    def may_use(self, *bindings: str) -> None:
        """Let the actor use bindings and get the source, until :meth:`may_not_use`."""
        use = {"apiGroups": ["runkeys.dev"], "resources": ["secretbindings"], "verbs": ["use"]}
        get = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SOURCE], "verbs": ["get"]}
        self.give(f"use-{self.kind}", [{**use, "resourceNames": list(bindings)}, get])
        self._wait(True, bindings[-1])

    def may_not_use(self, *bindings: str) -> None:
        """Take it away again."""
        self.team.client.delete("rolebindings", f"use-{self.kind}", self.team.namespace)
        self.team.client.delete("roles", f"use-{self.kind}", self.team.namespace)
        self._wait(False, bindings[-1])

    def _wait(self, expected: bool, binding: str) -> None:
        what = f"{self.kind} to {'' if expected else 'not '}use {binding}"
        arguments = (self.client, self.team.namespace, "use", "secretbindings", binding)
        wait_until(what, lambda: may(*arguments) is expected)


def actors(team: Team) -> list[Actor]:
    """One of each kind."""
    admin, here = team.client, team.namespace

    def account(name: str) -> Object:
        admin.create(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": here}}
        )
        return {"kind": "ServiceAccount", "name": name, "namespace": here}

    def user(name: str, kind: str = "User") -> Object:
        return {"kind": kind, "apiGroup": _RBAC, "name": name}

    runner, gitops, proxy = account("runner"), account("gitops-controller"), account("portal")
    found = [
        Actor("user", admin.as_user("alice"), user("alice"), team),
        Actor("group", admin.as_user("carol", "researchers"), user("researchers", "Group"), team),
        Actor("service-account", admin.with_token(admin.token(here, "runner")), runner, team),
        Actor("gitops-controller", admin.with_token(admin.token(here, "gitops-controller")), gitops, team),
        Actor(
            "impersonated", admin.with_token(admin.token(here, "portal")).as_user("dave"), user("dave"), team
        ),
    ]
    impersonate(team, proxy, "dave")
    for actor in found:
        actor.give(f"edit-{actor.kind}", EDITS)
        wait_until(
            f"{actor.kind} to be let in",
            lambda client=actor.client: may(client, here, "create", "workflowruns"),  # type: ignore[misc]
        )
    return found


def impersonate(team: Team, subject: Object, username: str) -> None:
    """Let an account act as a user: the right is one of the whole cluster, and goes with the namespace."""
    rule = {"apiGroups": [""], "resources": ["users"], "resourceNames": [username], "verbs": ["impersonate"]}
    name = f"impersonate.{team.namespace}"
    metadata = {"name": name, "labels": {"runkeys.test/namespace": team.namespace}}
    role: dict[str, Any] = {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": metadata}
    team.client.create({**role, "rules": [rule]})
    reference = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name}
    team.client.create({**role, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]})
    who = {"user": f"system:serviceaccount:{subject['namespace']}:{subject['name']}"}
    wait_until(f"{who['user']} to be {username}", lambda: team.may("impersonate", "users", username, who=who))
