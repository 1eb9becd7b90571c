"""Reading a value back: for whoever has the right, once, sealed with a key that nobody else has, and on record."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace

import pytest

from runkeys.sealing import ContextMismatchError, Keyring, PrivateKey, RevealAnswer
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import ApiError, Object
from testing.namespace import Team
from testing.people import EVERYBODY, Person, give, may, person, sealed_entry

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Question:
    """A SecretReveal, and the key that opens its answer."""

    key: PrivateKey
    made: Object
    team: Team

    def answer(self) -> Object:
        """Its status once it is there."""
        found = self.team.client.wait_for(
            "secretreveals",
            self.made["metadata"]["name"],
            self.team.namespace,
            lambda item: item.get("status", {}).get("answeredTime"),
        )
        status: Object = found["status"]
        return status

    def open(self, text: str) -> str:
        place = RevealAnswer(self.team.namespace, self.made["metadata"]["uid"])
        return Keyring(self.key).open(text, place).decode()


def ask(who: Person, entry: str = "token", *, key: PrivateKey | None = None, **what: object) -> Question:
    """Ask as this user; ``binding="keys"`` unless said otherwise."""
    key = key or PrivateKey.generate()
    made = who.client.create(
        {
            "apiVersion": "runkeys.dev/v1alpha1",
            "kind": "SecretReveal",
            "metadata": {"generateName": "reveal-", "namespace": who.team.namespace},
            "spec": {
                **(what or {"binding": "keys"}),
                "entry": entry,
                "publicKey": key.public.text,
                "requester": {"username": who.name, "groups": [EVERYBODY]},
            },
        }
    )
    return Question(key, made, who.team)


def asker(team: Team, name: str, *, reveal: tuple[str, ...] = ()) -> Person:
    """A user who may ask, and is answered about the bindings called ``reveal``."""
    who = person(team, name)
    rules = [{"apiGroups": ["runkeys.dev"], "resources": ["secretreveals"], "verbs": ["create", "get"]}]
    if reveal:
        named = {"apiGroups": ["runkeys.dev"], "resources": ["secretbindings"], "verbs": ["reveal"]}
        rules.append({**named, "resourceNames": list(reveal)})
    give(team, f"asks-{name}", name, rules)
    wait_until(f"{name} to be let ask", lambda: may(who.client, team.namespace, "create", "secretreveals"))
    return who


@pytest.fixture
def sealed_team(team: Team) -> Team:
    """A team whose binding ``keys`` holds a sealed value of another kind than the source's."""
    team.client.delete("secretbindings", "keys", team.namespace)
    team.make_binding(secrets=[sealed_entry(team, team.value)])
    return team


def test_the_one_who_may_reads_it_once_and_everybody_can_see_that(sealed_team: Team, node: Cluster) -> None:
    team, mark = sealed_team, node.audit.mark()
    since = team.cluster.etcd.revision()
    alice = asker(team, "alice", reveal=("keys",))
    question = ask(alice)
    status = question.answer()
    assert question.open(status["sealed"]) == team.value

    # the answer opens with no other key and as no other object's
    other = ask(alice, key=question.key)
    again = other.answer()
    with pytest.raises(ContextMismatchError):
        question.open(again["sealed"])

    # an Event on the binding says who read what
    events = [
        item for item in team.client.list("events", team.namespace) if item["reason"] == "SecretRevealed"
    ]
    name = question.made["metadata"]["name"]
    assert f"alice read entry 'token' (SecretReveal {name})" in [item["message"] for item in events]
    assert {item["involvedObject"]["name"] for item in events} == {"keys"}
    order = team.calls(mark, "create events", "patch secretreveals/status", at_least=4)
    assert [event.resource for event in order] == ["events", "secretreveals/status"] * 2

    # nothing of it is in the cluster but what was sealed
    forms = [team.value.encode(), team.value.encode().hex().encode()]
    forms += [base64.b64encode(b"." * skip + team.value.encode())[4:-4] for skip in range(3)]
    assert team.cluster.etcd.find(status["sealed"].encode(), since=since), "the search finds nothing"
    assert team.cluster.etcd.find(*forms, since=since) == {}
    assert [form for form in forms if form in team.operator.log.read_bytes()] == []
    assert [str(event) for form in forms for event in node.audit.find(form, mark)] == []

    # and after its minute it is gone
    for item in (question, other):
        team.client.wait_gone("secretreveals", item.made["metadata"]["name"], team.namespace)


