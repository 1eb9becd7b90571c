"""Who may use a store, in which namespaces, and which tokens the operator may request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import wait_until
from testing.cluster.client import ApiError, KubeClient, Object
from testing.namespace import HELD_BACK, TASK_IMAGE, Team, condition, make_namespace, phase, team_in
from testing.operators import install_crds, last_is_in_force
from testing.people import give, person
from tests.e2e.conftest import OwnNode
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.stores.conftest import ACCOUNT, SETS, StoreTeam, binding_of, open_tokens

pytestmark = pytest.mark.e2e


def refusal(client: KubeClient, manifest: Object) -> str:
    """Why it may not be created; empty if it may. Nothing is created."""
    try:
        client.create(manifest, dryRun="All")
    except ApiError as error:
        if error.status != 403:
            raise
        return str(error)
    return ""


def test_who_writes_an_entry_of_a_store_must_be_allowed_to_use_it(team: StoreTeam) -> None:
    alice = person(team, "alice", use=("keys",))
    for kind in ("value", "lease"):
        entry = {"name": "token", kind: team.entry()["value"]}
        found = refusal(alice.client, binding_of(team, entry))
        assert f"alice may not use SecretStore {team.namespace}, which spec.secrets names" in found
        assert f"--role=use-store-{team.namespace} --user=alice" in found
    # another one of hers she may write, and may not turn into one of a store
    made = alice.client.create(binding_of(team, {"name": "token", "sealed": "rk1.x"}))
    changed = {**made, "spec": {**made["spec"], "secrets": [team.entry()]}}
    with pytest.raises(ApiError, match="may not use SecretStore"):
        alice.client.patch("secretbindings", "keys", team.namespace, {"spec": changed["spec"]})
    team.client.delete("secretbindings", "keys", team.namespace)

    rule = {
        "apiGroups": ["runkeys.dev"],
        "resources": ["secretstores"],
        "resourceNames": [team.namespace],
        "verbs": ["use"],
    }
    give(team, "use-store", "alice", [rule])
    wait_until("alice to use the store", lambda: not refusal(alice.client, binding_of(team, team.entry())))
    alice.client.create(binding_of(team, team.entry()))
    other = binding_of(team, team.entry(), team.entry("other", store="another"), name="keys")
    with pytest.raises(ApiError, match="may not use SecretStore another"):
        alice.client.patch("secretbindings", "keys", team.namespace, {"spec": other["spec"]})
    # what is in it already she may leave there
    alice.client.patch("secretbindings", "keys", team.namespace, {"spec": {"maxLifetimeSeconds": 60}})


def test_more_stores_than_can_be_checked_are_refused(team: StoreTeam) -> None:
    alice = person(team, "alice", use=("keys",))
    rule = {"apiGroups": ["runkeys.dev"], "resources": ["secretstores"], "verbs": ["use"]}
    rule["resourceNames"] = [f"s{index}" for index in range(9)]
    give(team, "use-stores", "alice", [rule])
    entries = [team.entry(f"e{index}", store=f"s{index}") for index in range(9)]
    eight = binding_of(team, *entries[:8])
    wait_until("alice to use them", lambda: not refusal(alice.client, eight))
    assert "more than 8 different SecretStores" in refusal(alice.client, binding_of(team, *entries))
    assert not refusal(team.client, binding_of(team, *entries)), "an administrator may use all of them"


@contextmanager
def labelled(team: Team, **labels: str | None) -> Iterator[None]:
    team.client.patch("namespaces", team.namespace, None, {"metadata": {"labels": labels}})
    yield
    team.client.patch("namespaces", team.namespace, None, {"metadata": {"labels": dict.fromkeys(labels)}})


def test_a_store_serves_the_namespaces_that_it_selects_and_each_change_counts(
    store_team: Callable[..., StoreTeam],
) -> None:
    selector = {
        "matchLabels": {"bao": "yes"},
        "matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["a", "b"]},
            {"key": "closed", "operator": "DoesNotExist"},
        ],
    }
    team = store_team(namespaces=selector)
    made = binding_of(team, team.entry())
    words = f"SecretStore {team.namespace} does not serve namespace {team.namespace}: its spec.namespaces does not"
    wait_until("the policy to know the store", lambda: words in refusal(team.client, made))
    with labelled(team, bao="yes", zone="c"):
        assert words in refusal(team.client, made)
    with labelled(team, bao="yes", zone="a", closed=""):
        assert words in refusal(team.client, made)
    with labelled(team, bao="yes", zone="a"):
        wait_until("the namespace to be selected", lambda: not refusal(team.client, made))
        team.client.create(made)
        team.make_store_run(pod=HELD_BACK)
        team.pod(team.run())
    # It was selected when the binding was written and the pod created, and is no longer when the value is due.
    probe = binding_of(team, team.entry(), name="probe")
    wait_until("the namespace to be left out", lambda: words in refusal(team.client, probe))
    team.let_go(team.run())
    found = team.wait_condition("job", "Stalled", "True", "SourceForbidden")
    assert words in condition(found, "Stalled")["message"]
    assert team.live_secrets() == []
    with labelled(team, bao="yes", zone="b"):
        assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"


def asked(client: KubeClient, team: Team, **changed: Any) -> str:
    """Why a token is refused to this client; empty if it is given."""
    labels = changed.pop("labels", {"runkeys.dev/store": team.namespace})
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": {"labels": labels},
        "spec": {"audiences": ["bao"], "expirationSeconds": 600, **changed},
    }
    path = f"/api/v1/namespaces/{team.namespace}/serviceaccounts/{ACCOUNT}/token"
    try:
        answer = client.request("POST", path, body=body)
    except ApiError as error:
        if error.status not in (403, 422):
            raise
        return str(error)
    assert answer["status"]["token"]
    return ""


def test_the_operator_is_held_to_tokens_of_pods(team: StoreTeam) -> None:
    team.make_binding(secrets=[team.entry()])
    team.make_store_run(pod=HELD_BACK)
    pod = team.pod(team.run())["metadata"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": pod["uid"]}
    operator = team.client.as_user(f"system:serviceaccount:{team.namespace}:runkeys")

    assert asked(operator, team, boundObjectRef=bound) == "", "what the operator asks for it is given"
    bad: list[tuple[str, dict[str, Any]]] = [
        ("bound to a pod", {}),
        ("by its uid", {"boundObjectRef": {key: bound[key] for key in ("apiVersion", "kind", "name")}}),
        ("expire after 600 s", {"boundObjectRef": bound, "expirationSeconds": 601}),
        # Two policies refuse these, and the API server names either.
        ("audience", {"boundObjectRef": bound, "audiences": ["vault"]}),
        ("audience", {"boundObjectRef": bound, "audiences": ["bao", "https://kubernetes.default.svc"]}),
        ("audience", {"boundObjectRef": bound, "audiences": []}),
        ("name their SecretStore", {"boundObjectRef": bound, "labels": {}}),
    ]
    for words, changed in bad:
        assert words in asked(operator, team, **changed), words
    # Others are not held to that: they have rights of their own.
    assert asked(team.client, team, labels={}) == ""


def test_control_without_that_policy_not_all_are_in_force(team: StoreTeam) -> None:
    """It is created last: tests that need the policies wait for this one, see ``testing.operators.wait_in_force``."""
    assert last_is_in_force(team.client, team.namespace)
    with team.without_policies("tokens"):
        assert not last_is_in_force(team.client, team.namespace)


def test_where_stores_are_off_the_operator_requests_no_tokens(new_team: TeamMaker) -> None:
    team = new_team(sources=())
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}
    team.client.create(account, team.namespace)
    open_tokens(team)
    operator = team.client.as_user(f"system:serviceaccount:{team.namespace}:runkeys")
    pod = {"apiVersion": "v1", "kind": "Pod", "name": "absent", "uid": "00000000-0000-4000-8000-000000000000"}
    wait_until(
        "the right to be known", lambda: "for one audience" in asked(operator, team, boundObjectRef=pod)
    )
    secrets = [{"name": "token", "value": {"store": "s", "role": "r", "path": "kv/data/a", "field": "f"}}]
    team.make_binding(secrets=secrets)
    team.make_run(serviceAccountName=ACCOUNT)
    found = team.wait_condition("job", "Stalled", "True", "StoresUnavailable")
    assert "values of stores are not enabled here (stores.enabled" in condition(found, "Stalled")["message"]


def test_while_the_kind_is_not_known_only_what_names_a_store_waits(own_node: OwnNode, tmp_path: Path) -> None:
    """An API server that has just started, or a cluster whose definition was deleted: other pods have their tokens."""
    node = own_node()
    install_crds(node)
    namespace = make_namespace(node.client, "unknown-kind")
    node.kubectl("delete", "crd", "secretstores.runkeys.dev")
    with team_in(node, namespace, tmp_path, sources=(), sets=SETS) as team:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}
        team.client.create(account, namespace)
        wait_until("a store's token to be refused", lambda: "paramKind" in asked(team.client, team))
        assert asked(team.client, team, labels={}) == ""
        # The kubelet of a pod asks for tokens without that label, too.
        team.client.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "other", "namespace": namespace},
                "spec": {
                    "serviceAccountName": ACCOUNT,
                    "containers": [{"name": "main", "image": TASK_IMAGE, "command": ["sleep", "600"]}],
                },
            }
        )
        team.client.wait_for("pods", "other", namespace, lambda pod: pod["status"].get("phase") == "Running")
