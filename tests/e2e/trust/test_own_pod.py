"""The operator gives values to the pod that the run describes, and believes the success of that pod alone.

Policies refuse such forgeries; here is what stands behind them, and what others' policies may do to our pods.
"""

from __future__ import annotations

import pytest

from testing.cluster.client import Object
from testing.namespace import FINISHES_WHEN_TOLD, HELD_BACK, TASK_IMAGE, Team, condition, phase, python
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.trust.attacks_on_jobs import UID
from tests.e2e.trust.others import mutating, probe
from tests.e2e.trust.scene import pod_spec

pytestmark = pytest.mark.e2e

WAITS = "import os, time\nwhile not os.path.exists('/tmp/finish'): time.sleep(0.05)"
KINDS: dict[str, Object] = {"job": {}, "plain": {"secrets": []}}
"""Runs whose task needs secrets, or none."""

QUICK = {"terminationGracePeriodSeconds": 1}


def test_the_success_of_a_pod_that_somebody_else_made_is_not_the_runs(team: Team) -> None:
    """It has ended well, and then it is made to look like one of the run's Job: that takes it for its own."""
    run = team.make_run(command=python(FINISHES_WHEN_TOLD), pod=QUICK)
    own = team.wait_running(run)
    job = team.client.get("jobs", team.object_name(run), team.namespace)
    finished_pod(team, "forged")
    labels = {"labels": {UID: job["metadata"]["uid"]}}
    with team.without_policies("pods"):  # which would refuse it
        team.client.patch("pods", "forged", team.namespace, {"metadata": labels})

    found = team.wait_phase("job", "Succeeded", "Failed")

    job = team.client.get("jobs", team.object_name(run), team.namespace)
    assert job["status"]["succeeded"] == 1, "the Job controller was not deceived, so this shows nothing"
    assert phase(found) == "Failed", found["status"]
    (task,) = found["status"]["tasks"]
    assert task["reason"] == "PodReplaced"
    assert "its own pod has not" in task["message"]
    assert task["attempts"][0]["podUID"] == own["metadata"]["uid"]
    assert team.secret_story() == ["made", "gone"]


def test_nor_is_that_of_a_pod_that_no_watch_shows(team: Team) -> None:
    """The run's own pod has no node, and the one that is counted has no labels of a run."""
    runs = {name: team.make_run(name, task=task, pod={**QUICK, **HELD_BACK}) for name, task in KINDS.items()}
    jobs = {
        name: team.client.wait_for("jobs", team.object_name(run), team.namespace, bool)
        for name, run in runs.items()
    }
    for name in runs:
        finished_pod(team, f"forged-{name}")
    with team.without_policies("pods"):
        for name, job in jobs.items():
            labels = {"labels": {UID: job["metadata"]["uid"]}}
            team.client.patch("pods", f"forged-{name}", team.namespace, {"metadata": labels})

    found = {name: team.wait_phase(name, "Succeeded", "Failed") for name in runs}

    for name, run in runs.items():
        job = team.client.get("jobs", team.object_name(run), team.namespace)
        assert job["status"]["succeeded"] == 1, "the Job controller was not deceived, so this shows nothing"
        assert phase(found[name]) == "Failed", found[name]["status"]
        assert found[name]["status"]["tasks"][0]["reason"] == "PodReplaced"
    assert "never got the secrets that it needs" in found["job"]["status"]["tasks"][0]["message"]
    assert "pod forged-plain was counted instead" in found["plain"]["status"]["tasks"][0]["message"]
    assert team.secret_story() == []


def test_control_of_a_pod_that_went_while_nobody_looked_the_job_is_believed(team: Team) -> None:
    runs = {
        name: team.make_run(name, task=task, pod=QUICK, command=python(WAITS)) for name, task in KINDS.items()
    }
    for run in runs.values():
        team.wait_running(run)
    team.operator.kill()
    for run in runs.values():
        pod = team.pod(run)["metadata"]["name"]
        team.tell_to_finish(run)
        team.client.wait_for(
            "jobs", team.object_name(run), team.namespace, lambda job: job["status"].get("succeeded") == 1
        )
        team.client.delete("pods", pod, team.namespace)
        team.client.wait_gone("pods", pod, team.namespace)
    team.operator.start()

    for name in runs:
        found = team.wait_phase(name, "Succeeded", "Failed")
        assert phase(found) == "Succeeded", found["status"]


