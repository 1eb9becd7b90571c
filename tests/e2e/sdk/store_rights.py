"""The rights on the key-value store that docs and examples give."""

from __future__ import annotations

from tests.e2e.runs.team import Team

RULES = [
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
    api = "rbac.authorization.k8s.io"
    metadata = {"name": f"kv-{name}", "namespace": team.namespace}
    team.client.create({"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": RULES})
    team.client.create(
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": metadata["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": team.namespace}],
        }
    )
