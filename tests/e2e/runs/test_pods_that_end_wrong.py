"""Pods that end, or never begin, by no fault of their task: refused, suspended, on a node that is not there.

``backoffLimit`` is 0 where a second attempt shows that the first one did not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import Object
from testing.namespace import HELD_BACK, TASK_IMAGE, Team, condition, make_namespace, phase, python, team_in
from testing.operators import install_crds
from testing.workflows import attempts, make, object_name, outcomes, output, pod_of, task, wait_pod
from tests.e2e.conftest import OwnNode

pytestmark = pytest.mark.e2e

PRINTS = 'print("sha256", sha(os.environ["SECRET_API_TOKEN"]), flush=True)'
PRINTS_AND_WAITS = f"{PRINTS}\nwhile not os.path.exists('/tmp/finish'): time.sleep(0.05)"


def finish(team: Team, found: Object, attempt: int = 1) -> None:
    pod = pod_of(team, found, "a", attempt)["metadata"]["name"]
    team.tell_pod_to_finish(pod)


def ended(team: Team) -> Object:
    return team.wait_phase("flow", "Succeeded", "Failed", "Cancelled")


def when_ended(team: Team, number: int = 1) -> dict[str, Any]:
    """An attempt, waited for until it has ended, while the run may go on."""
    found = team.wait_run(
        "flow",
        lambda run: len(found := attempts(run, "a")) >= number and bool(found[number - 1].get("outcome")),
        says=f"attempt {number} to have ended",
    )
    return attempts(found, "a")[number - 1]


def wait_reason(team: Team, reason: str) -> Object:
    """The run once its one task gives this reason."""

    def gives(run: Object) -> bool:
        return any(item["reason"] == reason for item in run.get("status", {}).get("tasks", []))

    return team.wait_run("flow", gives, says=f"the reason {reason}")


def cancel(team: Team) -> None:
    team.client.patch("workflowruns", "flow", team.namespace, {"spec": {"cancel": True}})
    ended(team)
    assert team.live_secrets() == []


# a pod that its node refuses


def test_a_pod_that_its_node_refuses_did_not_fail(team: Team, node: Cluster) -> None:
    """It is tried again until the node takes it, whatever ``backoffLimit`` says."""
    label = f"runkeys.test/{team.namespace}"
    run = make(
        team,
        task(
            "a", PRINTS, secret=True, pod={"nodeName": team.cluster.node_name, "nodeSelector": {label: "yes"}}
        ),
    )
    first = when_ended(team)
    assert (first["outcome"], first["reason"]) == ("Disrupted", "Disrupted")
    assert f"node {team.cluster.node_name} did not take pod " in first["message"]
    assert "NodeAffinity: Pod was rejected: " in first["message"]
    node.client.patch("nodes", team.cluster.node_name, None, {"metadata": {"labels": {label: "yes"}}})
    try:
        found = ended(team)
    finally:
        node.client.patch("nodes", team.cluster.node_name, None, {"metadata": {"labels": {label: None}}})
    assert phase(found) == "Succeeded", found["status"]
    *refused, last = outcomes(found, "a")
    assert (set(refused), last) == ({"Disrupted"}, "Succeeded")
    assert output(team, run, "a", len(refused) + 1) == f"sha256 {team.digest}\n"
    assert team.live_secrets() == []


def test_a_pod_for_which_its_node_has_no_room_did_not_fail(team: Team) -> None:
    more = {"requests": {"cpu": "1000"}}
    main = {"name": "main", "image": TASK_IMAGE, "command": python("pass"), "resources": more}
    make(team, task("a", secret=True, pod={"nodeName": team.cluster.node_name, "containers": [main]}))
    first = when_ended(team)
    assert first["outcome"] == "Disrupted"
    assert "OutOfcpu: Pod was rejected: " in first["message"]
    second = when_ended(team, 2)
    # and each further attempt waits for longer
    found = wait_reason(team, "BackOff")
    message = found["status"]["tasks"][0]["message"]
    assert f"attempt 2 was disrupted: node {team.cluster.node_name} did not take pod " in message
    assert second["outcome"] == "Disrupted"
    cancel(team)


def test_control_a_pod_that_its_node_takes_and_that_fails_counts(team: Team) -> None:
    make(team, task("a", "sys.exit(3)", secret=True, pod={"nodeName": team.cluster.node_name}))
    found = ended(team)
    assert (phase(found), outcomes(found, "a")) == ("Failed", ["Failed"])
    assert attempts(found, "a")[0]["message"] == "container main exited with code 3"


def test_a_pod_that_exceeds_its_own_limits_has_failed(team: Team) -> None:
    """Kubernetes evicts it too, and without the mark of a disruption: it would do the same again."""
    fills = "open('/full/it', 'wb').write(bytes(20 << 20)); time.sleep(600)"
    full = {"name": "full", "emptyDir": {"sizeLimit": "1Mi"}}
    one = task("a", fills, secret=True, pod={"volumes": [full]})
    one["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "full", "mountPath": "/full"}]
    make(team, one)
    found = team.wait_phase("flow", "Succeeded", "Failed", timeout=240)
    (only,) = attempts(found, "a")
    assert (only["outcome"], only["reason"]) == ("Failed", "JobFailed")
    assert "exceeded its limits: Evicted: Usage of EmptyDir volume" in only["message"]


def test_a_pod_that_a_person_deletes_is_said_to_have_been_deleted(team: Team) -> None:
    run = make(team, task("a", PRINTS_AND_WAITS, secret=True))
    pod = wait_pod(team, run, "a")["metadata"]["name"]
    team.cluster.kubectl("delete", "pod", pod, "-n", team.namespace, "--wait=false")
    found = ended(team)
    assert (phase(found), outcomes(found, "a")) == ("Failed", ["Failed"])
    (only,) = attempts(found, "a")
    assert only["message"].startswith(
        f"pod {pod} was deleted while it ran (kubectl delete pod, or another client): "
    )
    assert only["message"].endswith("container main exited with code 137")


# a node that is not there


def test_a_pod_on_a_node_that_is_not_there_has_no_secret(team: Team) -> None:
    make(team, task("a", PRINTS, secret=True, pod={"nodeName": "nowhere"}))
    found = team.wait_condition("flow", "Stalled", reason="NodeUnreachable")
    assert "kubectl get node nowhere" in condition(found, "Stalled")["message"]
    assert found["status"]["tasks"][0]["state"] == "Waiting"
    first = when_ended(team)
    assert first["outcome"] == "Disrupted"
    assert "DeletionByPodGC" in first["message"]
    assert team.secret_story() == []
    cancel(team)


def test_control_on_a_node_that_is_there_it_has_one(team: Team) -> None:
    make(team, task("a", PRINTS, secret=True, pod={"nodeName": team.cluster.node_name}))
    assert phase(ended(team)) == "Succeeded"
    assert team.secret_story() == ["made", "gone"]


def test_a_secret_that_no_kubelet_reads_goes_and_the_next_one_is_there_when_it_is_back(
    own_node: OwnNode, tmp_path: Path
) -> None:
    """The scheduler goes on giving pods to a node for a while whose kubelet has just died."""
    node = own_node()
    with alone(node, tmp_path) as team:
        node.kill("kubelet")
        run = make(team, task("a", PRINTS, secret=True))
        found = team.wait_condition("flow", "Stalled", reason="NodeUnreachable")
        assert (
            f"is bound to node {team.cluster.node_name}, and no kubelet there"
            in condition(found, "Stalled")["message"]
        )
        first = when_ended(team)
        assert (first["outcome"], first["reason"]) == ("Disrupted", "NodeUnreachable")
        assert team.secret_story(object_name(run, "a")) == ["made", "gone"]
        node.start_component("kubelet")
        found = ended(team)
        assert phase(found) == "Succeeded", found["status"]
        *before, last = outcomes(found, "a")
        assert (set(before), last) == ({"Disrupted"}, "Succeeded")
        assert condition(found, "Stalled")["status"] == "False"
        assert team.live_secrets() == []


@contextmanager
def alone(node: Cluster, folder: Path) -> Iterator[Team]:
    install_crds(node)
    with team_in(node, make_namespace(node.client, "away"), folder) as team:
        team.make_source()
        team.make_binding()
        team.operator.start()
        yield team


# a Job that a queue suspends


def suspend(team: Team, job: str, on: bool = True) -> None:
    """What a queue does, where no policy keeps it from it."""
    team.client.patch("jobs", job, team.namespace, {"spec": {"suspend": on}})


@pytest.mark.parametrize("secret", [True, False], ids=["secret", "plain"])
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "operator-away"])
def test_a_job_that_is_suspended_and_resumed_is_a_disruption(team: Team, secret: bool, seen: bool) -> None:
    code = PRINTS_AND_WAITS if secret else PRINTS_AND_WAITS.replace(PRINTS, "print('runs', flush=True)")
    run = make(team, task("a", code, secret=secret))
    pod, job = wait_pod(team, run, "a")["metadata"]["name"], object_name(run, "a")
    team.wait_run("flow", lambda found: bool(attempts(found, "a")))
    with team.without_policies("names"):
        if not seen:
            team.operator.stop_cleanly()
        suspend(team, job)
        team.client.wait_gone("pods", pod, team.namespace)
        if not seen:
            suspend(team, job, on=False)
            wait_until("the next pod of the Job", lambda: has_bound_pod(team, job))
    if not seen:
        team.operator.start()
    wait_pod(team, run, "a", attempt=2)
    finish(team, run, 2)
    found = ended(team)
    assert (phase(found), outcomes(found, "a")) == ("Succeeded", ["Disrupted", "Succeeded"]), found["status"]
    first = attempts(found, "a")[0]
    assert first["reason"] == ("JobSuspended" if seen else "PodReplaced")
    assert team.secret_story() == (["made", "gone", "made", "gone"] if secret else [])
    assert team.jobs() == [object_name(run, "a", 2)]


def has_bound_pod(team: Team, job: str) -> bool:
    found = team.client.list("pods", team.namespace, labels=f"batch.kubernetes.io/job-name={job}")
    return any(item["spec"].get("nodeName") for item in found)


def test_a_pod_that_its_job_did_not_count_is_a_disruption(team: Team) -> None:
    """Somebody takes the finalizer off by which the Job controller sees how its pods end; the next one has no node."""
    run = make(team, task("a", PRINTS_AND_WAITS, secret=True, pod=HELD_BACK))
    let_go(team, run)
    pod = wait_pod(team, run, "a")["metadata"]["name"]
    with team.without_policies("pods"):
        team.client.patch("pods", pod, team.namespace, {"metadata": {"finalizers": None}})
        team.cluster.kubectl("delete", "pod", pod, "-n", team.namespace, "--wait=false")
        first = when_ended(team)
    assert (first["outcome"], first["reason"]) == ("Disrupted", "PodGone")
    let_go(team, run, 2)
    wait_pod(team, run, "a", attempt=2)
    finish(team, run, 2)
    found = ended(team)
    assert (phase(found), outcomes(found, "a")) == ("Succeeded", ["Disrupted", "Succeeded"])
    assert team.secret_story() == ["made", "gone", "made", "gone"]


def let_go(team: Team, found: Object, attempt: int = 1) -> None:
    pod = pod_of(team, found, "a", attempt)["metadata"]["name"]
    team.client.patch("pods", pod, team.namespace, {"spec": {"schedulingGates": None}})


def test_a_job_that_is_suspended_before_it_began_says_so_and_costs_no_attempt(team: Team) -> None:
    with jobs_suspended(team):
        run = make(team, task("a", PRINTS, secret=True))
        found = team.wait_condition("flow", "Stalled", reason="JobSuspended")
    job = object_name(run, "a")
    assert f"Job {job}: is suspended (its spec.suspend)" in condition(found, "Stalled")["message"]
    assert (phase(found), outcomes(found, "a")) == ("Pending", [""])
    with team.without_policies("names"):
        suspend(team, job, on=False)
    found = ended(team)
    assert (phase(found), outcomes(found, "a")) == ("Succeeded", ["Succeeded"])
    assert team.secret_story() == ["made", "gone"]


@contextmanager
def jobs_suspended(team: Team) -> Iterator[None]:
    """Suspend every Job that is created in the team's namespace, as the webhook of a queue does."""
    api, name = "admissionregistration.k8s.io/v1", f"{team.namespace}-suspends"
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}}
    add = '[JSONPatch{op: "add", path: "/spec/suspend", value: true}]'
    policy = {
        "apiVersion": api,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here},
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": add}}],
        },
    }
    use = {
        "apiVersion": api,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name},
    }
    try:
        team.client.create(policy)
        team.client.create(use)
        wait_until("the policy to act", lambda: is_suspended(team), every=0.2)
        yield
    finally:
        team.client.delete("mutatingadmissionpolicybindings", name, missing_ok=True)
        team.client.delete("mutatingadmissionpolicies", name, missing_ok=True)


