"""Sealed entries of bindings: they open where they were sealed for, and nowhere else."""

from __future__ import annotations

import pytest

from runkeys.sealing import BindingEntry, NamespaceEntry, PrivateKey, seal
from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.namespace import Team, condition, phase
from testing.people import check_value_is_nowhere_else, public_key, sealed, sealed_entry
from testing.workflows import make, task
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e


@pytest.fixture
def team(new_team: TeamMaker) -> Team:
    """A team without any source: what it has is sealed."""
    return new_team()


def test_a_sealed_value_arrives_as_variable_and_as_file_and_is_nowhere_else(
    team: Team, node: Cluster
) -> None:
    mark = node.audit.mark()
    shared = {
        "name": "shared",
        "sealed": sealed(team, NamespaceEntry(team.namespace, "shared"), team.value),
        "scope": "Namespace",
    }
    team.make_binding(secrets=[sealed_entry(team, team.value), shared])
    code = f"""
assert sha(os.environ["SECRET_API_TOKEN"]) == {team.digest!r}
assert sha((runtime / "secrets" / "shared.txt").read_bytes()) == {team.digest!r}
"""
    asked = [
        {"name": "api_token", "secret": "token"},
        {"name": "shared", "secret": "shared", "file": "shared.txt"},
    ]
    make(team, task("a", code, secrets=asked))
    found = team.wait_phase("flow", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.secret_story() == ["made", "gone"]
    binding = team.client.wait_for(
        "secretbindings",
        "keys",
        team.namespace,
        lambda item: condition(item, "Ready").get("status") == "True",
    )
    key_id = shared["sealed"].split(".")[1]
    assert binding["status"]["secrets"] == "2/2"
    assert [entry["keyID"] for entry in binding["status"]["entries"]] == [key_id, key_id]
    check_value_is_nowhere_else(team, node, team.value, mark)


def wrong(team: Team) -> dict[str, tuple[Object, str, str]]:
    """By the name of a binding: its entry, the reason that is given, and a part of the message."""
    here = team.namespace
    other = PrivateKey.generate().public
    good = sealed_entry(team, team.value, binding="renamed-was")["sealed"]
    return {
        "copied": ({"sealed": good}, "SealContextMismatch", "entry token of SecretBinding copied"),
        "elsewhere": (
            {"sealed": sealed(team, BindingEntry("elsewhere", "elsewhere", "token"), team.value)},
            "SealContextMismatch",
            "seal the value again for this place",
        ),
        "other-entry": (
            {"sealed": sealed(team, BindingEntry(here, "other-entry", "name"), team.value)},
            "SealContextMismatch",
            "was sealed for another place",
        ),
        "widened": (
            {
                "sealed": sealed(team, BindingEntry(here, "widened", "token"), team.value),
                "scope": "Namespace",
            },
            "SealContextMismatch",
            "of any shared SecretBinding in namespace",
        ),
        "narrowed": (
            {"sealed": sealed(team, NamespaceEntry(here, "token"), team.value)},
            "SealContextMismatch",
            "entry token of SecretBinding narrowed",
        ),
        "foreign-key": (
            {"sealed": seal(team.value.encode(), BindingEntry(here, "foreign-key", "token"), other)},
            "UnknownKey",
            f"is sealed with key {other.key_id}, which is not here",
        ),
        "cut": ({"sealed": good[:-40]}, "SealedInvalid", "incomplete"),
        "text": ({"sealed": "rk1.hello"}, "SealedInvalid", "this is not a sealed value"),
    }


def test_what_does_not_open_is_named_and_no_secret_is_made(team: Team, node: Cluster) -> None:
    mark, cases = node.audit.mark(), wrong(team)
    for name, (entry, *_) in cases.items():
        team.make_binding(name, secrets=[{"name": "token", **entry}])
        team.make_run(name, bindings=[{"name": name}])
    for name, (entry, reason, says) in cases.items():
        found = team.wait_condition(name, "Stalled", reason=reason)
        message = condition(found, "Stalled")["message"]
        assert says in message
        assert f"spec.tasks[0].secrets[0].secret: entry 'token' of SecretBinding {name}" in message
        assert entry["sealed"] not in str(found["status"])
        assert condition(found, "SecretsReady")["reason"] == reason
        binding = team.client.wait_for(
            "secretbindings", name, team.namespace, lambda item: bool(condition(item, "Ready"))
        )
        assert binding["status"]["entries"][0]["reason"] == reason
    assert (team.jobs(), team.secret_story()) == ([], [])

    # mended, a run goes on by itself
    team.client.patch(
        "secretbindings",
        "cut",
        team.namespace,
        {"spec": {"secrets": [sealed_entry(team, team.value, binding="cut")]}},
    )
    found = team.wait_phase("cut", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    check_value_is_nowhere_else(team, node, team.value, mark)


def test_five_hundred_entries_in_one_binding(team: Team) -> None:
    """As many as a team may keep in one file; it needs server-side apply, like all that is large."""
    key = public_key(team)
    entries = [
        {"name": f"e{number}", "sealed": seal(b"x", BindingEntry(team.namespace, "keys", f"e{number}"), key)}
        for number in range(499)
    ]
    team.make_binding(secrets=[*entries, sealed_entry(team, team.value)])
    team.make_run()
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    binding = team.client.wait_for(
        "secretbindings",
        "keys",
        team.namespace,
        lambda item: condition(item, "Ready").get("status") == "True",
    )
    assert binding["status"]["secrets"] == "500/500"