def test_nobody_else_is_told(sealed_team: Team) -> None:
    team = sealed_team
    alice, bob = asker(team, "alice", reveal=("keys",)), asker(team, "bob")
    alice.client.create(
        {
            "apiVersion": "runkeys.dev/v1alpha1",
            "kind": "SecretBinding",
            "metadata": {"name": "hers", "namespace": team.namespace},
            "spec": {
                "owner": {"username": "alice"},
                "secrets": [sealed_entry(team, team.value, owner="alice")],
            },
        }
    )
    mine = ask(alice, personal=True)
    assert mine.open(mine.answer()["sealed"]) == team.value

    for binding in ("keys", "hers"):
        with pytest.raises(ApiError) as refused:
            ask(bob, binding=binding)
        assert f"bob may not reveal SecretBinding {binding}" in refused.value.message
    forged = ask(replace(bob, name="alice"), personal=True)
    assert forged.made["spec"]["requester"]["username"] == "bob", "what is sent is replaced"
    assert forged.answer()["reason"] == "BindingNotFound"
    absent = ask(alice, entry="absent").answer()
    assert (absent.get("sealed"), absent["reason"]) == (None, "SecretNotFound")
    assert "it has: token" in absent["message"]
    none = ask(bob, personal=True).answer()
    assert (none.get("sealed"), none["reason"]) == (None, "BindingNotFound")


def test_a_right_that_is_gone_when_the_operator_sees_the_question(sealed_team: Team) -> None:
    team = sealed_team
    alice, carol = asker(team, "alice", reveal=("keys", "hers")), asker(team, "carol", reveal=("keys",))
    team.operator.wait_serving()
    team.operator.stop_cleanly()
    gone, stays = ask(alice), ask(carol)
    team.client.delete("rolebindings", "asks-alice", team.namespace)
    wait_until(
        "alice to have lost it",
        lambda: not may(alice.client, team.namespace, "reveal", "secretbindings", "keys"),
    )
    team.operator.start()
    status = gone.answer()
    assert (status.get("sealed"), status["reason"]) == (None, "RevealDenied")
    assert "alice may not reveal SecretBinding keys" in status["message"]
    assert stays.open(stays.answer()["sealed"]) == team.value


def test_somebody_elses_personal_binding_is_not_told_whatever_the_right(sealed_team: Team) -> None:
    team = sealed_team
    bob = asker(team, "bob", reveal=("hers",))
    entry = sealed_entry(team, team.value, owner="alice")
    person(team, "alice").client.create(
        {
            "apiVersion": "runkeys.dev/v1alpha1",
            "kind": "SecretBinding",
            "metadata": {"name": "hers", "namespace": team.namespace},
            "spec": {"owner": {"username": "alice"}, "secrets": [entry]},
        }
    )
    hers = ask(bob, binding="hers").answer()
    assert (hers.get("sealed"), hers["reason"]) == (None, "RevealDenied")
    assert "is the personal binding of alice" in hers["message"]


def test_control_with_the_right_bob_is_told(sealed_team: Team) -> None:
    bob = asker(sealed_team, "bob", reveal=("keys",))
    question = ask(bob)
    assert question.open(question.answer()["sealed"]) == sealed_team.value


def test_whoever_takes_the_name_of_the_event_first_does_not_keep_it_away(sealed_team: Team) -> None:
    """The name was a hash of the question's uid, which the asker knows before the operator has seen it."""
    team = sealed_team
    alice = asker(team, "alice", reveal=("keys",))
    give(
        team,
        "events-alice",
        "alice",
        [{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}],
    )
    team.operator.wait_serving()
    team.operator.stop_cleanly()
    question = ask(alice)
    uid = question.made["metadata"]["uid"]
    name = f"keys.{hashlib.sha256(uid.encode()).hexdigest()[:10]}"
    about = {"kind": "SecretBinding", "name": "keys", "namespace": team.namespace}
    metadata = {"name": name, "namespace": team.namespace}
    alice.client.create(
        {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": about, "type": "Normal"}
    )
    team.operator.start()
    assert question.open(question.answer()["sealed"]) == team.value
    assert len(told_of(team, question)) == 1


def test_control_without_the_event_there_is_no_answer(sealed_team: Team, node: Cluster) -> None:
    team, mark = sealed_team, node.audit.mark()
    alice = asker(team, "alice", reveal=("keys",))
    with team.without_right("create", "events"):
        question = ask(alice)
        wait_until("the operator to have tried twice", lambda: denied_events(team, mark) > 1)
        assert told_of(team, question) == []
        found = team.client.get("secretreveals", question.made["metadata"]["name"], team.namespace)
        assert "answeredTime" not in found.get("status", {})
    again = ask(alice)
    assert again.open(again.answer()["sealed"]) == team.value
    assert len(told_of(team, again)) == 1


def denied_events(team: Team, mark: int) -> int:
    """How often the operator was refused to say something."""
    events = team.cluster.audit.events(mark, namespace=team.namespace)
    return len(
        [item for item in events if (item.verb, item.resource, item.status) == ("create", "events", 403)]
    )


def told_of(team: Team, question: Question) -> list[Object]:
    """The Events that say that it was answered."""
    name = question.made["metadata"]["name"]
    said = f"alice read entry 'token' (SecretReveal {name})"
    return [item for item in team.client.list("events", team.namespace) if item.get("message") == said]


def test_a_question_that_was_asked_while_the_operator_was_away(sealed_team: Team) -> None:
    alice = asker(sealed_team, "alice", reveal=("keys",))
    sealed_team.operator.wait_serving()
    sealed_team.operator.stop_cleanly()
    question = ask(alice)
    sealed_team.operator.start()
    assert question.open(question.answer()["sealed"]) == sealed_team.value