def finished_pod(team: Team, name: str) -> None:
    """A pod of somebody else that has ended well."""
    metadata = {"name": name, "namespace": team.namespace}
    spec = pod_spec(command=["python3", "-c", "0"])
    team.client.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    team.client.wait_for(
        "pods", name, team.namespace, lambda pod: pod["status"]["phase"] == "Succeeded", timeout=120
    )


# what others' policies make of our pods and Jobs

READS = (
    "[Object.spec.containers.env{name: 'SEEN', valueFrom: Object.spec.containers.env.valueFrom{"
    "secretKeyRef: Object.spec.containers.env.valueFrom.secretKeyRef{"
    "name: object.metadata.?ownerReferences[?0].?name.orValue('none'), key: 'SECRET_API_TOKEN'}}}]"
)


def added(more: str = "") -> str:
    """CEL that adds a container to a pod."""
    return (
        '[JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{'
        f"name: 'agent', image: '{TASK_IMAGE}', imagePullPolicy: 'IfNotPresent',"
        f" command: ['python3', '-c', '0']{more}}}}}]"
    )


SHARES = '[JSONPatch{op: "add", path: "/spec/shareProcessNamespace", value: true}] + ' + added()
MOUNTS = added(
    ", volumeMounts: object.spec.?volumes.orValue([]).map(v,"
    " Object.spec.containers.volumeMounts{name: v.name, mountPath: '/seen/' + v.name})"
)


@pytest.mark.parametrize(
    ("expression", "secrets"),
    [
        pytest.param(added(f", env: {READS}"), [{}], id="refers-to-the-Secret"),
        pytest.param(MOUNTS, [{"file": "token"}], id="mounts-the-volume"),
        pytest.param(SHARES, [{}], id="sees-the-processes"),
    ],
)
def test_a_container_that_a_policy_adds_is_not_given_what_the_run_did_not_give_it(
    team: Team, expression: str, secrets: list[Object]
) -> None:
    wanted = [{"name": "api_token", "secret": "token", **more} for more in secrets]
    with mutating(team, "pods", "", expression, probe(team, "Pod")):
        run = team.make_run(task={"secrets": wanted})
        found = team.wait_condition("job", "Stalled", reason="PodChanged")

    message = condition(found, "Stalled")["message"]
    assert (
        f"container agent ({TASK_IMAGE}) would get the secrets, which the run gives only to main" in message
    )
    assert team.secret_story() == []
    pod = team.pod(run)
    assert [item["name"] for item in pod["spec"]["containers"]] == ["main", "agent"]


def test_control_one_that_reads_nothing_does_no_harm(team: Team) -> None:
    with mutating(team, "pods", "", added(), probe(team, "Pod")):
        team.make_run()
        found = team.wait_phase("job", "Succeeded", "Failed")

    assert phase(found) == "Succeeded", found["status"]
    assert team.secret_story() == ["made", "gone"]


def test_a_job_to_which_a_policy_adds_a_secret_is_refused(new_team: TeamMaker) -> None:
    team = new_team()
    team.make_source()
    team.make_binding()
    reference = (
        ", envFrom: [Object.spec.template.spec.containers.envFrom{"
        "secretRef: Object.spec.template.spec.containers.envFrom.secretRef{name: 'source'}}]"
    )
    expression = added(reference).replace("Object.spec.containers{", "Object.spec.template.spec.containers{")
    expression = expression.replace("/spec/containers/-", "/spec/template/spec/containers/-")
    with mutating(team, "jobs", "batch", expression, probe(team, "Job")):
        team.make_run()
        found = team.wait_condition("job", "Stalled", reason="JobRefused")

    assert "refer to no Secret except the one with the same name" in condition(found, "Stalled")["message"]
    assert (team.jobs(), team.secret_story()) == ([], [])
