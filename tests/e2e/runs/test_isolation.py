"""Runs do not meet: not those of another namespace, nor pods and Jobs that somebody else made to look like ours.

Admission policies refuse such forgeries; here is what stands behind them, so they are made while a policy is away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runkeys.names import object_labels
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import PATIENCE, Object
from testing.namespace import (
    CHECKS_ITS_VARIABLE,
    HELD_BACK,
    TASK_IMAGE,
    Team,
    condition,
    make_namespace,
    phase,
    python,
    team_in,
)
from testing.operators import install_crds
from tests.e2e.conftest import OwnNode
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e


def digest(team: Team) -> str:
    return f"sha256 {hashlib.sha256(team.value.encode()).hexdigest()}\n"


def test_runs_of_the_same_names_in_two_namespaces_each_get_their_own(
    new_team: TeamMaker, new_namespace: Callable[[], str], node: Cluster
) -> None:
    """One operator serves both, so that all it remembers could be mixed up."""
    other = new_namespace()
    here = new_team(others=(other,))
    there = Team(here.cluster, other, here.operator)
    for team in (here, there):
        team.make_source()
        team.make_binding()
    runs = {team.namespace: team.make_run() for team in (here, there)}
    for team in (here, there):
        found = team.wait_phase("job", "Succeeded", "Failed")
        assert phase(found) == "Succeeded", found["status"]
        assert team.output(found) == digest(team)
        assert team.secret_story() == ["made", "gone"]
        where = node.etcd.find(team.value.encode(), since=min(here.since, there.since))
        assert set(where) == {
            f"/registry/secrets/{team.namespace}/source",
            f"/registry/secrets/{team.namespace}/{team.object_name(runs[team.namespace])}",
        }


def test_a_binding_of_another_namespace_admits_nobody(
    new_team: TeamMaker, new_namespace: Callable[[], str]
) -> None:
    other = new_namespace()
    here = new_team(others=(other,))
    there = Team(here.cluster, other, here.operator)
    here.make_source()
    here.make_binding()
    there.make_run()
    there.wait_condition("job", "Stalled", "True", "BindingNotFound")
    here.make_run()
    here.wait_phase("job", "Succeeded")
    assert (there.jobs(), there.secret_story()) == ([], [])


# forgeries

LABELS = "batch.kubernetes.io"


def waiting_run(team: Team) -> tuple[Object, Object]:
    """A run whose pod has no node, so that no Secret is due, and its Job."""
    found = team.make_run(pod=HELD_BACK)
    team.pod(found)
    team.wait_condition("job", "Reconciling", "True", "Unschedulable")
    return found, team.client.get("jobs", team.object_name(found), team.namespace)


def our_labels(found: Object) -> dict[str, str]:
    metadata = found["metadata"]
    return dict(object_labels(metadata["name"], metadata["uid"], "work"))


def controller(kind: str, owner: Object) -> dict[str, Any]:
    metadata = owner["metadata"]
    version = "batch/v1" if kind == "Job" else "runkeys.dev/v1alpha1"
    return {
        "apiVersion": version,
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def pod_spec(secret_name: str) -> dict[str, Any]:
    """A pod that starts as soon as a Secret of that name exists."""
    reference = {"secretKeyRef": {"name": secret_name, "key": "SECRET_API_TOKEN"}}
    return {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 600,  # without one it would be given nothing
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "main",
                "image": TASK_IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "command": python(CHECKS_ITS_VARIABLE),
                "env": [{"name": "SECRET_API_TOKEN", "valueFrom": reference}],
            }
        ],
    }


def forge_pod(team: Team, found: Object, **metadata: Any) -> Object:
    """A pod on a node, made by somebody else, that waits for the Secret of the run's attempt."""
    name = team.object_name(found)
    metadata = {
        "name": f"{name}-forge",
        "namespace": team.namespace,
        **metadata,
        "labels": our_labels(found) | metadata.get("labels", {}),
    }
    # From the start: of two pods without a node the Job controller removes the newer one, and this would be that one.
    node = team.client.list("nodes")[0]["metadata"]["name"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**pod_spec(name), "nodeName": node},
    }
    with team.without_policies("pods"):  # which would refuse it
        return team.client.create(pod)


