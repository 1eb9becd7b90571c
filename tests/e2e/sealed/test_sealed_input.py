"""What a user brings along: it opens for that user's runs only, and is taken out when the run ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.namespace import FINISHES_WHEN_TOLD, Team, condition, phase, python, run
from testing.people import Person, check_value_is_nowhere_else, person
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

OWN: dict[str, Any] = {"bindings": [], "task": {"secrets": [{"name": "api_token", "input": "token"}]}}
"""A run that uses the requester's own value and nothing else."""
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@pytest.fixture
def team(new_team: TeamMaker) -> Team:
    """A team without a source or binding."""
    return new_team()


@pytest.fixture
def alice(team: Team) -> Person:
    return person(team, "alice")


def own(who: Person, **more: str) -> dict[str, str]:
    return {"token": who.seal("token", who.team.value), **more}


def check_input_is_gone(team: Team, name: str, ciphertext: str) -> Object:
    found = team.run(name)
    assert "sealedInput" not in found["spec"]
    assert ciphertext not in json.dumps(found)
    held = team.cluster.etcd.find(ciphertext.encode(), since=team.since)
    assert held, "the search does not find it in what the run was before"
    assert [key for key in held if current(team, key, ciphertext)] == []
    return found


def current(team: Team, key: str, text: str) -> bool:
    """Whether etcd holds the text under the key now, and not only in what it was before."""
    return any(text.encode() in value for value in team.cluster.etcd.values(key).values())


def test_the_value_arrives_and_is_taken_out_of_the_run_at_its_end(
    team: Team, alice: Person, node: Cluster
) -> None:
    mark = node.audit.mark()
    mine = own(alice, unused=alice.seal("unused", team.value))
    alice.submit(sealedInput=mine, **OWN)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.digest in team.output(found)
    assert condition(found, "InputUsed")["status"] == "False"
    assert condition(found, "InputUsed")["reason"] == "InputUnused"
    assert "no task asks for unused of spec.sealedInput" in condition(found, "InputUsed")["message"]
    assert found["status"]["tasks"][0]["attempts"][0]["outcome"] == "Succeeded"
    for text in mine.values():
        check_input_is_gone(team, "job", text)
    check_value_is_nowhere_else(team, node, team.value, mark)


def refused_mapping(alice: Person) -> Object:
    task = {"secrets": [{"name": "api_token", "input": "tocken"}]}
    return alice.submit(sealedInput=own(alice), bindings=[], task=task)


def broken_value(alice: Person) -> Object:
    broken = own(alice)["token"][:-30]
    return alice.submit(sealedInput={**own(alice), "broken": broken}, bindings=[], task=asks("broken"))


def wrong_field(alice: Person) -> Object:
    swapped = {"token": alice.seal("other", alice.team.value)}
    return alice.submit(sealedInput=swapped, **OWN)


def asks(field: str) -> dict[str, Any]:
    return {"secrets": [{"name": "api_token", "input": field}]}


def fails(alice: Person) -> Object:
    return alice.submit(sealedInput=own(alice), command=python("raise SystemExit(3)"), **OWN)


def cancelled(alice: Person) -> Object:
    made = alice.submit(sealedInput=own(alice), command=python(FINISHES_WHEN_TOLD), **OWN)
    alice.team.wait_running(made)
    alice.client.patch("workflowruns", "job", alice.team.namespace, {"spec": {"cancel": True}})
    return made


def cancelled_at_once(alice: Person) -> Object:
    return alice.submit(sealedInput=own(alice), cancel=True, **OWN)


@pytest.mark.parametrize(
    ("begin", "ends", "reason"),
    [
        (refused_mapping, "Failed", "InputNotFound"),
        (broken_value, "Failed", "SealedInvalid"),
        (wrong_field, "Failed", "SealContextMismatch"),
        (fails, "Failed", "JobFailed"),
        (cancelled, "Cancelled", "Cancelled"),
        (cancelled_at_once, "Cancelled", "Cancelled"),
    ],
    ids=lambda item: getattr(item, "__name__", None),
)
def test_it_is_taken_out_in_whatever_way_the_run_ends(
    team: Team, alice: Person, begin: Callable[[Person], Object], ends: str, reason: str
) -> None:
    made = begin(alice)
    found = team.wait_phase("job", "Succeeded", "Failed", "Cancelled")
    assert (phase(found), found["status"]["tasks"][0]["reason"]) == (ends, reason), found["status"]
    for text in made["spec"]["sealedInput"].values():
        check_input_is_gone(team, "job", text)


def test_kubectl_apply_leaves_no_copy(team: Team, alice: Person) -> None:
    who = {"username": "alice", "groups": ["system:authenticated"]}
    text = own(alice)["token"]
    body = run(team.namespace, sealedInput={"token": text}, requester=who, **OWN)
    team.cluster.kubectl("--as=alice", "apply", "-f", "-", input=json.dumps(body))
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    found = check_input_is_gone(team, "job", text)
    applied = json.loads(found["metadata"]["annotations"][APPLIED])
    assert applied["spec"]["tasks"][0]["name"] == "work"


def test_nobody_else_can_use_a_copy(team: Team, alice: Person) -> None:
    bob = person(team, "bob")
    bob.submit(sealedInput=own(alice), **OWN)
    found = team.wait_phase("job", "Failed", "Succeeded")
    assert phase(found) == "Failed"
    task = found["status"]["tasks"][0]
    assert task["reason"] == "SealContextMismatch"
    assert "does not open as input token of runs of bob in namespace" in task["message"]
    assert (team.jobs(), team.secret_story()) == ([], [])


def test_the_operator_was_away_when_the_run_ended(team: Team, alice: Person) -> None:
    made = alice.submit(sealedInput=own(alice), command=python(FINISHES_WHEN_TOLD), **OWN)
    team.wait_running(made)
    team.operator.wait_serving()
    team.operator.stop_cleanly()
    team.tell_to_finish(made)
    team.wait_pod(made, lambda pod: pod["status"]["phase"] == "Succeeded")
    assert "sealedInput" in team.run()["spec"]
    team.operator.start()
    team.wait_phase("job", "Succeeded")
    check_input_is_gone(team, "job", made["spec"]["sealedInput"]["token"])


def test_control_without_the_right_to_it_stays_and_the_run_does_not_end(team: Team, alice: Person) -> None:
    with team.without_right("patch", "workflowruns.runkeys.dev"):
        made = alice.submit(sealedInput=own(alice), **OWN)
        text = made["spec"]["sealedInput"]["token"]
        team.wait_run(
            "job",
            lambda found: condition(found, "Reconciling").get("reason") == "Purging",
            says="its tasks to be over",
        )
        with pytest.raises(AssertionError):
            check_input_is_gone(team, "job", text)
        assert phase(team.run()) in ("Pending", "Running")
    team.wait_phase("job", "Succeeded")
    check_input_is_gone(team, "job", text)
