"""The operator is gone for good: Kubernetes alone takes a run's Secret away, by the owner references that it carries.

The Job's own time to live is a quarter of an hour. The tests shorten it from outside, and with it the time that
passes, not the mechanism.
"""

from __future__ import annotations

import pytest

from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.namespace import FINISHES_WHEN_TOLD, Team, python

pytestmark = pytest.mark.e2e

COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"
TTL_CONTROLLER = "system:serviceaccount:kube-system:ttl-after-finished-controller"


def orphaned(team: Team, **task: object) -> Object:
    """A run whose container runs, and whose Secret is there; the operator has been killed."""
    found = team.make_run(command=python(FINISHES_WHEN_TOLD), task=dict(task))
    team.wait_running(found)
    team.operator.kill()
    assert team.live_secrets() == [team.object_name(found)]
    return found


def shorten_the_time_to_live(team: Team, found: Object) -> Object:
    """Bring the end of the Job's time to live near; returns the Job as it was before."""
    job = team.client.get("jobs", team.object_name(found), team.namespace)
    change = {"spec": {"ttlSecondsAfterFinished": 1}}
    with team.without_policies("names"):  # which would refuse it
        team.client.patch("jobs", team.object_name(found), team.namespace, change)
    return job


def bring_the_deadline_near(team: Team, found: Object) -> None:
    """End the time of a pod that runs: a deadline of seconds from the start would be over before a slow start."""
    pod = team.pod(found)
    assert pod["spec"]["activeDeadlineSeconds"] == 1234
    team.client.patch("pods", pod["metadata"]["name"], team.namespace, {"spec": {"activeDeadlineSeconds": 1}})


def disown(team: Team, found: Object) -> None:
    """Take the owner reference off the Secret."""
    change = {"metadata": {"ownerReferences": None}}
    with team.without_policies("names"):  # which would refuse it
        team.client.patch("secrets", team.object_name(found), team.namespace, change)


def check_kubernetes_removed(team: Team, found: Object, mark: int, *, after: str, by: str) -> None:
    """The Job went by ``by`` at the call ``after``, then its Secret by the garbage collector."""
    team.client.wait_gone("secrets", team.object_name(found), team.namespace)
    calls = team.calls(mark, after, "delete secrets", at_least=2)
    assert [(call.user, f"{call.verb} {call.resource}") for call in calls] == [
        (by, after),
        (COLLECTOR, "delete secrets"),
    ]
    assert team.secret_story() == ["made", "gone"]


def test_a_secret_goes_with_its_job_after_the_pods_deadline(team: Team, node: Cluster) -> None:
    found, mark = orphaned(team, activeDeadlineSeconds=1234), node.audit.mark()
    job = shorten_the_time_to_live(team, found)

    # the bound that holds without us: the pod's own deadline, then the Job's time to live
    assert job["spec"]["ttlSecondsAfterFinished"] == 900
    assert job["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 1234
    assert job["spec"]["backoffLimit"] == 0

    bring_the_deadline_near(team, found)
    ended = team.wait_pod(found, lambda pod: pod["status"]["phase"] == "Failed")
    assert ended["status"]["reason"] == "DeadlineExceeded"
    check_kubernetes_removed(team, found, mark, after="delete jobs", by=TTL_CONTROLLER)


def test_a_task_without_a_deadline_of_its_own_has_the_bindings(team: Team) -> None:
    """However long the task would run: no pod with a secret is without a deadline."""
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"maxLifetimeSeconds": 77}})
    found = orphaned(team)
    job = team.client.get("jobs", team.object_name(found), team.namespace)
    assert job["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 77
    assert team.pod(found)["spec"]["activeDeadlineSeconds"] == 77


def test_a_secret_goes_with_its_run(team: Team, node: Cluster) -> None:
    found, mark = orphaned(team), node.audit.mark()
    team.client.delete("workflowruns", "job", team.namespace)
    check_kubernetes_removed(team, found, mark, after="delete jobs", by=COLLECTOR)


def test_control_without_its_owner_reference_the_secret_stays(team: Team, node: Cluster) -> None:
    found, mark = orphaned(team), node.audit.mark()
    name = team.object_name(found)
    job = team.client.get("jobs", name, team.namespace)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
    control = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "control", "namespace": team.namespace, "ownerReferences": [owner]},
    }
    team.client.create(control)
    disown(team, found)

    shorten_the_time_to_live(team, found)
    team.tell_to_finish(found)
    # what the Job still owns has been collected, so that the collector has been here
    team.client.wait_gone("jobs", name, team.namespace)
    team.client.wait_gone("secrets", "control", team.namespace)
    assert team.live_secrets() == [name]
    assert len(team.calls(mark, "delete secrets", at_least=1)) == 1

    # nobody else would ever take it away; the operator does, once it is back
    team.operator.start()
    team.wait_phase("job", "Failed", "Succeeded")
    assert team.live_secrets() == []
