"""The check of all requests of operators, which a test run ends with, finds what it is to find."""

from __future__ import annotations

from typing import Any

import pytest

from testing.cluster.audit import AuditEvent
from testing.cluster.base import Cluster
from testing.namespace import Team
from tests.e2e.operator_calls import is_an_operators, not_allowed
from tests.e2e.runs.conftest import new_team, team

__all__ = ["new_team", "team"]


def planted(verb: str, resource: str, name: str = "", subresource: str = "") -> AuditEvent:
    ref: dict[str, Any] = {"resource": resource, "name": name, "namespace": "a", "subresource": subresource}
    user = {"username": "system:serviceaccount:a:runkeys"}
    return AuditEvent({"verb": verb, "user": user, "userAgent": "runkeys-operator", "objectRef": ref})


@pytest.mark.parametrize(
    "event",
    [
        planted("list", "secrets"),
        planted("watch", "secrets"),
        planted("deletecollection", "secrets"),
        planted("get", "secrets", "rk-flow-a-1-abc"),
        planted("delete", "secrets", "somebody's"),
        planted("create", "secrets", "token-of-an-account"),
        planted("patch", "secrets", "rk-flow-a-1-abc"),
        planted("update", "workflowruns", "flow"),
        planted("patch", "jobs", "rk-flow-a-1-abc"),
        planted("create", "pods", "x", "exec"),
        planted("get", "configmaps", "somebody's"),
        planted("update", "leases", "somebody's"),
        planted("delete", "leases", "runkeys"),
        planted("create", "podcertificaterequests"),
        planted("get", "podcertificaterequests", "req-a"),
        planted("patch", "podcertificaterequests", "req-a"),
        planted("update", "podcertificaterequests", "req-a", "status"),
    ],
    ids=str,
)
def test_what_it_must_not_ask_for_is_found(event: AuditEvent) -> None:
    assert list(not_allowed([event])) == [event]


@pytest.mark.e2e
def test_a_run_holds_none_of_these_and_its_requests_are_seen(team: Team, node: Cluster) -> None:
    mark = node.audit.mark()
    team.make_run()
    team.wait_phase("job", "Succeeded")
    mine = [event for event in node.audit.events(mark, namespace=team.namespace) if is_an_operators(event)]
    assert {"create secrets", "delete secrets", "get secrets"} <= {f"{e.verb} {e.resource}" for e in mine}
    assert [str(event) for event in not_allowed(mine)] == []
