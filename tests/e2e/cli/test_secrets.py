"""Secrets of a user's own from the command line, and of a team's binding."""

from __future__ import annotations

import base64
import json
import shlex

import pytest

from runkeys.client.binding_secrets import personal_name
from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.namespace import TASK_IMAGE, Team, binding, canary, condition, python
from testing.people import may_use, sealed_entry
from tests.e2e.cli.conftest import UserMaker
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e

CHECK = "import os, sys; sys.exit(0 if os.environ['T'].endswith({!r}) else 3)"


def uses(alice: Terminal, name: str, ends: str) -> int:
    """Exit code of a run that gets the secret and looks whether its value ends like this one."""
    words = ("run", "--image", TASK_IMAGE, "--secret", f"T={name}", "--wait")
    return alice.run(*words, "--", *python(CHECK.format(ends[-6:]))).code


def test_set_list_use_overwrite_and_delete(team: Team, alice: Terminal, node: Cluster) -> None:
    mark, value = node.audit.mark(), canary()
    assert (
        alice.run("secret", "list").err
        == f"no secrets in your personal binding in namespace {team.namespace}\n"
    )
    done = alice.run("secret", "set", "my secret?", stdin=f"{value}\n")
    assert done.code == 0, done
    assert value not in done.out + done.err
    listed = alice.run("secret", "list")
    assert listed.out.splitlines()[0].split() == ["NAME", "FROM", "READY", "REASON", "CHANGED"]
    assert listed.out.splitlines()[1].startswith("my secret?  sealed")
    assert value not in listed.out
    (item,) = json.loads(alice.ok("secret", "list", "-o", "json"))["items"]
    assert item["changed"] is not None
    assert uses(alice, "my secret?", value) == 0
    # 27: set on an existing name overwrites
    later = canary()
    alice.ok("secret", "set", "my secret?", stdin=later)
    alice.ok("secret", "set", "second", stdin=later)
    assert alice.ok("secret", "list", "-o", "name") == "my secret?\nsecond\n"
    assert uses(alice, "my secret?", later) == 0
    alice.ok("secret", "delete", "my secret?")
    # 25: an absent name
    absent = alice.run("secret", "delete", "my secret?")
    assert absent.code == 3
    assert "there is no secret 'my secret?' in your personal binding" in absent.err
    alice.ok("secret", "delete", "second")
    assert team.client.list("secretbindings", team.namespace)[0]["metadata"]["name"] == "keys"
    assert [str(event) for event in node.audit.find(value.encode(), mark)] == []


def test_two_users_never_meet(team: Team, alice: Terminal, user: UserMaker) -> None:
    bob = user("bob")
    alice.ok("secret", "set", "token2", stdin="own-alice")
    bob.ok("secret", "set", "token2", stdin="own2-bob")
    assert len(team.client.list("secretbindings", team.namespace)) == 3
    assert uses(alice, "token2", "own-alice") == 0
    assert uses(bob, "token2", "own2-bob") == 0
    alice.ok("secret", "delete", "token2")
    assert bob.ok("secret", "list", "-o", "name") == "token2\n"


def test_read_back_with_a_question_on_a_terminal(alice: Terminal) -> None:
    value = canary()
    alice.ok("secret", "set", "mine", stdin=value)
    assert alice.ok("secret", "get", "mine") == value
    refused = alice.typed("secret", "get", "mine", answers={"Print the value of mine on this screen?": "n\n"})
    assert refused.code == 130
    assert value not in refused.out
    shown = alice.typed("secret", "get", "mine", answers={"Print the value of mine on this screen?": "y\n"})
    assert (shown.code, value in shown.out) == (0, True)
    absent = alice.run("secret", "get", "nothing")
    assert absent.code == 3
    assert "nothing" in absent.err


def test_what_an_earlier_version_sealed_is_told_with_the_command_that_sets_it_again(
    team: Team, alice: Terminal
) -> None:
    """It was sealed for the name of the binding, which anybody could take."""
    owner, value, name = f"system:serviceaccount:{team.namespace}:alice", canary(), "it's old"
    made = binding(
        team.namespace,
        "hers",
        owner={"username": owner},
        secrets=[sealed_entry(team, value, binding="hers", entry=name)],
    )
    team.client.as_user(owner).create(made)

    def told(found: Object) -> str:
        return str(condition(found, "Ready").get("message", ""))

    found = team.client.wait_for("secretbindings", "hers", team.namespace, lambda item: bool(told(item)))
    assert condition(found, "Ready")["reason"] == "SealContextMismatch"
    command = told(found).rpartition("sets it again: ")[2].removesuffix(")")
    program, *words = shlex.split(command)
    assert (program, words[-1]) == ("runkeys", name)
    alice.ok(*words, stdin=value)
    assert uses(alice, name, value) == 0


def test_whoever_takes_the_usual_name_of_a_personal_binding_stops_nobody(
    team: Team, alice: Terminal, user: UserMaker
) -> None:
    user("bob")
    here, value = team.namespace, canary()
    bob = f"system:serviceaccount:{here}:bob"
    taken = personal_name(f"system:serviceaccount:{here}:alice")
    own = [sealed_entry(team, "bob's", owner=bob)]
    team.client.as_user(bob).create(binding(here, taken, owner={"username": bob}, secrets=own))
    alice.ok("secret", "set", "token", stdin=value)
    assert uses(alice, "token", value) == 0


def test_of_a_shared_binding(team: Team, alice: Terminal, user: UserMaker) -> None:
    team.make_binding("shared", secrets=[sealed_entry(team, "old", binding="shared")])
    (alice.folder / "pem").write_bytes(b"line 1\nline 2\n")
    words = ("secret", "set", "cert", "--binding", "shared", "--from-file", "pem")
    refused = alice.run(*words)
    assert refused.code == 4
    assert "may not use SecretBinding shared, so may not write or delete it" in refused.err
    may_use(team, f"system:serviceaccount:{team.namespace}:alice", "shared")
    alice.ok(*words)
    assert alice.ok("secret", "list", "--binding", "shared", "-o", "name") == "cert\ntoken\n"
    alice.ok("secret", "delete", "token", "--binding", "shared")
    last = alice.run("secret", "delete", "cert", "--binding", "shared")
    assert last.code == 5
    assert "is the last secret of SecretBinding shared" in last.err
    assert alice.run("secret", "set", "a", "--binding", "absent", stdin="x").code == 3
    denied = alice.run("secret", "get", "cert", "--binding", "shared")
    assert denied.code == 4
    assert "may not reveal SecretBinding shared" in denied.err
    carol = user("carol", use=("shared",))
    assert carol.ok("secret", "get", "cert", "--binding", "shared") == "line 1\nline 2\n"


def test_a_prompt_hides_what_is_typed(team: Team, alice: Terminal) -> None:
    value = canary()
    done = alice.typed("secret", "set", "typed", answers={"Value of secret typed: ": f"{value}\n"})
    assert done.code == 0, done
    assert value not in done.out
    assert alice.ok("secret", "get", "typed") == value
    stored = json.dumps(team.client.list("secretbindings", team.namespace))
    assert value not in stored
    assert base64.b64encode(value.encode()).decode() not in stored