def is_suspended(team: Team) -> bool:
    """Whether a Job that is created now, for nobody to see, is suspended."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": TASK_IMAGE}]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "probe", "namespace": team.namespace},
        "spec": {"template": {"spec": pod}},
    }
    return bool(team.client.create(job, dryRun="All")["spec"].get("suspend"))


# what is said of a container


def _no_such_program(spec: dict[str, Any]) -> None:
    spec["containers"][0]["command"] = ["no-such-program"]


def _no_memory(spec: dict[str, Any]) -> None:
    main = spec["containers"][0]
    # What the task writes there is in the pod's status, for those who may read pods, and nowhere else.
    main["command"] = python(
        "import os; open('/dev/termination-log', 'w').write(os.environ['SECRET_API_TOKEN']);"
        " all = [bytes([1]) * (8 << 20) for _ in range(100)]"
    )
    main["resources"] = {"limits": {"memory": "48Mi"}}


@pytest.mark.parametrize(
    ("how", "says"),
    [
        pytest.param(_no_such_program, "container main did not start (StartError): ", id="StartError"),
        pytest.param(_no_memory, "container main exited with code 137 (OOMKilled)", id="OOMKilled"),
    ],
)
def test_how_a_container_ended_is_said_in_kubernetes_words_and_not_in_the_tasks(
    team: Team, how: Callable[[dict[str, Any]], None], says: str
) -> None:
    one = task("a", secret=True)
    how(one["template"]["spec"])
    make(team, one)
    found = ended(team)
    (only,) = attempts(found, "a")
    assert (only["outcome"], only["reason"]) == ("Failed", "JobFailed")
    assert only["message"].startswith(says), only
    if "StartError" in says:
        assert "no-such-program" in only["message"]
    assert team.value not in str(found["status"])
    where = team.cluster.etcd.find(team.value.encode(), since=team.since)
    assert not any("/workflowruns/" in key for key in where)


def test_an_image_that_cannot_be_pulled_is_named_with_the_error(team: Team) -> None:
    image = "localhost:1/nowhere:1"
    make(team, task("a", secret=True, pod={"containers": [{"name": "main", "image": image}]}))
    found = wait_reason(team, "ImagePullBackOff")
    message = found["status"]["tasks"][0]["message"]
    assert f"container main ({image}) of pod " in message
    assert "connection refused" in message
    assert condition(found, "Reconciling")["message"] == message
    cancel(team)


def test_a_sidecars_end_decides_nothing(team: Team) -> None:
    """The kubelet ends it, with 143, when the task's own container has failed."""
    side = {
        "name": "side",
        "image": TASK_IMAGE,
        "restartPolicy": "Always",
        "command": python(
            "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(143))\ntime.sleep(600)"
        ),
    }
    rules = {
        "rules": [{"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [42]}}],
    }
    make(
        team,
        task(
            "a",
            "sys.exit(42)",
            secret=True,
            pod={"initContainers": [side]},
            podFailurePolicy=rules,
            backoffLimit=1,
        ),
    )
    found = ended(team)
    assert outcomes(found, "a") == ["Failed", "Failed"]
    assert [item["reason"] for item in attempts(found, "a")] == ["JobFailed", "JobFailed"]
    assert attempts(found, "a")[0]["message"] == "container main exited with code 42"
    statuses = pod_of(team, found, "a", 2)["status"]["initContainerStatuses"]
    assert statuses[0]["state"]["terminated"]["exitCode"] == 143


def test_control_named_by_a_rule_it_does(team: Team) -> None:
    side = {
        "name": "side",
        "image": TASK_IMAGE,
        "restartPolicy": "Always",
        "command": python(
            "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(143))\ntime.sleep(600)"
        ),
    }
    by_name = {"containerName": "side", "operator": "In", "values": [143]}
    make(
        team,
        task(
            "a",
            "sys.exit(42)",
            secret=True,
            pod={"initContainers": [side]},
            podFailurePolicy={"rules": [{"action": "FailJob", "onExitCodes": by_name}]},
            backoffLimit=1,
        ),
    )
    found = ended(team)
    assert [item["reason"] for item in attempts(found, "a")] == ["FailedForGood"]
