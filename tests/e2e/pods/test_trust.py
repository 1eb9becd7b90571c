"""What stands behind the policies: a pod that they did not admit gets nothing, and a right is asked about again."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta

import pytest

from runkeys.names import PUBLIC_KEYS
from runkeys_operator.checks.admission import Record
from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.namespace import HELD_BACK, Team
from testing.people import may_not_use
from tests.e2e.pods.conftest import ACCOUNT, asking, events_of, wait_asking, wait_ended
from tests.e2e.pods.test_refusals import injected, stamp_of, with_spec

pytestmark = pytest.mark.e2e


def denial_of(team: Team, name: str) -> str:
    """Why the pod's request was denied; empty while it is not."""
    for item in team.client.list("podcertificaterequests", team.namespace):
        if item["spec"]["podName"] == name:
            for condition in item.get("status", {}).get("conditions") or []:
                if condition["type"] == "Denied":
                    return str(condition["message"])
    return ""


def let_go(team: Team, name: str) -> None:
    team.client.patch("pods", name, team.namespace, {"spec": {"schedulingGates": None}})


def test_a_pod_with_a_forged_stamp_from_before_the_policies_gets_nothing(team: Team) -> None:
    # Whom the pod was created by is what a rule relies on.
    rule = {"pods": {"createdBy": ["system:serviceaccount:argo:argo"]}}
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": [rule]}})
    forged = copy.deepcopy(with_spec(injected(team), **HELD_BACK))
    forged["metadata"]["name"] = "forged"
    stamp_of(forged)["runkeys.dev/created-by"] = "system:serviceaccount:argo:argo"
    with team.without_policies("asking", "asking-frozen", "inject", believed=False):
        team.client.create(forged)
    wait_asking_again(team)
    let_go(team, "forged")
    wait_until("the request to be denied", lambda: bool(denial_of(team, "forged")))
    assert "policies are not known to have been in force" in denial_of(team, "forged")


def wait_asking_again(team: Team) -> None:
    """The policies are back, and the operator has looked."""
    team.client.patch("secretbindings", "keys", team.namespace, {"metadata": {"labels": {"looked": "again"}}})
    wait_asking(team)


def test_control_the_same_pod_admitted_by_the_policies_has_its_value(team: Team) -> None:
    user = team.client.request(
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        body={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
    )["status"]["userInfo"]["username"]
    rule = {"pods": {"createdBy": [user]}}
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": [rule]}})
    team.client.create(asking(team, "honest"))
    assert wait_ended(team, "honest")["status"]["phase"] == "Succeeded"


def test_a_right_that_is_withdrawn_before_the_pod_has_a_node_counts(team: Team) -> None:
    team.client.create(with_spec(asking(team), **HELD_BACK))
    account = f"system:serviceaccount:{team.namespace}:{ACCOUNT}"
    may_not_use(team, account, "keys", "use-keys-by-pods")
    let_go(team, "task")

    def told() -> list[Object]:
        return [item for item in events_of(team, "task") if item["reason"] == "UseDenied"]

    wait_until("an Event", lambda: bool(told()))
    message = told()[0]["message"]
    assert f"{account} may not use SecretBinding keys" in message
    assert f"--serviceaccount={team.namespace}:{ACCOUNT}" in message, "the command that allows it"
    assert team.client.get("pods", "task", team.namespace)["status"]["phase"] == "Pending"


def wait_looked(team: Team, pod: Object) -> None:
    """The operator has looked at the policies since the pod was created, and so knows that they were there."""
    created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])

    def looked() -> bool:
        kept = team.client.get("configmaps", PUBLIC_KEYS, team.namespace)["metadata"].get("annotations") or {}
        record = Record.parse(kept.get("runkeys.dev/pod-policies-in-force", ""))
        return record is not None and record.seen > created + timedelta(seconds=2)

    wait_until("the operator to look at the policies", looked)


def test_without_the_policies_on_authors_of_bindings_no_pod_is_answered(team: Team) -> None:
    team.client.create(with_spec(asking(team), **HELD_BACK))
    with team.without_policies("bindings"):
        wait_until("the operator to miss it", lambda: "runkeys-bindings." in team.operator.text())
        let_go(team, "task")
        wait_until(
            "an Event",
            lambda: any(item["reason"] == "PoliciesMissing" for item in events_of(team, "task")),
        )
        assert team.client.get("pods", "task", team.namespace)["status"]["phase"] == "Pending"
    assert wait_ended(team, "task")["status"]["phase"] == "Succeeded", "it goes on when they are back"


def test_without_the_policies_no_pod_is_answered(team: Team) -> None:
    held = team.client.create(with_spec(asking(team), **HELD_BACK))
    # What is answered has the operator look again soon.
    team.client.create(asking(team, "other"))
    wait_ended(team, "other")
    wait_looked(team, held)
    with team.without_policies("asking", believed=False):
        # It looks at them every 5 seconds at most, and at the latest when it resyncs.
        wait_until("the operator to miss it", lambda: "runkeys-asking." in team.operator.text())
        let_go(team, "task")
        wait_until(
            "an Event",
            lambda: any(item["reason"] == "PoliciesMissing" for item in events_of(team, "task")),
        )
        assert team.client.get("pods", "task", team.namespace)["status"]["phase"] == "Pending"
    assert wait_ended(team, "task")["status"]["phase"] == "Succeeded", "it goes on when they are back"
