"""What the commands need rights for, and the command that grants what is missing. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from runkeys._text.words import kubectl, shell
from runkeys.names import GROUP, KEY_VALUES
from runkeys.planning.access import RECONCILED, subject_of
from runkeys.problems import Denied

CLUSTER_ROLE = "runkeys-user"
"""The chart's ClusterRole for people who create runs and have a personal binding."""

_FORBIDDEN = re.compile(
    r' is forbidden: User "(?P<user>.*)" cannot (?P<verb>[a-z]+) resource "(?P<resource>[^"]+)"'
    r' in API group "(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)"| at the cluster scope)',
    re.DOTALL,
)
_NAMED = re.compile(r'^[^ ]+ "(?P<name>[^"]+)" is forbidden: ')


@dataclass(frozen=True)
class Right:
    """A right to do something with objects of a kind.

    :ivar resource: plural, with a subresource if there is one: ``pods/log``.
    :ivar name: of the only object that it is for; empty: of all.
    """

    verb: str
    resource: str
    group: str = GROUP
    name: str = ""

    def __str__(self) -> str:
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {kind}{f' {self.name}' if self.name else ''}"


OF_THE_ROLE = (
    *(Right(verb, "workflowruns") for verb in ("get", "list", "watch", "create", "patch", "delete")),
    *(Right(verb, "secretbindings") for verb in ("get", "list", "create", "patch", "delete")),
    *(Right(verb, "secretreveals") for verb in ("create", "get")),
    Right("list", "pods", ""),
    Right("get", "pods/log", ""),
)
"""What `run`, `status`, `watch`, `logs` and `secret` need, all of it in the chart's ClusterRole."""

OF_THE_STORE = (
    Right("create", "configmaps", ""),
    Right("get", "configmaps", "", KEY_VALUES),
    Right("patch", "configmaps", "", KEY_VALUES),
)
"""What `kv` needs, none of it in the chart's ClusterRole."""


def bound_to_role(namespace: str, username: str, role: str = CLUSTER_ROLE) -> str:
    """The command that gives a user the chart's ClusterRole in a namespace."""
    words = ("create", "rolebinding", role, f"--clusterrole={role}")
    return f"{kubectl(namespace, *words)} {subject_of(username)}{RECONCILED}"


def granted(namespace: str, username: str, name: str, rights: Iterable[Right]) -> str:
    """The command that makes a Role of these rights and binds a user to it.

    :param name: name of the Role. :param namespace: empty: a ClusterRole, for what is in no namespace.
    """
    by_kind: dict[tuple[str, str, str], list[str]] = {}
    for right in rights:
        by_kind.setdefault((right.group, right.resource, right.name), []).append(right.verb)
    rules = [
        {
            "apiGroups": [group],
            "resources": [resource],
            **({"resourceNames": [only]} if only else {}),
            "verbs": verbs,
        }
        for (group, resource, only), verbs in by_kind.items()
    ]
    kind = "Role" if namespace else "ClusterRole"
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    made = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "rules": rules}
    bind = ("create", f"{kind.lower()}binding", name, f"--{kind.lower()}={name}")
    binding = kubectl(namespace, *bind) if namespace else shell("kubectl", *bind)
    text = json.dumps(made, separators=(",", ":"), ensure_ascii=False)
    reconcile = shell("kubectl", "auth", "reconcile", "-f", "-")
    return f"{shell('echo', text)} | {reconcile} && {binding} {subject_of(username)}{RECONCILED}"


def remedy(namespace: str, username: str, missing: Right) -> str:
    """The command that grants one right that is missing: with the chart's ClusterRole if that has it."""
    if missing in OF_THE_STORE:
        return granted(namespace, username, KEY_VALUES, OF_THE_STORE)
    if namespace and _is_of_the_role(missing):
        return bound_to_role(namespace, username)
    name = re.sub("[^a-z]+", "-", f"runkeys-{missing.verb}-{missing.resource}")
    return granted(namespace, username, name, (missing,))


class MissingRight(Denied):
    """A right is missing. In one line: which one, the command that grants it, and where to see the others.

    :ivar what: the first part alone.
    """

    def __init__(self, username: str, namespace: str, missing: Right) -> None:
        where, who = (
            (f"in namespace {namespace}", "namespace") if namespace else ("in the cluster", "cluster")
        )
        self.what = f"{username} may not {missing} {where}"
        command = remedy(namespace, username, missing)
        super().__init__(
            f"{self.what}. An administrator of the {who} allows it with: {command}"
            f" # what else is missing: {shell('runkeys', 'doctor')}"
        )


def refusal(message: str) -> Denied:
    """The error for an answer 403. If it is about a right, in one line and with the command that grants it.

    :param message: the API server's own words. It refuses for want of a right in these words only.
    """
    found = _FORBIDDEN.search(message)
    if found is None:
        return Denied(message)
    named = _NAMED.match(message)
    name = named["name"] if named is not None and found["verb"] != "create" else ""
    missing = Right(found["verb"], found["resource"], found["group"], name)
    return MissingRight(found["user"], found["namespace"] or "", missing)


def _is_of_the_role(right: Right) -> bool:
    if right.group == GROUP:
        return right.verb != "deletecollection"
    reads = right.verb in ("get", "list", "watch")
    return reads and right.group == "" and right.resource in ("pods", "pods/log", "events")
