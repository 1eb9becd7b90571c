"""Something is deleted in the middle, or the run is cancelled: the Secret goes, and what is said of it is true."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runkeys.policies import VALIDATING_RULES, Account
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import Object
from testing.namespace import FINISHES_WHEN_TOLD, HELD_BACK, Team, condition, exposures, phase, python
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

REPEATED = 60
"""Seconds within which the operator's repetition, each 30 s, has come around."""
COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"


def operator_account(team: Team) -> str:
    return f"system:serviceaccount:{team.namespace}:runkeys"


def running(team: Team) -> Object:
    """A run whose container runs until it is told to finish; its Secret is there, and its status says so."""
    found = team.make_run(command=python(FINISHES_WHEN_TOLD))
    team.wait_running(found)
    assert team.live_secrets() == [team.object_name(found)]
    return found


def held_back(team: Team) -> Object:
    """A run whose Job and pod exist, and whose status says that its pod has no node."""
    found = team.make_run(pod=HELD_BACK)
    team.pod(found)
    return team.wait_condition("job", "Reconciling", "True", "Unschedulable")


def check_released(found: Object) -> None:
    assert condition(found, "SecretsReleased")["status"] == "True", found["status"]
    assert found["status"]["live"] == 0
    assert all("deleted" in item for item in exposures(found))


def check_the_operator_deleted_the_secret_first(team: Team, mark: int) -> None:
    calls = team.calls(mark, "delete secrets", "delete jobs", at_least=2)
    assert [(call.user, call.resource) for call in calls[:2]] == [
        (operator_account(team), "secrets"),
        (operator_account(team), "jobs"),
    ]


def check_the_operator_saw_to_it(team: Team, mark: int) -> None:
    """The operator did not wait for Kubernetes to collect the Secret, though that may have been faster."""
    calls = team.cluster.audit.events(
        mark, verb="delete", resource="secrets", namespace=team.namespace, user=operator_account(team)
    )
    assert [call.status for call in calls] in ([200], [404])


def delete_the_run(team: Team, found: Object) -> None:
    team.client.delete("workflowruns", "job", team.namespace)
    team.client.wait_gone("secrets", team.object_name(found), team.namespace)
    team.client.wait_gone("jobs", team.object_name(found), team.namespace)


# the run


def test_a_run_that_is_deleted_takes_its_secret_along(team: Team, node: Cluster) -> None:
    found, mark = running(team), node.audit.mark()
    delete_the_run(team, found)
    assert team.secret_story() == ["made", "gone"]
    wait_until("the operator to be done", lambda: "secret deleted" in team.operator.text())
    check_the_operator_saw_to_it(team, mark)


def test_control_without_the_right_to_delete_it_only_kubernetes_does(team: Team, node: Cluster) -> None:
    found, mark = running(team), node.audit.mark()
    with team.without_right("delete", "secrets"):
        delete_the_run(team, found)
        assert team.secret_story() == ["made", "gone"]
        assert [call.user for call in team.calls(mark, "delete secrets", at_least=1)] == [COLLECTOR]
        with pytest.raises(AssertionError):
            check_the_operator_saw_to_it(team, mark)


def test_a_run_that_is_deleted_before_its_pod_has_a_node(team: Team) -> None:
    found = held_back(team)
    delete_the_run(team, found)
    assert team.secret_story() == []


def test_a_finished_run_goes_when_its_time_to_live_is_over(team: Team, node: Cluster) -> None:
    mark = node.audit.mark()
    found = team.make_run(ttlSecondsAfterFinished=1)
    team.wait_phase("job", "Succeeded")
    team.client.wait_gone("workflowruns", "job", team.namespace)
    team.client.wait_gone("jobs", team.object_name(found), team.namespace)
    assert team.secret_story() == ["made", "gone"]
    calls = team.calls(mark, "delete secrets", "delete workflowruns", at_least=2)
    assert [(call.user, call.resource) for call in calls] == [
        (operator_account(team), "secrets"),
        (operator_account(team), "workflowruns"),
    ]


def test_control_without_a_time_to_live_the_run_stays(team: Team) -> None:
    team.make_run()
    team.wait_phase("job", "Succeeded")
    team.make_run("later", ttlSecondsAfterFinished=0)
    team.client.wait_gone("workflowruns", "later", team.namespace)
    check_released(team.run("job"))


# the run, while the operator is away, and without what it owns


