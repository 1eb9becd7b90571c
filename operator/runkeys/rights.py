"""Rights on bindings, and the commands that grant them. Pure."""

from __future__ import annotations

import json

from runkeys.api.common import GROUP

USE, REVEAL = "use", "reveal"
BINDINGS = "secretbindings"


def grant(namespace: str, binding: str, username: str, verb: str) -> str:
    """The command that allows a user ``verb`` on a binding; `kubectl create role` takes no verbs of ours."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": f"{verb}-{binding}"},
        "rules": [
            {"apiGroups": [GROUP], "resources": [BINDINGS], "resourceNames": [binding], "verbs": [verb]}
        ],
    }
    return (
        f"echo '{json.dumps(role, separators=(',', ':'))}' | kubectl -n {namespace} apply -f - &&"
        f" kubectl -n {namespace} create rolebinding {verb}-{binding} --role={verb}-{binding} {subject(username)}"
    )


def subject(username: str) -> str:
    """A user as `kubectl create rolebinding` takes it."""
    account = username.removeprefix("system:serviceaccount:")
    return f"--serviceaccount={account}" if account != username else f"--user={username}"
