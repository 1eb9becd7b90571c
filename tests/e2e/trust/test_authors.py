"""Who may write bindings, and what nobody may store in the clear."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import wait_until
from testing.cluster.client import ApiError, KubeClient, Object
from testing.namespace import SOURCE, Team, binding, canary, run
from testing.people import give, may
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.trust.golden import check_golden, told

pytestmark = pytest.mark.e2e

APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
EDITS: Object = {
    "apiGroups": ["runkeys.dev"],
    "resources": ["secretbindings", "workflowruns"],
    "verbs": ["*"],
}
"""`*` holds `use`, of every name."""


def author(team: Team, name: str, *secrets: str, edits: Object = EDITS) -> KubeClient:
    """Somebody who may write and use all bindings, and get Secrets of these names."""
    get = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": list(secrets), "verbs": ["get"]}
    give(team, f"author-{name}", name, [edits, *([get] if secrets else [])])
    client = team.client.as_user(name)
    wait_until(f"{name} to be let in", lambda: may(client, team.namespace, "create", "secretbindings"))
    return client


def entries(*secrets: str) -> list[Object]:
    return [
        {"name": f"entry-{number}", "secretKeyRef": {"name": secret, "key": "token"}}
        for number, secret in enumerate(secrets)
    ]


def test_a_binding_is_no_way_round_rbac(new_team: TeamMaker, tmp_path: Path) -> None:
    team, rows = new_team(start=False), {}
    sixteen = [f"secret-{number}" for number in range(16)]
    erin = author(team, "erin", *sixteen, "secret-16")

    erin.create(binding(team.namespace, "sixteen", secrets=entries(*sixteen)))
    erin.create(binding(team.namespace, "largest", secrets=entries(*sixteen * 32)))
    for what, secrets in {
        "one that the author may not get": [*sixteen[:15], "other"],
        "a personal binding, too": ["other"],
        "more than can be checked": [*sixteen, "secret-16"],
    }.items():
        more: Object = {"owner": {"username": "erin"}} if "personal" in what else {}
        with pytest.raises(ApiError) as refused:
            erin.create(binding(team.namespace, "refused", secrets=entries(*secrets), **more))
        rows[what] = told(refused.value.message, team)
    # changed to refer to another Secret it is checked again; its labels are nobody's secret
    with pytest.raises(ApiError) as refused:
        erin.patch("secretbindings", "sixteen", team.namespace, {"spec": {"secrets": entries("other")}})
    rows["changed to refer to it"] = told(refused.value.message, team)
    erin.patch("secretbindings", "sixteen", team.namespace, {"metadata": {"labels": {"seen": "yes"}}})
    # whoever may get all of them may refer to any number
    team.make_binding("many", secrets=entries(*(f"any-{number}" for number in range(512))))
    check_golden("authors.txt", rows, tmp_path)


def test_a_personal_binding_is_its_owners(new_team: TeamMaker, tmp_path: Path) -> None:
    team, rows = new_team(start=False), {}
    # Its owner needs no `use`; somebody else is not helped by it.
    verbs = ["create", "get", "patch", "update", "delete"]
    frank = author(team, "frank", SOURCE, edits={**EDITS, "verbs": verbs})
    erin = author(team, "erin", SOURCE)
    own = {"owner": {"username": "frank"}}
    frank.create(binding(team.namespace, "of-frank", **own))
    frank.patch("secretbindings", "of-frank", team.namespace, {"spec": {"maxLifetimeSeconds": 60}})
    change, relabel = {"spec": {"maxLifetimeSeconds": 9}}, {"metadata": {"labels": {"a": "b"}}}
    acts: dict[str, Callable[[KubeClient], object]] = {
        "make it in the owner's name": lambda who: who.create(binding(team.namespace, "forged", **own)),
        "change it": lambda who: who.patch("secretbindings", "of-frank", team.namespace, change),
        "relabel it": lambda who: who.patch("secretbindings", "of-frank", team.namespace, relabel),
        "delete it": lambda who: who.delete("secretbindings", "of-frank", team.namespace),
    }
    for name, client in (("somebody who may use all", erin), ("an administrator", team.client)):
        for what, act in acts.items():
            with pytest.raises(ApiError) as refused:
                act(client)
            rows[f"{what} / {name}"] = told(refused.value.message, team)
    frank.delete("secretbindings", "of-frank", team.namespace)
    check_golden("personal.txt", rows, tmp_path)


def applied(kind: str, document: object) -> Object:
    """An object whose spec is fine, with a copy left by `kubectl apply` that is not."""
    made = run("", "applied", bindings=[], suspend=True) if kind == "run" else binding("", "applied")
    made["metadata"]["annotations"] = {APPLIED: json.dumps(document, separators=(",", ":"))}
    return made


def nested(value: Any, levels: int) -> Any:
    for level in range(levels):
        value = {"a": value} if level % 2 else [value]
    return value


def in_the_clear(value: str) -> dict[str, Object]:
    """By the place where somebody might put a value."""
    of_run: dict[str, Any] = {"bindings": [], "suspend": True}
    return {
        "input.$secrets": run("", input={"$secrets": {"token": value}}, **of_run),
        "input.*.$secrets": run(
            "", input={"n": 1, "l": ["x"], "task": {"$secrets": {"token": value}}}, **of_run
        ),
        "input, in a list": run("", input={"l": [1, [{"$secrets": {"token": value}}]]}, **of_run),
        "input, 400 levels deep": run("", input={"x": nested({"$secrets": {"token": value}}, 400)}, **of_run),
        "input, after quotes": run("", input={'a\\": "': {"$secrets": {"token": value}}}, **of_run),
        "sealedInput": run("", sealedInput={"token": value}, **of_run),
        "entry of a binding": binding("", secrets=[{"name": "token", "sealed": value}]),
        "run, applied: $secrets": applied("run", {"spec": {"input": {"$secrets": {"token": value}}}}),
        "run, applied: sealedInput": applied("run", {"spec": {"sealedInput": {"a": "rk1.x.y", "b": value}}}),
        "run, applied: a task's secret": applied(
            "run", {"spec": {"secrets": [{"name": "t", "value": value}]}}
        ),
        "binding, applied: value": applied("binding", {"spec": {"secrets": [{"name": "t", "value": value}]}}),
        "binding, applied: sealed": applied(
            "binding", {"spec": {"secrets": [{"name": "t", "sealed": value}]}}
        ),
    }


def test_nothing_is_stored_in_the_clear(new_team: TeamMaker, tmp_path: Path) -> None:
    team, rows = new_team(start=False), {}
    value = canary()
    for what, made in in_the_clear(value).items():
        with pytest.raises(ApiError) as refused:
            team.client.create(made, team.namespace)
        assert value not in str(refused.value.body), what
        rows[what] = told(refused.value.message, team)
    # What is sealed, and what only looks like it, is let through.
    sealed = {"spec": {"sealedInput": {"a": "rk1.x.y", "b": "rk1.z.w"}, "tasks": [{"env": [{"value": "x"}]}]}}
    team.client.create(applied("run", sealed), team.namespace)
    team.client.create(
        applied("binding", {"spec": {"secrets": [{"name": "t", "sealed": "rk1.x.y"}]}}), team.namespace
    )
    said = {
        "secrets": {"a": 1},
        "b": {"c": "$secrets"},
        "d": ['"$secrets":', {"$secrets_": 1}],
        '"$secrets":': 1,
    }
    team.client.create(run(team.namespace, "fine", input={**said, "large": [1] * 20_000}))
    assert not team.cluster.etcd.find(value.encode(), since=team.since)
    check_golden("in-the-clear.txt", rows, tmp_path)


def test_control_without_the_policy_it_is_stored(new_team: TeamMaker) -> None:
    team = new_team(start=False)
    value = canary()
    with team.without_policies("plaintext"):
        made = in_the_clear(value)
        team.client.create(made["input, in a list"], team.namespace)
        team.client.create(made["binding, applied: value"], team.namespace)
    assert len(team.cluster.etcd.find(value.encode(), since=team.since)) == 2