def looking_at_deletions(team: Team, resource: str) -> list[str]:
    """The policies that have a say in deletions of ``resource``."""
    account = Account.service_account(team.namespace, "runkeys")
    return [
        name
        for name, make in VALIDATING_RULES.items()
        if any(
            "DELETE" in item["operations"] and resource in item["resources"]
            for item in make(account)["matchConstraints"]["resourceRules"]
        )
    ]


def leave_behind(team: Team, *names: str) -> None:
    """Delete runs and not what they own, while the operator is away."""
    team.operator.kill()
    with team.without_policies(*looking_at_deletions(team, "workflowruns")):
        for name in names:
            team.client.delete("workflowruns", name, team.namespace, propagationPolicy="Orphan")
            team.client.wait_gone("workflowruns", name, team.namespace)


def forge_job(team: Team, found: Object) -> str:
    """A Job that somebody else made, with the labels of the run's own; it starts no pod."""
    labels = team.client.get("jobs", team.object_name(found), team.namespace)["metadata"]["labels"]
    container = {"name": "main", "image": "localhost/none:1"}
    spec = {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    with team.without_policies("names"):  # which would refuse it
        team.client.create(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": "theirs", "namespace": team.namespace, "labels": labels},
                "spec": spec,
            }
        )
    return "theirs"


def test_a_run_deleted_without_its_job_while_the_operator_is_away_is_cleaned_up(
    team: Team, node: Cluster
) -> None:
    runs = [team.make_run(name, command=python(FINISHES_WHEN_TOLD)) for name in ("gone", "again")]
    for found in runs:
        team.wait_running(found)
    theirs, left = forge_job(team, runs[0]), sorted(team.object_name(found) for found in runs)
    leave_behind(team, "gone", "again")
    anew = team.make_run("again")

    # the twin: without the operator nobody takes them away, since nothing owns the Jobs any more
    jobs = [team.client.get("jobs", name, team.namespace) for name in left]
    assert [job["metadata"].get("ownerReferences") for job in jobs] == [None, None]
    assert sorted(team.live_secrets()) == left
    assert sorted(team.jobs()) == sorted([*left, theirs])

    mark = node.audit.mark()
    team.operator.start()
    for name in left:
        team.client.wait_gone("secrets", name, team.namespace)
        team.client.wait_gone("jobs", name, team.namespace)
        calls = team.calls(mark, "delete secrets", "delete jobs", name=name, at_least=2)
        assert [(call.user, call.resource) for call in calls[:2]] == [
            (operator_account(team), "secrets"),
            (operator_account(team), "jobs"),
        ]
    assert phase(team.wait_phase("again", "Succeeded", "Failed")) == "Succeeded"
    assert team.secret_story(team.object_name(anew)) == ["made", "gone"]
    assert theirs in team.jobs(), "the Job of somebody else is gone"


# what it depends on


def test_a_binding_deleted_before_the_pod_has_a_node(team: Team) -> None:
    found = held_back(team)
    team.client.delete("secretbindings", "keys", team.namespace)
    team.let_go(found)
    found = team.wait_condition("job", "Stalled", "True", "BindingNotFound")
    assert (team.secret_story(), found["status"]["live"]) == ([], 0)


def test_a_binding_deleted_while_the_task_runs(team: Team) -> None:
    found = running(team)
    team.client.delete("secretbindings", "keys", team.namespace)
    team.tell_to_finish(found)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    check_released(found)
    assert team.secret_story() == ["made", "gone"]


def test_a_source_deleted_while_the_task_runs(team: Team) -> None:
    found = running(team)
    team.client.delete("secrets", "source", team.namespace)
    team.tell_to_finish(found)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    check_released(found)
    assert team.secret_story() == ["made", "gone"]


def test_a_source_deleted_before_the_pod_has_a_node(team: Team) -> None:
    found = held_back(team)
    team.client.delete("secrets", "source", team.namespace)
    team.let_go(found)
    found = team.wait_condition("job", "Stalled", "True", "SourceNotFound")
    assert team.secret_story() == []

    team.client.patch("workflowruns", "job", team.namespace, {"spec": {"cancel": True}})
    check_released(team.wait_phase("job", "Cancelled"))
    assert team.secret_story() == []


