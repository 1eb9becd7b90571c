"""Sources that cannot be used: the run says which and what to do, goes on when it is done, and never tells a value."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import pytest

from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.namespace import HELD_BACK, Team, canary, condition, phase
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

RETRIED = 75
"""Seconds: the operator looks at a source again after 30, and the kubelet at a missing Secret after 10 to 20."""
LARGEST = 120 * 1024


@dataclass(frozen=True)
class Trouble:
    """A source that cannot be used, and what the run says of it."""

    reason: str
    says: str
    data: dict[str, bytes] | None
    """The source's data; None: it does not exist."""


def secret(team: Team, name: str, data: dict[str, bytes]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": team.namespace},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def troubles(value: bytes) -> dict[str, Trouble]:
    return {
        "absent": Trouble("SourceNotFound", "there is no Secret absent in namespace", None),
        "keyless": Trouble("SourceKeyMissing", "has no key 'token'", {"password": value}),
        "large": Trouble(
            "ValueTooLarge",
            f"has {LARGEST + 1} bytes; a variable can carry at most {LARGEST}",
            {"token": value.ljust(LARGEST + 1, b".")},
        ),
        "latin1": Trouble("ValueNotText", "is not text", {"token": value + "é".encode("latin-1")}),
        "nul": Trouble("ValueNotText", "is not text", {"token": value + b"\0"}),
    }


def check_nothing_tells(team: Team, node: Cluster, value: str, mark: int) -> None:
    """The value is in no object but Secrets, nor in the operator's log, nor in the audit log."""
    forms = [value.encode()]
    # base64 shows the same text in three ways, by where it begins; the outermost characters depend on neighbours
    forms += [base64.b64encode(b"." * skip + value.encode())[4:-4] for skip in range(3)]
    keys = node.etcd.find(*forms, since=team.since)
    assert keys, "the search finds nothing, not even the source"
    assert [key for key in keys if not key.startswith(f"/registry/secrets/{team.namespace}/")] == []
    log = team.operator.log.read_bytes()
    assert b"Stalled" in log or b"status" in log
    assert [form for form in forms if form in log] == []
    assert [str(event) for form in forms for event in node.audit.find(form, mark)] == []


def test_every_trouble_with_a_source_is_named_and_over_when_it_is_mended(
    new_team: TeamMaker, node: Cluster
) -> None:
    mark, bad = node.audit.mark(), canary()
    cases = troubles(bad.encode())
    team = new_team(sources=tuple(cases))
    for name, trouble in cases.items():
        if trouble.data is not None:
            team.client.create(secret(team, name, trouble.data))
        team.make_binding(name, secrets=[{"name": "token", "secretKeyRef": {"name": name, "key": "token"}}])
        team.make_run(name, bindings=[{"name": name}])

    for name, trouble in cases.items():
        found = team.wait_condition(name, "SecretsReady", "False", trouble.reason)
        message = condition(found, "SecretsReady")["message"]
        assert trouble.says in message
        assert "spec.tasks[0].secrets[0].secret" in message
        assert condition(found, "Stalled")["reason"] == trouble.reason
        assert condition(found, "Authorized")["status"] == "True"
    assert (team.jobs(), team.secret_story()) == ([], [])

    for name in cases:
        team.client.apply(secret(team, name, {"token": team.value.encode()}))
    for name in cases:
        found = team.wait_phase(name, "Succeeded", "Failed", timeout=RETRIED)
        assert phase(found) == "Succeeded", found["status"]
        assert condition(found, "SecretsReady")["status"] == "True"
    for value in (bad, team.value):
        check_nothing_tells(team, node, value, mark)


def test_control_a_value_that_somebody_wrote_down_is_found(team: Team, node: Cluster) -> None:
    mark = node.audit.mark()
    team.make_run()
    team.wait_phase("job", "Succeeded")
    check_nothing_tells(team, node, team.value, mark)
    note = {"metadata": {"annotations": {"note": base64.b64encode(f"? {team.value}".encode()).decode()}}}
    team.client.patch("workflowruns", "job", team.namespace, note)
    with pytest.raises(AssertionError):
        check_nothing_tells(team, node, team.value, mark)


def test_the_largest_value_that_fits_arrives(team: Team) -> None:
    team.client.apply(secret(team, "source", {"token": team.value.encode().ljust(LARGEST, b".")}))
    team.make_run()
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]


def test_the_printed_commands_grant_the_right_and_nothing_else(new_team: TeamMaker) -> None:
    team = new_team(sources=())
    team.make_source()
    team.make_source("unrelated")
    team.make_binding()
    team.make_run()
    found = team.wait_condition("job", "SecretsReady", "False", "SourceForbidden")
    assert (team.jobs(), team.secret_story()) == ([], [])
    assert not team.may("get", "secrets", "source")

    _, commands = condition(found, "SecretsReady")["message"].split("opt in with: ")
    assert commands.startswith(f"kubectl -n {team.namespace} create role ")
    team.cluster.run("sh", "-ec", commands)
    team.wait_may(True, "get", "secrets", "source")
    assert not team.may("get", "secrets", "unrelated")
    assert not team.may("list", "secrets")
    found = team.wait_phase("job", "Succeeded", "Failed", timeout=RETRIED)
    assert phase(found) == "Succeeded", found["status"]


def test_a_source_that_is_away_while_the_pod_gets_its_node_and_comes_back(team: Team) -> None:
    found = team.make_run(pod=HELD_BACK)
    team.pod(found)
    team.client.delete("secrets", "source", team.namespace)
    team.let_go(found)
    team.wait_condition("job", "Stalled", "True", "SourceNotFound")
    assert team.secret_story() == []
    team.make_source()
    found = team.wait_phase("job", "Succeeded", "Failed", timeout=RETRIED)
    assert phase(found) == "Succeeded", found["status"]
    assert condition(found, "Stalled")["status"] == "False"
    assert team.secret_story() == ["made", "gone"]
