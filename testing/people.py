"""Users of a team, and the values they seal."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from runkeys.sealing import BindingEntry, Context, PersonalEntry, PublicKey, RunInput, seal
from runkeys_operator.values.keys import CURRENT, PUBLIC
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import KubeClient, Object
from testing.namespace import Team, run

EVERYBODY = "system:authenticated"


@dataclass(frozen=True)
class Person:
    """A user who may create and change runs and bindings in the team's namespace, and use the granted bindings."""

    name: str
    team: Team
    client: KubeClient

    def seal(self, field: str, value: str) -> str:
        """Seal a value for a field of the sealed input of this user's runs, and return the text."""
        return sealed(self.team, RunInput(self.team.namespace, self.name, field), value)

    def submit(self, name: str = "job", **changes: Any) -> Object:
        """Create a run as this user."""
        who = {"username": self.name, "groups": [EVERYBODY]}
        return self.client.create(run(self.team.namespace, name, requester=who, **changes))


def person(team: Team, name: str, *, use: tuple[str, ...] = ()) -> Person:
    """Add a user who may use the bindings named in ``use``."""
    rules: list[Object] = [
        {
            "apiGroups": ["runkeys.dev"],
            "resources": ["workflowruns", "secretbindings"],
            "verbs": ["create", "get", "list", "watch", "patch", "update", "delete"],
        }
    ]
    give(team, f"edit-{name}", name, rules)
    for binding in use:
        may_use(team, name, binding)
    client = team.client.as_user(name)
    wait_until(f"{name} to be let in", lambda: may(client, team.namespace, "create", "workflowruns"))
    return Person(name, team, client)


def may_use(team: Team, user: str, binding: str, role: str = "") -> None:
    """Let a user use a binding. ``role``: name of the Role, if the user's name cannot be part of one."""
    rule = {
        "apiGroups": ["runkeys.dev"],
        "resources": ["secretbindings"],
        "resourceNames": [binding],
        "verbs": ["use"],
    }
    give(team, role or f"use-{binding}-{user}", user, [rule])
    client = team.client.as_user(user)
    wait_until(
        f"{user} to be given {binding}",
        lambda: may(client, team.namespace, "use", "secretbindings", binding),
    )


def may_not_use(team: Team, user: str, binding: str, role: str = "") -> None:
    """Take that right away. ``role``: the name that it was given, see :func:`may_use`."""
    team.client.delete("rolebindings", role or f"use-{binding}-{user}", team.namespace)
    client = team.client.as_user(user)
    wait_until(
        f"{user} to have lost {binding}",
        lambda: not may(client, team.namespace, "use", "secretbindings", binding),
    )


def give(team: Team, name: str, user: str, rules: list[Object], kind: str = "User") -> None:
    """Give a user or group these rights in the team's namespace, and wait until the API server knows of them."""
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role"}
    team.client.create({**role, "metadata": {"name": name, "namespace": team.namespace}, "rules": rules})
    team.client.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": team.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [_subject(user, kind)],
        }
    )
    who = {"user": user} if kind == "User" else {"user": "somebody", "groups": [user]}

    def have(rule: Object) -> bool:
        """As far as one verb on one resource shows that."""
        resource, group = rule["resources"][0], rule["apiGroups"][0]
        named = rule.get("resourceNames", [""])[0]
        return team.may(rule["verbs"][0], f"{resource}.{group}", named, who=who)

    wait_until(f"{user} to have {name}", lambda: all(map(have, rules)))


def _subject(user: str, kind: str) -> Object:
    if not user.startswith("system:serviceaccount:"):
        return {"kind": kind, "apiGroup": "rbac.authorization.k8s.io", "name": user}
    namespace, name = user.split(":")[2:]
    return {"kind": "ServiceAccount", "namespace": namespace, "name": name}


def may(client: KubeClient, namespace: str, verb: str, resource: str, name: str = "") -> bool:
    """Whether the client has a right on one of Runkeys' kinds."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {
                "namespace": namespace,
                "verb": verb,
                "group": "runkeys.dev",
                "resource": resource,
                "name": name,
            }
        },
    }
    answer = client.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
    return bool(answer["status"]["allowed"])


def public_key(team: Team) -> PublicKey:
    """Wait until the operator has published its public key, and return it."""
    try:
        found = team.client.wait_for(
            "configmaps", PUBLIC, team.namespace, lambda item: CURRENT in item.get("data", {})
        )
    except AssertionError as error:
        raise AssertionError(f"{error}\noperator's log:\n{team.operator.text()[-6000:]}") from None
    return PublicKey.parse(found["data"][CURRENT])


def sealed(team: Team, context: Context, value: str) -> str:
    """Return a value sealed with the team's present key."""
    return seal(value.encode(), context, public_key(team))


def sealed_entry(
    team: Team, value: str, *, binding: str = "keys", entry: str = "token", owner: str = ""
) -> Object:
    """Return an entry of a shared binding, or of the personal one of ``owner``, sealed for that place."""
    place: Context = BindingEntry(team.namespace, binding, entry)
    if owner:
        place = PersonalEntry(team.namespace, owner, entry)
    return {"name": entry, "sealed": sealed(team, place, value)}


def check_value_is_nowhere_else(team: Team, node: Cluster, value: str, mark: int) -> None:
    """Assert that the value was in etcd only in run Secrets, and is in no log."""
    forms = [value.encode(), value.encode().hex().encode()]
    forms += [base64.b64encode(b"." * skip + value.encode())[4:-4] for skip in range(3)]
    keys = node.etcd.find(*forms, since=team.since)
    assert keys, "the search finds nothing, not even the Secret of the run"
    assert [key for key in keys if not key.startswith(f"/registry/secrets/{team.namespace}/rk-")] == []
    log = team.operator.log.read_bytes()
    assert b"secret created" in log
    assert [form for form in forms if form in log] == []
    assert [str(event) for form in forms for event in node.audit.find(form, mark)] == []