def forge_job(team: Team, name: str, metadata: dict[str, Any]) -> Object:
    """A Job made by somebody else; its pod waits for a Secret of the Job's name."""
    template = {"metadata": {"labels": metadata.get("labels", {})}, "spec": pod_spec(name)}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": team.namespace, **metadata},
        "spec": {"backoffLimit": 0, "template": template},
    }
    with team.without_policies("names"):  # which would refuse it
        return team.client.create(job)


def on_node(team: Team, name: str) -> Object:
    return team.client.wait_for("pods", name, team.namespace, lambda pod: pod["spec"].get("nodeName"))


def check_nothing_came_of_it(team: Team, pod_name: str) -> None:
    """The pod has a node and nothing else: a run made after it went all the way, and only that had a Secret."""
    on_node(team, pod_name)
    witness = team.make_run("witness")
    team.wait_phase("witness", "Succeeded")
    assert team.secret_story() == ["made", "gone"]
    assert team.secret_story(team.object_name(witness)) == ["made", "gone"]
    pod = team.client.get("pods", pod_name, team.namespace)
    started = [item.get("containerID") for item in pod["status"].get("containerStatuses", [])]
    assert (pod["status"]["phase"], any(started)) == ("Pending", False)


@pytest.fixture
def swept(new_team: TeamMaker) -> Team:
    """A team whose operator looks at everything each second, so that what its watch ignores is looked at too."""
    team = new_team("--sweep-seconds", "1")
    team.make_source()
    team.make_binding()
    return team


def test_a_pod_with_our_labels_is_not_observed(swept: Team) -> None:
    found, _ = waiting_run(swept)
    pod = forge_pod(swept, found)
    check_nothing_came_of_it(swept, pod["metadata"]["name"])
    assert condition(swept.run(), "Stalled")["reason"] == "Unschedulable"


def test_a_pod_that_claims_our_job_is_not_observed(swept: Team) -> None:
    found, job = waiting_run(swept)
    pod = forge_pod(swept, found, ownerReferences=[controller("Job", job)])
    check_nothing_came_of_it(swept, pod["metadata"]["name"])


def test_control_a_pod_that_the_job_controller_counts_is_a_pod_of_the_job(swept: Team) -> None:
    """Labels, owner and name as the Job controller gives them: by the rules of Kubernetes this is the Job's pod.

    So without the policy whoever may create pods in a namespace could have the values of its runs: only at admission
    can the two be told apart.
    """
    found, job = waiting_run(swept)
    uid = job["metadata"]["uid"]
    pod = forge_pod(
        swept,
        found,
        labels={f"{LABELS}/controller-uid": uid, f"{LABELS}/job-name": job["metadata"]["name"]},
        ownerReferences=[controller("Job", job)],
    )
    name = swept.object_name(found)  # it may be gone by now
    wait_until("the Secret to be made", lambda: "made" in swept.secret_story(name))
    with pytest.raises(AssertionError):
        check_nothing_came_of_it(swept, pod["metadata"]["name"])


def test_a_job_that_claims_our_run_is_not_observed(swept: Team) -> None:
    found, _ = waiting_run(swept)
    name = "rk-job-work-2-0123456789"
    metadata = {"labels": our_labels(found), "ownerReferences": [controller("WorkflowRun", found)]}
    forge_job(swept, name, metadata)
    (pod,) = wait_pods(swept, name)
    check_nothing_came_of_it(swept, pod)
    assert swept.client.get("jobs", name, swept.namespace)


def wait_pods(team: Team, job: str) -> list[str]:
    for _, pod in team.client.watch(
        "pods", team.namespace, timeout=PATIENCE, labels=f"batch.kubernetes.io/job-name={job}"
    ):
        return [pod["metadata"]["name"]]
    raise AssertionError(f"Job {job} has no pod after {PATIENCE:g} s")


