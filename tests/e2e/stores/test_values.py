"""Values of a store are read when the pod has a node, as its own service account, and the login ends at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import Object
from testing.examples import stores
from testing.namespace import HELD_BACK, Team, condition, phase, python
from testing.operators import RELEASE
from testing.people import may_use
from testing.stores.openbao import OpenBao, store
from tests.e2e.delivery.test_main_path import places_of
from tests.e2e.pods.conftest import asking, wait_asking, wait_ended
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.stores.conftest import ACCOUNT, ARGUMENTS, PODS_SETS, SETS, StoreTeam, binding_of

pytestmark = pytest.mark.e2e


def of(team: Team, bao: OpenBao) -> list[Object]:
    """The logins of the team's pods."""
    return [
        item
        for item in bao.audited("response")
        if item["request"]["path"] == "auth/jwt/login"
        and item["request"]["data"]["role"] == team.namespace
        and "auth" in (item.get("response") or {})
    ]


def read(team: Team, bao: OpenBao) -> list[str]:
    """What the team's pods asked the store for after their logins, in order."""
    tokens = {item["response"]["auth"]["client_token"] for item in of(team, bao)}
    found = [item["request"] for item in bao.audited() if item["request"].get("client_token") in tokens]
    return [f"{item['operation']} {item['path']}" for item in found]


def team_binding(team: StoreTeam, **spec: Any) -> Object:
    """A binding with the team's value."""
    return binding_of(team, team.entry(), **spec)


def test_a_run_has_its_value_and_the_store_knows_the_pod(team: StoreTeam) -> None:
    team.client.create(team_binding(team))
    team.make_store_run(pod=HELD_BACK)
    run = team.run()
    name = team.pod(run)["metadata"]["name"]
    assert of(team, team.bao) == [], "nobody logs in before the pod has a node"

    team.let_go(run)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.output(found) == f"sha256 {team.digest}\n"
    assert team.secret_story() == ["made", "gone"]

    (login,) = of(team, team.bao)
    auth = login["response"]["auth"]
    assert auth["display_name"] == f"jwt-system:serviceaccount:{team.namespace}:{ACCOUNT}"
    assert auth["metadata"]["pod"] == name
    assert read(team, team.bao) == [f"read {team.path}", "update auth/token/revoke-self"]
    assert auth["accessor"] not in team.bao.accessors(), "the login is revoked"


def test_both_versions_of_kv_and_a_field_that_is_no_text(team: StoreTeam) -> None:
    old = f"old/{team.namespace}/api"
    team.bao.call("POST", old, {"token": "of-version-1", "data": "d", "list": ["ü", 1]})
    entries = (
        team.entry("new"),
        team.entry("count", field="count"),
        team.entry("old", path=old),
        team.entry("data", path=old, field="data"),
        team.entry("list", path=old, field="list"),
    )
    team.client.create(binding_of(team, *entries))
    names = ["new", "count", "old", "data", "list"]
    code = (
        "import os, hashlib\n"
        f"for n in {names}: print(hashlib.sha256(os.environ['SECRET_' + n.upper()].encode()).hexdigest())"
    )
    task = {"secrets": [{"name": name, "secret": name} for name in names]}
    team.make_store_run(task=task, command=python(code))
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    expected = [team.value, "3", "of-version-1", "d", '["ü",1]']
    assert team.output(found).split() == [hashlib.sha256(text.encode()).hexdigest() for text in expected]
    # one login and one read of each path
    assert len(of(team, team.bao)) == 1
    assert read(team, team.bao) == [f"read {team.path}", f"read {old}", "update auth/token/revoke-self"]


def test_delivered_sealed_the_value_is_never_in_etcd(
    sealed_store_team: Callable[..., StoreTeam], node: Cluster
) -> None:
    team = sealed_store_team()
    mark = node.audit.mark()
    team.client.create(team_binding(team, delivery="Sealed"))
    team.make_store_run()
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.output(found) == f"sha256 {team.digest}\n"

    assert places_of(team, node) == set()
    assert team.secret_story() == [], "no Secret was made at any time"
    check_tokens_are_nowhere(team, node, mark)


def check_tokens_are_nowhere(team: StoreTeam, node: Cluster, mark: int) -> None:
    """Neither the store's tokens nor the pods' JWTs are in etcd, in the operator's log or in the audit log."""
    tokens = {
        token
        for item in of(team, team.bao)
        for token in (item["request"]["data"]["jwt"], item["response"]["auth"]["client_token"])
    }
    assert len(tokens) >= 2
    log = team.operator.log.read_bytes()
    for token in tokens:
        forms = [token.encode(), token.encode()[-40:]]
        assert not node.etcd.find(*forms, since=team.since)
        assert [form for form in forms if form in log] == []
        assert [str(event) for form in forms for event in node.audit.find(form, mark)] == []
    # The search finds one that is there.
    planted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "planted-token"}}
    planted["metadata"]["namespace"] = team.namespace  # type: ignore[index]
    token = min(tokens)
    team.client.create({**planted, "data": {"value": token}})
    assert node.etcd.find(token.encode(), since=team.since)


