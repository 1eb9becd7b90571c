"""Policies of others, that change what Runkeys makes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.cluster.base import wait_until
from tests.e2e.cluster.client import Object
from tests.e2e.runs.team import Team
from tests.e2e.trust.scene import pod_spec


@contextmanager
def mutating(team: Team, resource: str, group: str, expression: str, probe: Object) -> Iterator[None]:
    """While a policy of somebody else changes what is made in the namespace; ``probe`` shows that it does."""
    api, kind = "admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy"
    metadata = {"name": f"agent-{secrets.token_hex(4)}"}
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [rule]},
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
    }
    here = {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}}
    binding = {"policyName": metadata["name"], "matchResources": {"namespaceSelector": here}}
    team.client.create({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec})
    team.client.create({"apiVersion": api, "kind": f"{kind}Binding", "metadata": metadata, "spec": binding})

    def in_force() -> bool:
        return "'agent'" in str(team.client.create(probe, dryRun="All"))

    try:
        wait_until("the policy to be in force", in_force)
        yield
    finally:
        team.client.delete("mutatingadmissionpolicybindings", metadata["name"])
        team.client.delete("mutatingadmissionpolicies", metadata["name"])
    wait_until("the policy to be gone", lambda: not in_force())


def probe(team: Team, kind: str) -> Object:
    metadata = {"name": "probe", "namespace": team.namespace, "labels": {"probe": "yes"}}
    spec = pod_spec() if kind == "Pod" else {"template": {"spec": pod_spec()}}
    return {
        "apiVersion": "v1" if kind == "Pod" else "batch/v1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }
