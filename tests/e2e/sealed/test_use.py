"""Who may use a binding is asked again before each Secret; a personal binding is its owner's."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial

import pytest

from runkeys.planning.access import RECONCILED
from testing.cluster.base import wait_until
from testing.cluster.client import ApiError
from testing.namespace import HELD_BACK, Team, condition, phase, run
from testing.operators import requester_of as requester
from testing.people import give, may, may_not_use, may_use, person, sealed_entry

pytestmark = pytest.mark.e2e


def test_without_the_right_no_run_is_made_and_the_printed_command_grants_it(team: Team) -> None:
    alice = person(team, "alice")
    with pytest.raises(ApiError) as refused:
        alice.submit()
    assert refused.value.status == 403
    assert "alice may not use SecretBinding keys; " in refused.value.message
    obey(team, refused.value.message)
    wait_until(
        "alice to be let use keys",
        lambda: may(alice.client, team.namespace, "use", "secretbindings", "keys"),
    )
    alice.submit()
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"


def test_a_name_that_a_shell_would_obey_is_one_word_of_the_command(team: Team) -> None:
    """Whoever is refused chooses the name, and whoever administers the namespace pastes the command."""
    name = 'o\'brien $(id); `id` "x" && id'
    mallory = person(team, "mallory")
    give(team, "edit-odd", name, [{"apiGroups": ["runkeys.dev"], "resources": ["*"], "verbs": ["create"]}])
    odd = replace(mallory, name=name, client=team.client.as_user(name))
    wait_until("it to be let in", lambda: may(odd.client, team.namespace, "create", "workflowruns"))
    with pytest.raises(ApiError) as refused:
        odd.submit()
    at_admission = refused.value.message.rpartition(" create rolebinding ")[2]
    words = ["use-keys", "--role=use-keys", f"--user={name}", *shlex.split(RECONCILED)]
    assert shlex.split(at_admission) == words

    # the operator's own message, for a right that was taken away since
    may_use(team, name, "keys", role="use-odd")
    team.operator.wait_serving()
    team.operator.stop_cleanly()
    odd.submit()
    team.client.delete("rolebindings", "use-odd", team.namespace)
    wait_until("it to be lost", lambda: not may(odd.client, team.namespace, "use", "secretbindings", "keys"))
    team.operator.start()
    found = team.wait_condition("job", "Stalled", reason="UseDenied")
    told = condition(found, "Stalled")["message"].rpartition(" create rolebinding ")[2]
    assert shlex.split(told) == words


def test_the_command_adds_the_next_user_to_those_that_there_are(team: Team) -> None:
    for name in ("alice", "bob"):
        user = person(team, name)
        with pytest.raises(ApiError) as refused:
            user.submit()
        obey(team, refused.value.message)
    for name in ("alice", "bob"):
        wait_until(f"{name} to be let use keys", partial(uses, team, name))


def uses(team: Team, name: str) -> bool:
    return may(team.client.as_user(name), team.namespace, "use", "secretbindings", "keys")


def obey(team: Team, message: str) -> None:
    """Run the commands that a message ends with."""
    apply, bind = message.partition("can allow it: ")[2].split(" && ")
    echo, manifest, pipe, *command = shlex.split(apply)
    assert (echo, pipe, command[0]) == ("echo", "|", "kubectl")
    team.cluster.kubectl(*command[1:], input=manifest)
    made, pipe, reconcile = bind.rpartition(" | kubectl ")
    assert pipe, bind
    team.cluster.kubectl(*shlex.split(reconcile), input=team.cluster.kubectl(*shlex.split(made)[1:]))


def test_a_right_that_is_gone_when_the_operator_sees_the_run(team: Team) -> None:
    alice = person(team, "alice", use=("keys",))
    team.operator.wait_serving()
    team.operator.stop_cleanly()
    alice.submit()
    may_not_use(team, "alice", "keys")
    team.client.delete("roles", "use-keys-alice", team.namespace)
    team.operator.start()
    found = team.wait_condition("job", "Stalled", reason="UseDenied")
    message = condition(found, "Stalled")["message"]
    assert message.startswith("spec.tasks[0].secrets[0].secret: alice, who created the run, may not use")
    assert condition(found, "Authorized")["status"] == "False"
    assert (team.jobs(), team.secret_story()) == ([], [])

    obey(team, message)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]


def test_a_right_that_is_taken_away_while_the_run_waits(team: Team) -> None:
    alice = person(team, "alice", use=("keys",))
    made = alice.submit(pod=HELD_BACK)
    team.pod(made)
    may_not_use(team, "alice", "keys")
    team.let_go(made)
    found = team.wait_condition("job", "Stalled", reason="UseDenied")
    assert condition(found, "SecretsReleased")["status"] == "False"
    assert team.secret_story() == []


def test_control_with_the_right_the_same_run_gets_its_secret(team: Team) -> None:
    alice = person(team, "alice", use=("keys",))
    made = alice.submit(pod=HELD_BACK)
    team.pod(made)
    team.let_go(made)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.secret_story() == ["made", "gone"]


def personal(team: Team, name: str, owner: str) -> None:
    entry = sealed_entry(team, team.value, owner=owner)
    team.client.as_user(owner).create(
        {
            "apiVersion": "runkeys.dev/v1alpha1",
            "kind": "SecretBinding",
            "metadata": {"name": name, "namespace": team.namespace},
            "spec": {"owner": {"username": owner}, "secrets": [entry]},
        }
    )


def test_a_personal_binding_serves_its_owner_and_nobody_else(team: Team) -> None:
    alice, bob = person(team, "alice"), person(team, "bob", use=("of-alice",))
    alice.submit("early", bindings=[{"personal": True}])
    team.wait_condition("early", "Stalled", reason="BindingNotFound")
    personal(team, "of-alice", "alice")
    assert phase(team.wait_phase("early", "Succeeded", "Failed")) == "Succeeded"

    bob.submit("by-name", bindings=[{"name": "of-alice"}])
    bob.submit("his-own", bindings=[{"personal": True}])
    found = team.wait_condition("by-name", "Stalled", reason="AccessDenied")
    assert (
        "is the personal binding of alice, and this run was created by bob"
        in condition(found, "Stalled")["message"]
    )
    team.wait_condition("his-own", "Stalled", reason="BindingNotFound")

    personal(team, "of-alice-too", "alice")
    alice.submit("both", bindings=[{"personal": True}])
    found = team.wait_condition("both", "Stalled", reason="NameCollision")
    assert "(of-alice, of-alice-too); delete all but one" in condition(found, "Stalled")["message"]
    alice.client.delete("secretbindings", "of-alice-too", team.namespace)
    assert phase(team.wait_phase("both", "Succeeded", "Failed")) == "Succeeded"


def test_who_is_in_very_many_groups_has_runs_like_others(team: Team) -> None:
    """By one of these groups, which is asked for again before the Secret is made."""
    groups = [f"department-{number}-of-a-large-directory" for number in range(3000)]
    rule = {"apiGroups": ["runkeys.dev"], "resources": ["workflowruns"], "verbs": ["create"]}
    use = {"apiGroups": ["runkeys.dev"], "resources": ["secretbindings"], "verbs": ["use"]}
    give(team, "of-a-group", groups[2718], [rule, use], kind="Group")
    client = team.client.as_user("grace", *groups)
    wait_until("grace to be let in", lambda: may(client, team.namespace, "create", "workflowruns"))
    client.create(run(team.namespace, requester=requester(client)))
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert len(found["spec"]["requester"]["groups"]) == len(groups) + 1  # system:authenticated
