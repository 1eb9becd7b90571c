"""I6, default deny: everybody who makes or changes runs, times every way to a secret that they may not use.

Each cell is refused with a message that says who lacks what and how it is granted; the messages are golden files. With
the right, and nothing else changed, the same cell goes through: except where nobody may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import ApiError, KubeClient, Object
from testing.namespace import HELD_BACK, TASK_IMAGE, Team, binding, condition, run
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.trust.actors import Actor, actors
from tests.e2e.trust.golden import check_golden, plain, told

pytestmark = pytest.mark.e2e

WIDE: Object = {"access": [{"runSelector": {}}]}
NARROW = [{"runSelector": {"matchLabels": {"app": "nothing"}}}]
OWNER = {"username": "owner", "groups": ["system:masters"]}


@dataclass(frozen=True)
class Attempt:
    """One way. ``act(client, team, tag)`` returns what the API server answered."""

    act: Callable[[KubeClient, Team, str], Object]
    requirements: str = ""
    """What lets it through: ``use``; empty: nothing does."""


def create(client: KubeClient, team: Team, tag: str) -> Object:
    return client.create(run(team.namespace, f"create-{tag}"))


def generate_name(client: KubeClient, team: Team, tag: str) -> Object:
    made = run(team.namespace)
    made["metadata"] = {"generateName": f"generated-{tag}-", "namespace": team.namespace}
    return client.create(made)


def forged_requester(client: KubeClient, team: Team, tag: str) -> Object:
    """As somebody does who copies the run of another."""
    made = client.create(run(team.namespace, f"forged-{tag}", requester=OWNER))
    assert made["spec"]["requester"]["username"] != "owner", "it is filled in, whatever was sent"
    return made


def name_it_later(client: KubeClient, team: Team, tag: str) -> Object:
    name = f"later-{tag}"
    if client.find("workflowruns", name, team.namespace) is None:
        client.create(run(team.namespace, name, bindings=[], suspend=True))
    return client.patch("workflowruns", name, team.namespace, {"spec": {"bindings": [{"name": "keys"}]}})


def change_input(client: KubeClient, team: Team, tag: str) -> Object:
    """A key that the schema does not know, for another that it does not know either."""
    name = f"input-{tag}"
    if client.find("workflowruns", name, team.namespace) is None:
        client.create(run(team.namespace, name, bindings=[], suspend=True, input={"a": 1}))
    change = [{"op": "replace", "path": "/spec/input", "value": {"b": 2}}]
    return client.patch("workflowruns", name, team.namespace, change, "json")


def label_patch(client: KubeClient, team: Team, tag: str) -> Object:
    """A pod of one's own is to pass for a run's."""
    name = f"pod-{tag}"
    if client.find("pods", name, team.namespace) is None:
        spec = {**HELD_BACK, "containers": [{"name": "main", "image": TASK_IMAGE}]}
        metadata = {"name": name, "namespace": team.namespace}
        client.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return client.patch("pods", name, team.namespace, {"metadata": {"labels": {"runkeys.dev/run": "owners"}}})


def widen(client: KubeClient, team: Team, tag: str) -> Object:  # noqa: ARG001 -- there is one binding for all
    return client.patch("secretbindings", "narrow", team.namespace, {"spec": WIDE})


def recreate(client: KubeClient, team: Team, tag: str) -> Object:
    name = f"again-{tag}"
    client.delete("secretbindings", name, team.namespace, missing_ok=True)
    return client.create(binding(team.namespace, name, **WIDE))


ATTEMPTS = {
    "create": Attempt(create, "use"),
    "create with generateName": Attempt(generate_name, "use"),
    "create with a forged requester": Attempt(forged_requester, "use"),
    "update: name the binding later": Attempt(name_it_later),
    "update: change the input": Attempt(change_input),
    "label patch": Attempt(label_patch),
    "binding widened": Attempt(widen, "use"),
    "binding recreated with wider access": Attempt(recreate, "use"),
}


def prepared(team: Team) -> list[Actor]:
    """What is there before anybody tries anything."""
    team.make_source()
    team.make_binding()
    team.make_binding("narrow", access=NARROW)
    found = actors(team)
    for actor in found:
        team.make_binding(f"again-{actor.kind}", access=NARROW)
    return found


def bindings_of(actor: Actor) -> tuple[str, ...]:
    return ("keys", "narrow", f"again-{actor.kind}")


def test_each_cell_is_refused_and_says_what_to_do(new_team: TeamMaker, node: Cluster, tmp_path: Path) -> None:
    team, mark = new_team(), node.audit.mark()
    everybody = prepared(team)
    rows: dict[str, str] = {}
    for actor in everybody:
        for name, attempt in ATTEMPTS.items():
            with pytest.raises(ApiError) as refused:
                attempt.act(actor.client, team, actor.kind)
            rows[f"{name} / {actor.kind}"] = told(refused.value.message, team)
    # The operator is at work: a run that is allowed gets its Secret, and that is the only one it asked for.
    witness = team.make_run("witness")
    team.wait_phase("witness", "Succeeded")
    check_secrets_asked_for(team, node, mark, 1)
    assert team.secret_story() == team.secret_story(team.object_name(witness)) == ["made", "gone"]
    print(f"{len(rows)} cells refused")
    check_golden("matrix.txt", dict(sorted(rows.items())), tmp_path)


def test_control_with_the_right_the_same_goes_through(new_team: TeamMaker) -> None:
    team = new_team(start=False)
    for actor in prepared(team):
        actor.may_use(*bindings_of(actor))
        for attempt in ATTEMPTS.values():
            if attempt.requirements:
                assert attempt.act(actor.client, team, actor.kind)
            else:
                with pytest.raises(ApiError):
                    attempt.act(actor.client, team, actor.kind)


def test_the_right_is_revoked_while_the_run_waits(new_team: TeamMaker, node: Cluster, tmp_path: Path) -> None:
    team, mark = new_team(), node.audit.mark()
    everybody = prepared(team)
    for actor in everybody:
        actor.may_use(*bindings_of(actor))
        actor.client.create(run(team.namespace, actor.kind, pod=HELD_BACK))
    for actor in everybody:
        found = team.run(actor.kind)
        team.pod(found)
        actor.may_not_use(*bindings_of(actor))
        team.let_go(found)
    rows = {}
    for actor in everybody:
        found = team.wait_condition(actor.kind, "Stalled", reason="UseDenied")
        rows[f"revoked / {actor.kind}"] = plain(condition(found, "Stalled")["message"], team)
    check_secrets_asked_for(team, node, mark, 0)
    check_golden("revoked.txt", dict(sorted(rows.items())), tmp_path)


def test_the_policy_is_away_when_the_run_is_made(new_team: TeamMaker, node: Cluster, tmp_path: Path) -> None:
    """Nobody is held to anything then, so nothing is made, nor when it is back: anybody can have made it."""
    team, mark = new_team("--sweep-seconds", "1"), node.audit.mark()
    everybody = prepared(team)
    rows = {}
    with team.without_policies("use"):
        wait_until("the operator to notice", lambda: "is missing" in team.operator.text())
        for actor in everybody:
            actor.client.create(run(team.namespace, actor.kind))
        # Without the right the run is not even tried; with it, it waits for the policy.
        team.make_run("allowed")
        found = team.wait_condition("allowed", "Stalled", reason="PoliciesMissing")
        rows["policy deleted / with the right"] = plain(condition(found, "Stalled")["message"], team)
        for actor in everybody:
            found = team.wait_condition(actor.kind, "Stalled", reason="UseDenied")
            rows[f"policy deleted / {actor.kind}"] = plain(condition(found, "Stalled")["message"], team)
        assert team.jobs() == []
    check_secrets_asked_for(team, node, mark, 0)
    check_golden("policy-deleted.txt", dict(sorted(rows.items())), tmp_path)
    found = team.wait_phase("allowed", "Succeeded", "Failed")
    assert condition(found, "Stalled")["reason"] == "RequesterUnknown"
    team.make_run("again")
    team.wait_phase("again", "Succeeded")
    assert len(team.jobs()) == 1


def check_secrets_asked_for(team: Team, node: Cluster, mark: int, times: int) -> None:
    """By the audit log: how often the operator tried to make a Secret."""
    account = f"system:serviceaccount:{team.namespace}:runkeys"
    calls = [f"{call.verb} {call.resource}" for call in node.audit.events(mark, user=account)]
    assert calls, "the log shows nothing of the operator at all"
    assert calls.count("create secrets") == times