def test_by_a_secret_the_tokens_are_nowhere_either(team: StoreTeam, node: Cluster) -> None:
    mark = node.audit.mark()
    team.client.create(team_binding(team))
    team.make_store_run()
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"
    check_tokens_are_nowhere(team, node, mark)
    assert team.value not in team.operator.text()


def test_a_pod_that_asks_has_its_value(
    sealed_store_team: Callable[..., StoreTeam],
    unsealer: None,  # noqa: ARG001
    node: Cluster,
) -> None:
    team = sealed_store_team("--pods", sets=PODS_SETS)
    mark = node.audit.mark()
    may_use(team, f"system:serviceaccount:{team.namespace}:{ACCOUNT}", "keys", "use-keys-by-pods")
    team.client.create(team_binding(team, delivery="Sealed", access=[{"pods": {}}]))
    wait_asking(team)
    team.client.create(asking(team))
    found = wait_ended(team, "task")
    assert found["status"]["phase"] == "Succeeded", found["status"]
    assert team.client.logs("task", team.namespace) == f"sha256 {team.digest}\n"

    (login,) = of(team, team.bao)
    assert login["response"]["auth"]["metadata"]["pod_uid"] == found["metadata"]["uid"]
    assert places_of(team, node) == set()
    check_tokens_are_nowhere(team, node, mark)


def test_the_statuses_say_that_it_can_be_read(team: StoreTeam) -> None:
    team.client.create(team_binding(team))
    team.client.wait_for(
        *("secretstores", team.namespace, None),
        lambda item: condition(item, "Ready").get("status") == "True",
    )
    team.client.wait_for(
        *("secretbindings", "keys", team.namespace),
        lambda item: condition(item, "Ready").get("status") == "True",
    )
    assert of(team, team.bao) == [], "without a pod nobody logs in"


def test_the_example(new_team: TeamMaker, own_bao: OpenBao) -> None:
    team = new_team(*ARGUMENTS, sets=SETS, sources=())
    own_bao.call("POST", "kv/data/team-a/api", {"data": {"token": team.value}})
    own_bao.policy("team-a", "kv/data/team-a/*")
    subject = f"system:serviceaccount:{team.namespace}:runner"
    own_bao.role("team-a-runner", "team-a", bound_subject=subject)
    made = stores(team.namespace, RELEASE, store(own_bao, team.namespace))
    labels = {"labels": made[0]["spec"]["namespaces"]["matchLabels"]}
    team.client.patch("namespaces", team.namespace, None, {"metadata": labels})
    try:
        for manifest in made:
            team.client.create(manifest)
        found = team.wait_phase("hello-store", "Succeeded", "Failed")
        assert phase(found) == "Succeeded", found["status"]
        assert team.output(found) == "SECRET_API_TOKEN is set\n"
    finally:
        team.client.delete("secretstores", team.namespace)


def test_the_store_may_ask_the_api_server_instead(
    store_team: Callable[..., StoreTeam], own_bao: OpenBao, node: Cluster
) -> None:
    team = store_team(own_bao, method="kubernetes", mount="cluster")
    assert node.ca_file is not None
    reviewer = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reviewer"}}
    team.client.create(reviewer, team.namespace)
    name = f"{team.namespace}-reviewer"
    team.client.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:auth-delegator",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "reviewer", "namespace": team.namespace}],
        }
    )
    try:
        own_bao.call("POST", "sys/auth/cluster", {"type": "kubernetes"})
        config = {
            "kubernetes_host": node.server,
            "kubernetes_ca_cert": node.ca_file.read_text(),
            "token_reviewer_jwt": team.client.token(team.namespace, "reviewer"),
        }
        own_bao.call("POST", "auth/cluster/config", config)
        role = {
            "bound_service_account_names": ACCOUNT,
            "bound_service_account_namespaces": team.namespace,
            "audience": "bao",
            "token_policies": [team.namespace],
            "token_ttl": 60,
        }
        own_bao.call("POST", f"auth/cluster/role/{team.namespace}", role)
        team.client.create(team_binding(team))
        team.make_store_run()
        found = team.wait_phase("job", "Succeeded", "Failed")
        assert phase(found) == "Succeeded", found["status"]
        assert team.output(found) == f"sha256 {team.digest}\n"
        root_only = 1
        wait_until("the login to be revoked", lambda: len(own_bao.accessors()) == root_only)
    finally:
        team.client.delete("clusterrolebindings", name)
