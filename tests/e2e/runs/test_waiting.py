"""A pod that waits for a node, for its image, or to be made at all: no Secret waits with it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from runkeys.names import SECRET_TYPE
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import Object
from testing.namespace import FINISHES_WHEN_TOLD, HELD_BACK, Team, condition, phase, python

pytestmark = pytest.mark.e2e

SECRET_AFTER_NODE = ["create jobs", "create pods/binding", "create secrets", "delete secrets"]


def check_secret_came_after_the_node(team: Team, mark: int) -> None:
    calls = team.calls(mark, *SECRET_AFTER_NODE, at_least=len(SECRET_AFTER_NODE))
    assert [f"{call.verb} {call.resource}" for call in calls] == SECRET_AFTER_NODE


def waits_for(team: Team, name: str, reason: str) -> Object:
    """The run once it says that it waits for ``reason``; its one task tells the same as its conditions."""
    # Whether somebody has to do something about it.
    kind = "Reconciling" if reason == "Unschedulable" else "Stalled"
    found = team.wait_condition(name, kind, "True", reason)
    (task,) = found["status"]["tasks"]
    assert (phase(found), task["state"], task["reason"]) == ("Pending", "Waiting", reason)
    assert condition(found, kind)["message"] == task["message"]
    return found


def test_a_pod_without_a_node_has_no_secret(team: Team, node: Cluster) -> None:
    mark, label = node.audit.mark(), f"runkeys.test/{team.namespace}"
    team.make_run(pod={"nodeSelector": {label: "yes"}})
    found = waits_for(team, "job", "Unschedulable")
    assert "didn't match Pod's node affinity/selector" in condition(found, "Reconciling")["message"]
    assert condition(found, "Stalled")["status"] == "False"
    assert (team.secret_story(), found["status"]["live"]) == ([], 0)

    machine = team.cluster.node_name
    team.client.patch("nodes", machine, None, {"metadata": {"labels": {label: "yes"}}})
    try:
        team.wait_phase("job", "Succeeded")
    finally:
        team.client.patch("nodes", machine, None, {"metadata": {"labels": {label: None}}})
    check_secret_came_after_the_node(team, mark)
    assert team.secret_story() == ["made", "gone"]


def test_control_a_secret_that_was_there_before_the_node_is_seen(team: Team, node: Cluster) -> None:
    mark = node.audit.mark()
    found = team.make_run(pod=HELD_BACK)
    team.pod(found)
    early = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": SECRET_TYPE,  # the operator may delete no other
        "metadata": {"name": team.object_name(found), "namespace": team.namespace},
        "stringData": {"SECRET_API_TOKEN": team.value},
    }
    with team.without_policies("names"):  # which would refuse it
        team.client.create(early)
    team.let_go(found)
    team.wait_phase("job", "Succeeded")
    with pytest.raises(AssertionError):
        check_secret_came_after_the_node(team, mark)


def test_a_pod_that_cannot_start_loses_its_secret_at_the_start_deadline(team: Team, node: Cluster) -> None:
    mark = node.audit.mark()
    team.make_run(
        task={"startDeadlineSeconds": 20},
        pod={"containers": [{"name": "main", "image": "localhost/nowhere:1", "imagePullPolicy": "Never"}]},
    )
    found = team.wait_phase("job", "Failed", "Succeeded")
    (task,) = found["status"]["tasks"]
    assert (task["state"], task["reason"]) == ("Failed", "StartDeadlineExceeded")
    assert "container main did not start within 20 s (ErrImageNeverPull: " in task["message"]
    assert condition(found, "SecretsReleased")["status"] == "True"
    assert team.secret_story() == ["made", "gone"]

    # the Secret does not wait for the pod to go
    team.client.wait_gone("jobs", team.object_name(found), team.namespace)
    calls = team.calls(mark, "create secrets", "delete secrets", "delete jobs", at_least=3)
    assert [f"{call.verb} {call.resource}" for call in calls] == [
        "create secrets",
        "delete secrets",
        "delete jobs",
    ]


def test_control_without_the_right_to_delete_the_secret_stays_and_the_run_does_not_end(
    team: Team, node: Cluster
) -> None:
    mark = node.audit.mark()
    with team.without_right("delete", "secrets"):
        found = team.make_run(
            task={"startDeadlineSeconds": 20},
            pod={
                "containers": [{"name": "main", "image": "localhost/nowhere:1", "imagePullPolicy": "Never"}]
            },
        )
        name = team.object_name(found)
        wait_until(
            "a refused deletion",
            lambda: any(
                call.status == 403
                for call in node.audit.events(
                    mark, verb="delete", resource="secrets", namespace=team.namespace
                )
            ),
        )
        assert team.live_secrets() == [name]
        assert condition(team.run(), "SecretsReleased").get("status") != "True"
        assert phase(team.run()) not in ("Failed", "Succeeded")
    found = team.wait_phase("job", "Failed")
    assert condition(found, "SecretsReleased")["status"] == "True"
    assert team.secret_story() == ["made", "gone"]


def _quota(team: Team) -> Callable[[], None]:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": team.namespace},
        "spec": {"hard": {"pods": "0"}},
    }
    team.client.create(quota)
    team.client.wait_for(
        "resourcequotas", "none", team.namespace, lambda item: item.get("status", {}).get("hard")
    )
    return lambda: team.client.delete("resourcequotas", "none", team.namespace)


def _pod_security(team: Team) -> Callable[[], None]:
    def enforce(level: str | None) -> None:
        labels = {"pod-security.kubernetes.io/enforce": level}
        team.client.patch("namespaces", team.namespace, None, {"metadata": {"labels": labels}})

    enforce("restricted")
    return lambda: enforce(None)


def _no_service_account(team: Team) -> Callable[[], None]:
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "runner", "namespace": team.namespace},
    }

    def mend() -> None:
        team.client.create(account)

    return mend


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        pytest.param(_quota, "exceeded quota: none", id="quota"),
        pytest.param(_pod_security, 'violates PodSecurity "restricted:latest"', id="pod-security"),
        pytest.param(_no_service_account, 'serviceaccount "runner" not found', id="service-account"),
    ],
)
def test_a_pod_that_cannot_be_made_is_reported_and_made_when_that_is_mended(
    team: Team, node: Cluster, trouble: Callable[[Team], Callable[[], None]], says: str
) -> None:
    mark = node.audit.mark()
    if trouble is not _no_service_account:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "runner"}}
        team.client.create(account, team.namespace)
    mend = trouble(team)
    team.make_run(serviceAccountName="runner")
    found = waits_for(team, "job", "PodNotCreated")
    message = condition(found, "Stalled")["message"]
    assert says in message
    assert team.object_name(found) in message
    assert team.secret_story() == []

    # and people see it where they look first
    (event,) = (
        item
        for item in team.client.list("events", team.namespace, fields="involvedObject.kind=WorkflowRun")
        if item["reason"] == "PodNotCreated"
    )
    assert (event["type"], event["message"]) == ("Warning", message)

    mend()
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert condition(found, "Stalled")["status"] == "False"
    check_secret_came_after_the_node(team, mark)


def test_a_pod_that_waits_says_so_before_its_secret_is_due(team: Team) -> None:
    """A pod that is held back by somebody else's gate is no failure, however long it takes."""
    # Long enough to start in on a busy machine, and shorter than it waits for its node.
    deadline = 20
    task = {"startDeadlineSeconds": deadline}
    found = team.make_run(pod=HELD_BACK, command=python(FINISHES_WHEN_TOLD), task=task)
    waits_for(team, "job", "Unschedulable")
    time.sleep(deadline + 1)
    team.let_go(found)
    team.wait_running(found)
    team.tell_to_finish(found)
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"