# a Job that bears our name before we do


def squatted(new_team: TeamMaker, *, claims: bool) -> tuple[Team, Object, Object]:
    """A run that the operator has not seen yet, and a Job of the name that its own would have."""
    team = new_team(start=False)
    return team, *squat(team, claims=claims)


def squat(team: Team, *, claims: bool) -> tuple[Object, Object]:
    team.make_source()
    team.make_binding()
    found = team.make_run()
    metadata: dict[str, Any] = {"labels": our_labels(found)}
    if claims:
        metadata["ownerReferences"] = [controller("WorkflowRun", found)]
    job = forge_job(team, team.object_name(found), metadata)
    (pod,) = wait_pods(team, job["metadata"]["name"])
    on_node(team, pod)
    return found, job


def test_a_job_that_bears_our_name_and_claims_our_run_is_replaced(new_team: TeamMaker, node: Cluster) -> None:
    team, found, forged = squatted(new_team, claims=True)
    mark = node.audit.mark()
    team.operator.start()
    run = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(run) == "Succeeded", run["status"]

    wanted = ("delete jobs", "create jobs", "create secrets")
    calls = [f"{call.verb} {call.resource}" for call in team.calls(mark, *wanted)]
    assert calls == list(wanted)
    (attempt,) = run["status"]["tasks"][0]["attempts"]
    assert attempt["jobUID"] != forged["metadata"]["uid"]
    assert team.output(found) == digest(team)
    assert team.secret_story() == ["made", "gone"]


def test_the_pod_of_a_replaced_job_gets_nothing_of_the_next_one(own_node: OwnNode, tmp_path: Path) -> None:
    """With a garbage collector that is late: until it comes, the pod waits for a Secret of that name."""
    node = own_node()
    install_crds(node)
    with team_in(node, make_namespace(node.client, "replaced"), tmp_path) as team:
        _, forged = squat(team, claims=True)
        name = forged["metadata"]["name"]
        (pod,) = wait_pods(team, name)
        node.pause("kube-controller-manager")
        team.operator.start()
        run = team.wait_run("job", lambda found: pod in tasks_say(found), says=f"{pod} to be named")
        assert "of a Job that was replaced is still there" in tasks_say(run)
        assert team.client.list("jobs", team.namespace) == []
        node.resume("kube-controller-manager")
        run = team.wait_phase("job", "Succeeded", "Failed")
        assert phase(run) == "Succeeded", run["status"]

        (attempt,) = run["status"]["tasks"][0]["attempts"]
        assert (attempt["job"], attempt["jobUID"] == forged["metadata"]["uid"]) == (name, False)
        pods = node.etcd.history(f"/registry/pods/{team.namespace}/{pod}")
        pod_over = next(found for found in pods if found.value is None or _FAILED in found.value)
        jobs = node.etcd.history(f"/registry/jobs/{team.namespace}/{name}")
        next(version for version in jobs if version.value is None)
        again = next(jobs)
        assert pod_over.revision < again.revision, "the pod was over before there was another Job"
        assert team.secret_story() == ["made", "gone"]


_FAILED = b"\n\x06Failed"  # status.phase, as etcd has it


def tasks_say(found: Object) -> str:
    return " ".join(task.get("message", "") for task in found["status"].get("tasks", []))


def test_a_job_that_bears_our_name_is_left_alone_and_reported(new_team: TeamMaker) -> None:
    team, found, forged = squatted(new_team, claims=False)
    name = team.object_name(found)
    team.operator.start()
    run = team.wait_condition("job", "Stalled", "True", "NameTaken")
    assert f"there is a Job {name} that does not belong to this run" in condition(run, "Stalled")["message"]
    assert team.secret_story() == []
    assert team.client.get("jobs", name, team.namespace)["metadata"]["uid"] == forged["metadata"]["uid"]

    team.client.delete("jobs", name, team.namespace)
    run = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(run) == "Succeeded", run["status"]
    assert team.secret_story() == ["made", "gone"]