def test_a_namespace_deleted_while_the_task_runs(
    new_team: TeamMaker, new_namespace: Callable[[], str], node: Cluster
) -> None:
    """It serves others, too. Of its own namespace, its account goes as well, and it with it."""
    other = new_namespace()
    here = new_team(others=(other,))
    team = Team(here.cluster, other, here.operator)
    team.make_source()
    team.make_binding()
    found = running(team)
    team.client.delete("namespaces", team.namespace)
    team.client.wait_gone("namespaces", team.namespace, None)
    assert team.secret_story(team.object_name(found)) == ["made", "gone"]
    assert node.etcd.keys(f"/registry/secrets/{team.namespace}/") == []
    assert team.operator.running, team.operator.text()


# what came of it


def test_a_job_deleted_by_somebody_loses_the_attempt(team: Team) -> None:
    found = running(team)
    team.client.delete("jobs", team.object_name(found), team.namespace)
    found = team.wait_phase("job", "Failed", "Succeeded")
    (task,) = found["status"]["tasks"]
    assert (task["state"], task["reason"]) == ("Failed", "AttemptLost")
    check_released(found)
    assert team.secret_story() == ["made", "gone"]
    assert team.jobs() == []


def test_a_pod_deleted_by_somebody_fails_the_run(team: Team) -> None:
    found = running(team)
    team.client.delete("pods", team.pod(found)["metadata"]["name"], team.namespace)
    found = team.wait_phase("job", "Failed", "Succeeded")
    assert (phase(found), found["status"]["tasks"][0]["reason"]) == ("Failed", "JobFailed")
    check_released(found)
    assert team.secret_story() == ["made", "gone"]


def test_a_secret_deleted_by_somebody_is_not_made_again(team: Team) -> None:
    found = running(team)
    with team.without_policies("names"):  # which would refuse it
        team.client.delete("secrets", team.object_name(found), team.namespace)
    team.tell_to_finish(found)
    check_released(team.wait_phase("job", "Succeeded", "Failed"))
    assert team.secret_story() == ["made", "gone"]


def test_a_foreign_finalizer_on_the_secret_is_told_until_it_is_gone(team: Team) -> None:
    found = running(team)
    name = team.object_name(found)

    def finalizers(names: list[str]) -> None:
        with team.without_policies("names"):  # which would refuse it
            team.client.patch("secrets", name, team.namespace, {"metadata": {"finalizers": names}})

    finalizers(["example.com/hold"])
    team.tell_to_finish(found)
    found = team.wait_condition("job", "SecretsReleased", "False", "HeldByFinalizer")
    assert "example.com/hold" in condition(found, "SecretsReleased")["message"]
    assert found["status"]["live"] == 1
    assert [item for item in exposures(found) if "deleted" in item] == []
    found = team.wait_phase("job", "Succeeded")
    assert condition(found, "SecretsReleased")["reason"] == "HeldByFinalizer"
    assert team.live_secrets() == [name]

    finalizers([])
    found = team.wait_condition("job", "SecretsReleased", "True", timeout=REPEATED)
    assert phase(found) == "Succeeded"
    check_released(found)
    assert team.live_secrets() == []


# cancel


def cancel(team: Team) -> Object:
    team.client.patch("workflowruns", "job", team.namespace, {"spec": {"cancel": True}})
    return team.wait_phase("job", "Cancelled", "Succeeded", "Failed")


def check_cancelled(team: Team, found: Object, story: list[str]) -> None:
    assert (phase(found), found["status"]["tasks"][0]["reason"]) == ("Cancelled", "Cancelled")
    check_released(found)
    assert team.secret_story() == story
    team.client.wait_gone("jobs", team.object_name(found), team.namespace)
    wait_until("the pod to be gone", lambda: team.client.list("pods", team.namespace) == [])


def test_cancelled_before_it_starts(new_team: TeamMaker, node: Cluster) -> None:
    mark = node.audit.mark()
    team = new_team(start=False)
    team.make_source()
    team.make_binding()
    team.make_run()
    team.client.patch("workflowruns", "job", team.namespace, {"spec": {"cancel": True}})
    team.operator.start()
    check_cancelled(team, team.wait_phase("job", "Cancelled", "Succeeded", "Failed"), [])
    assert team.calls(mark, "create jobs", "create pods") == []


def test_cancelled_while_its_pod_waits_for_a_node(team: Team) -> None:
    held_back(team)
    check_cancelled(team, cancel(team), [])


def test_cancelled_while_it_runs(team: Team, node: Cluster) -> None:
    running(team)
    mark = node.audit.mark()
    check_cancelled(team, cancel(team), ["made", "gone"])
    check_the_operator_deleted_the_secret_first(team, mark)
