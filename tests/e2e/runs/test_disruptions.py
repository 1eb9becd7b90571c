"""What the cluster does to a pod is no failure of its task: drained, preempted, a node that is gone, a kubelet away.

``backoffLimit`` is 0, so that a second attempt shows that the first one did not count. A pod that a person deletes
bears no mark of a disruption: it counts, and with it in place of the disruption the checks here fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import wait_until
from testing.cluster.client import ApiError, Object
from testing.cluster.node import NodeCluster
from testing.cluster.node_config import NODE_NAME
from testing.namespace import (
    HELD_BACK,
    TASK_IMAGE,
    Team,
    condition,
    exposures,
    make_namespace,
    phase,
    team_in,
)
from testing.operators import install_crds
from testing.workflows import attempts, container, make, object_name, outcomes, output, pod_of, task, wait_pod
from tests.e2e.conftest import OwnNode

pytestmark = pytest.mark.e2e

PRINTS_AND_WAITS = """
print("sha256", sha(os.environ["SECRET_API_TOKEN"]), flush=True)
while not os.path.exists("/tmp/finish"): time.sleep(0.05)
"""
AWAY = pytest.mark.parametrize("away", [False, True], ids=["operator-there", "operator-away"])

SIGNALS = "/signals"
WAITS_FOR_A_SIGNAL = f"""
signals, attempt = pathlib.Path("{SIGNALS}"), "-".join(os.environ["HOSTNAME"].split("-")[1:4])
value = read()
print("sha256", sha(value), flush=True)
while not (signals / f"finish-{{attempt}}").exists(): time.sleep(0.05)
assert read() == value
(signals / f"finished-{{attempt}}").touch()
"""
"""Ends when told by a file of the node, for as long as no kubelet is there to carry a command into the pod."""


# what is done


def evict(team: Team, pod: str) -> None:
    """What ``kubectl drain`` asks for each pod of a node."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": team.namespace},
    }
    path = f"/api/v1/namespaces/{team.namespace}/pods/{pod}/eviction"
    team.client.request("POST", path, body=eviction)


def delete(team: Team, pod: str) -> None:
    """What a person does."""
    team.cluster.kubectl("delete", "pod", pod, "-n", team.namespace, "--wait=false")


def finish(team: Team, found: Object, attempt: int = 1) -> None:
    pod = pod_of(team, found, "a", attempt)["metadata"]["name"]
    team.tell_pod_to_finish(pod)


def let_go(team: Team, found: Object, attempt: int = 1) -> None:
    """Have the scheduler find a node for the pod of an attempt that was held back."""
    pod = pod_of(team, found, "a", attempt)["metadata"]["name"]
    team.client.patch("pods", pod, team.namespace, {"spec": {"schedulingGates": None}})


def wait_bound(team: Team, found: Object) -> str:
    """Wait until the kubelet has the first attempt's pod, and waits for its Secret; the name of the pod."""
    pod = str(pod_of(team, found, "a")["metadata"]["name"])
    team.client.wait_for("pods", pod, team.namespace, waits_for_its_secret, what="to wait for its Secret")
    return pod


def wait_printed(team: Team, found: Object, attempt: int = 1) -> str:
    """Wait until the task runs and has found the right value; the name of its pod."""
    pod = str(wait_pod(team, found, "a", attempt=attempt)["metadata"]["name"])
    wait_until("the hash of the value", lambda: team.client.logs(pod, team.namespace) == printed_by(team))
    return pod


def stop(team: Team) -> None:
    team.operator.stop_cleanly()


@contextmanager
def stopped(team: Team, away: bool) -> Iterator[None]:
    """The operator is away meanwhile, if it is to be."""
    if away:
        stop(team)
    yield
    if away:
        team.operator.start()


@contextmanager
def alone(node: NodeCluster, folder: Path, **spec: Any) -> Iterator[Team]:
    """A team with an operator, a source and a binding on a node of its own."""
    install_crds(node)
    with team_in(node, make_namespace(node.client, "disrupted"), folder) as team:
        # Tasks of a pod on such a node are told to finish by a file of the node.
        team.may_be_near_the_node()
        team.make_source()
        team.make_binding(**spec)
        team.operator.start()
        yield team


# what is seen


def printed_by(team: Team) -> str:
    return f"sha256 {team.digest}\n"


def disrupted_by(team: Team, pod: str, reason: str) -> bool:
    """Whether Kubernetes wrote into the pod that it was disrupted, and why; the pod itself may be gone."""
    key = f"/registry/pods/{team.namespace}/{pod}"
    versions = [item.value or b"" for item in team.cluster.etcd.history(key, since=team.since)]
    return any(b"DisruptionTarget" in value and reason.encode() in value for value in versions)


def is_over(job: Object) -> bool:
    conditions = job["status"].get("conditions", [])
    return any(item["type"] in ("Complete", "Failed") and item["status"] == "True" for item in conditions)


def wait_job_over(team: Team, found: Object) -> Object:
    return team.client.wait_for("jobs", object_name(found, "a"), team.namespace, is_over, what="to be over")


def waits_for_its_secret(pod: Object) -> bool:
    states = [item.get("state", {}) for item in pod["status"].get("containerStatuses", [])]
    return any(state.get("waiting", {}).get("reason") == "CreateContainerConfigError" for state in states)


def is_unschedulable(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(item["type"] == "PodScheduled" and item["status"] == "False" for item in conditions)


def wait_for_want_of_a_node(team: Team, found: Object, attempt: int) -> None:
    """Wait until the scheduler has said that there is no node for the pod: no Secret is there for it."""
    pod = pod_of(team, found, "a", attempt)["metadata"]["name"]
    team.client.wait_for("pods", pod, team.namespace, is_unschedulable, what="to be unschedulable")
    assert team.secret_story(object_name(found, "a", attempt)) == []


def ended(team: Team, name: str = "flow") -> Object:
    return team.wait_phase(name, "Succeeded", "Failed", "Cancelled")


def check_nothing_is_left(team: Team, found: Object) -> None:
    assert condition(found, "SecretsReleased")["status"] == "True", found["status"]
    assert found["status"]["live"] == 0
    assert team.cluster.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []
    assert all(item["created"] <= item["deleted"] for item in exposures(found))


def check_it_did_not_count(team: Team, run: Object, first: tuple[str, ...] = ("made", "gone")) -> None:
    """The run succeeded with its second attempt, which had a Secret of its own with the right value.

    :param first: what became of the first one's Secret.
    """
    found = ended(team)
    assert (phase(found), outcomes(found, "a")) == ("Succeeded", ["Disrupted", "Succeeded"]), found["status"]
    assert [item.get("reason", "") for item in attempts(found, "a")] == ["Disrupted", ""]
    names = [object_name(run, "a", number) for number in (1, 2)]
    assert names[0] != names[1]
    assert [item["job"] for item in attempts(found, "a")] == names
    assert output(team, run, "a", 2) == printed_by(team)
    # the first one had gone before the second one was made
    assert [team.secret_story(name) for name in names] == [[*first], ["made", "gone"]]
    assert team.secret_story() == [*first, "made", "gone"]
    where = team.cluster.etcd.find(team.value.encode(), since=team.since)
    assert {key.rpartition("/")[2] for key in where} == {"source", *(names if first else names[1:])}
    assert len(exposures(found)) == len(where) - 1
    check_nothing_is_left(team, found)


def check_it_counted(team: Team, reason: str = "JobFailed") -> None:
    """The run failed with its one attempt."""
    found = ended(team)
    assert (phase(found), outcomes(found, "a")) == ("Failed", ["Failed"]), found["status"]
    assert attempts(found, "a")[0]["reason"] == reason
    assert team.secret_story() == ["made", "gone"]
    check_nothing_is_left(team, found)


# eviction


@pytest.mark.parametrize("policy", ["OnCompletion", "OnStart"])
def test_an_eviction_does_not_count(team: Team, policy: str) -> None:
    run = make(team, task("a", PRINTS_AND_WAITS, secret=True, releasePolicy=policy))
    pod = wait_printed(team, run)
    evict(team, pod)
    wait_printed(team, run, 2)
    finish(team, run, 2)
    check_it_did_not_count(team, run)
    assert disrupted_by(team, pod, "EvictionByEvictionAPI")


def test_an_eviction_while_the_operator_is_away_does_not_count(team: Team) -> None:
    """It finds neither the pod nor its mark, only what the Job controller wrote down."""
    run = make(team, task("a", PRINTS_AND_WAITS, secret=True))
    pod = wait_printed(team, run)
    with stopped(team, away=True):
        evict(team, pod)
        wait_job_over(team, run)
        team.client.wait_gone("pods", pod, team.namespace)
        # without the operator it is there for longer than its pod
        assert team.live_secrets() == [object_name(run, "a")]
    wait_printed(team, run, 2)
    finish(team, run, 2)
    check_it_did_not_count(team, run)


def test_an_eviction_before_the_container_starts_does_not_count(team: Team) -> None:
    """The pod has a node and waits for its Secret, which nobody makes as long as the operator is away."""
    run = make(team, task("a", PRINTS_AND_WAITS, secret=True, pod=HELD_BACK))
    team.wait_condition("flow", "Reconciling", reason="Unschedulable")
    with stopped(team, away=True):
        let_go(team, run)
        pod = wait_bound(team, run)
        evict(team, pod)
        wait_job_over(team, run)
    let_go(team, run, 2)
    wait_printed(team, run, 2)
    finish(team, run, 2)
    check_it_did_not_count(team, run, first=())


def test_control_a_deletion_in_place_of_the_eviction_counts(team: Team) -> None:
    """No mark of a disruption is in the pod: the check that it does not count fails."""
    run = make(team, task("a", PRINTS_AND_WAITS, secret=True))
    pod = wait_printed(team, run)
    delete(team, pod)
    with pytest.raises(AssertionError, match="Failed"):
        check_it_did_not_count(team, run)
    check_it_counted(team)
    assert not disrupted_by(team, pod, "")


def test_a_pod_that_a_person_deletes_is_tried_again_as_often_as_failures_are(team: Team) -> None:
    run = make(team, task("a", PRINTS_AND_WAITS, secret=True, backoffLimit=1))
    delete(team, wait_printed(team, run))
    wait_printed(team, run, 2)
    finish(team, run, 2)
    found = ended(team)
    assert (phase(found), outcomes(found, "a")) == ("Succeeded", ["Failed", "Succeeded"])
    assert team.secret_story() == ["made", "gone", "made", "gone"]
    check_nothing_is_left(team, found)


def test_control_without_its_policy_the_job_does_not_say_that_it_was_disrupted(team: Team) -> None:
    """What tells an operator that was away is the Job's podFailurePolicy; without it the eviction counts."""
    with jobs_without_a_policy(team):
        run = make(team, task("a", PRINTS_AND_WAITS, secret=True))
        pod = wait_printed(team, run)
        with stopped(team, away=True):
            evict(team, pod)
            wait_job_over(team, run)
            team.client.wait_gone("pods", pod, team.namespace)
        with pytest.raises(AssertionError, match="Failed"):
            check_it_did_not_count(team, run)
        check_it_counted(team)
        assert disrupted_by(team, pod, "EvictionByEvictionAPI")


@contextmanager
def jobs_without_a_policy(team: Team) -> Iterator[None]:
    """Take the podFailurePolicy out of every Job that is made in the team's namespace."""
    api, name = "admissionregistration.k8s.io/v1", f"{team.namespace}-no-policy"
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}}
    remove = '[JSONPatch{op: "remove", path: "/spec/podFailurePolicy"}]'
    policy = {
        "apiVersion": api,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here},
            "matchConditions": [{"name": "has-one", "expression": "has(object.spec.podFailurePolicy)"}],
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": remove}}],
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
        wait_until("the policy to act", lambda: not keeps_its_policy(team), every=0.2)
        yield
    finally:
        team.client.delete("mutatingadmissionpolicybindings", name, missing_ok=True)
        team.client.delete("mutatingadmissionpolicies", name, missing_ok=True)


def keeps_its_policy(team: Team) -> bool:
    """Whether a Job that is made now, for nobody to see, has its podFailurePolicy afterwards."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": TASK_IMAGE}]}
    policy = {
        "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "probe", "namespace": team.namespace},
        "spec": {"podFailurePolicy": policy, "template": {"spec": pod}},
    }
    return "podFailurePolicy" in team.client.create(job, dryRun="All")["spec"]


# a node to itself: drain, preemption


def test_a_drained_node(own_node: OwnNode, tmp_path: Path) -> None:
    """The second attempt waits for a node as long as it has to, and has no Secret until then."""
    node = own_node()
    with alone(node, tmp_path) as team:
        run = make(team, task("a", PRINTS_AND_WAITS, secret=True))
        pod = wait_printed(team, run)
        node.kubectl("drain", NODE_NAME, "--timeout=180s", timeout=240)
        wait_for_want_of_a_node(team, run, 2)
        assert team.secret_story() == ["made", "gone"]
        node.kubectl("uncordon", NODE_NAME)
        wait_printed(team, run, 2)
        finish(team, run, 2)
        check_it_did_not_count(team, run)
        assert disrupted_by(team, pod, "EvictionByEvictionAPI")


def test_a_pod_that_makes_room_for_a_more_important_one(own_node: OwnNode, tmp_path: Path) -> None:
    node = own_node()
    most = {"requests": {"cpu": str(Decimal("0.6") * cpus(node))}}
    node.client.request(
        "POST",
        "/apis/scheduling.k8s.io/v1/priorityclasses",
        body={
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": "urgent"},
            "value": 1000,
        },
    )
    urgent = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "urgent"},
        "spec": {
            "priorityClassName": "urgent",
            "terminationGracePeriodSeconds": 1,
            "containers": [container("time.sleep(3600)", resources=most)],
        },
    }
    with alone(node, tmp_path) as team:
        main = container(PRINTS_AND_WAITS, resources=most)
        run = make(team, task("a", secret=True, pod={"containers": [main]}))
        pod = wait_printed(team, run)
        team.client.create(urgent, team.namespace)
        team.client.wait_for("pods", "urgent", team.namespace, is_running, what="to run")
        wait_for_want_of_a_node(team, run, 2)
        assert team.secret_story() == ["made", "gone"]
        team.client.delete("pods", "urgent", team.namespace)
        wait_printed(team, run, 2)
        finish(team, run, 2)
        check_it_did_not_count(team, run)
        assert disrupted_by(team, pod, "PreemptionByScheduler")


def is_going(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def is_running(pod: Object) -> bool:
    return bool(pod["status"]["phase"] == "Running")


def cpus(node: NodeCluster) -> Decimal:
    """How many the node has for pods."""
    amount = str(node.client.get("nodes", NODE_NAME)["status"]["allocatable"]["cpu"])
    return Decimal(amount[:-1]) / 1000 if amount.endswith("m") else Decimal(amount)


# a kubelet that is away, and a node that is gone


def listening(node: NodeCluster, reads: str, **fields: Any) -> dict[str, Any]:
    """A task that can be told to finish without a kubelet; ``reads`` says where it finds its value."""
    (node.scratch / "signals").mkdir(exist_ok=True)
    mount = {"name": "signals", "mountPath": SIGNALS}
    main = container(f"def read(): return {reads}\n{WAITS_FOR_A_SIGNAL}", volumeMounts=[mount])
    place = {"path": str(node.scratch / "signals"), "type": "Directory"}
    pod = {"containers": [main], "volumes": [{"name": "signals", "hostPath": place}]}
    return task("a", pod=pod, **fields)


def signal(node: NodeCluster, said: str, found: Object, attempt: int = 1) -> Path:
    return node.scratch / "signals" / f"{said}-{found['metadata']['name']}-a-{attempt}"


VARIABLE = 'os.environ["SECRET_API_TOKEN"]'
AS_VARIABLE = [{"name": "api_token", "secret": "token"}]
AS_FILE = [{**AS_VARIABLE[0], "file": "token"}]
FILE = '(runtime / "secrets" / "token").read_text()'
KUBELET_AWAY: dict[str, dict[str, Any]] = {
    "variable": {"reads": VARIABLE, "secrets": AS_VARIABLE},
    "file": {"reads": FILE, "secrets": AS_FILE},
    "early": {"reads": FILE, "secrets": AS_FILE, "releasePolicy": "OnStart"},
}


@AWAY
@pytest.mark.parametrize("meanwhile", [True, False], ids=["ends-meanwhile", "ends-afterwards"])
def test_a_kubelet_that_comes_back(own_node: OwnNode, tmp_path: Path, away: bool, meanwhile: bool) -> None:
    """Containers go on without it: the same pod, one attempt, one Secret.

    When it is back it wants all volumes once more. One whose Secret has gone early is as it was for the container.
    """
    node = own_node()
    with alone(node, tmp_path) as team:
        for name, how in KUBELET_AWAY.items():
            run = make(team, listening(node, **how), name=name)
            pod, secret = wait_printed(team, run), object_name(run, "a")
            early = "releasePolicy" in how
            if early:
                wait_until("the Secret to be gone", lambda: team.live_secrets() == [])
            with stopped(team, away):
                node.kill("kubelet")
                if meanwhile:
                    signal(node, "finish", run).touch()
                    wait_until("the container's end", signal(node, "finished", run).exists)
                    # nobody says so: for all that is known the container runs, and its Secret is there
                    assert is_running(team.client.get("pods", pod, team.namespace))
                    assert team.live_secrets() == ([] if early else [secret])
                node.start_component("kubelet")
                if away and meanwhile:
                    wait_job_over(team, run)
            if not meanwhile:
                wait_until("the kubelet to answer", partial(answers, team, pod))
                if early:
                    wait_until("it to miss the Secret", partial(misses_a_volume, team, pod))
            signal(node, "finish", run).touch()
            found = ended(team, name)
            assert (phase(found), outcomes(found, "a")) == ("Succeeded", ["Succeeded"]), found["status"]
            assert output(team, run, "a") == printed_by(team)
            assert restarts(pod_of(team, run, "a")) == (pod, [0])
            assert team.secret_story(secret) == ["made", "gone"]
            check_nothing_is_left(team, found)


def answers(team: Team, pod: str) -> bool:
    """Whether the kubelet does, which hands out the pod's logs."""
    try:
        return team.client.logs(pod, team.namespace) == printed_by(team)
    except ApiError:
        return False


def misses_a_volume(team: Team, pod: str) -> bool:
    return bool(
        team.client.list("events", team.namespace, fields=f"involvedObject.name={pod},reason=FailedMount")
    )


def restarts(pod: Object) -> tuple[str, list[int]]:
    return pod["metadata"]["name"], [item["restartCount"] for item in pod["status"]["containerStatuses"]]


def test_a_node_that_is_gone(own_node: OwnNode, tmp_path: Path) -> None:
    """Kubernetes gives up its pods: the Secret goes although nobody can ask the container. Then it comes back."""
    node = own_node()
    with alone(node, tmp_path) as team:
        run = make(team, listening(node, VARIABLE, secrets=AS_VARIABLE))
        pod = wait_printed(team, run)
        node.kill("kubelet")
        node.client.delete("nodes", NODE_NAME)
        wait_for_want_of_a_node(team, run, 2)
        assert team.secret_story() == ["made", "gone"]
        assert team.cluster.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []
        found = team.run("flow")
        assert outcomes(found, "a")[0] == "Disrupted"
        assert found["status"]["live"] == 0
        node.start_component("kubelet")
        wait_printed(team, run, 2)
        signal(node, "finish", run, 2).touch()
        check_it_did_not_count(team, run)
        assert disrupted_by(team, pod, "DeletionByPodGC")
        assert not signal(node, "finished", run).exists()


def test_a_node_that_does_not_answer_for_a_while(own_node: OwnNode, tmp_path: Path) -> None:
    """Its pods are to go, but may run on: their Secrets stay until it is back and says that they have ended."""
    node = own_node()
    with alone(node, tmp_path) as team:
        run = make(team, listening(node, VARIABLE, secrets=AS_VARIABLE))
        pod = wait_printed(team, run)
        with without_its_kubelet(team, pod):
            assert is_running(team.client.get("pods", pod, team.namespace))
            assert team.live_secrets() == [object_name(run, "a")]
            assert team.jobs() == [object_name(run, "a")]
        wait_printed(team, run, 2)
        signal(node, "finish", run, 2).touch()
        check_it_did_not_count(team, run)
        assert disrupted_by(team, pod, "DeletionByTaintManager")


def test_a_node_that_never_answers_again(own_node: OwnNode, tmp_path: Path) -> None:
    """Nothing ends its pod, and nobody says that it has ended. The lifetime does: the Secret, then the attempt.

    The pod bears the mark of a disruption, so that it does not count.
    """
    node = own_node()
    with alone(node, tmp_path, maxLifetimeSeconds=60) as team:
        run = make(team, listening(node, VARIABLE, secrets=AS_VARIABLE))
        pod = wait_printed(team, run)
        with without_its_kubelet(team, pod):
            wait_for_want_of_a_node(team, run, 2)
            assert outcomes(team.run("flow"), "a")[0] == "Disrupted"
            assert is_running(team.client.get("pods", pod, team.namespace))
            assert team.secret_story() == ["made", "gone"]
        wait_printed(team, run, 2)
        signal(node, "finish", run, 2).touch()
        check_it_did_not_count(team, run)
        assert disrupted_by(team, pod, "DeletionByTaintManager")


def test_control_a_silent_node_that_nobody_gives_up_counts(own_node: OwnNode, tmp_path: Path) -> None:
    """Without the taint there is no mark: the pod has only not kept its lifetime."""
    node = own_node()
    with alone(node, tmp_path, maxLifetimeSeconds=60) as team:
        run = make(team, listening(node, VARIABLE, secrets=AS_VARIABLE))
        pod = wait_printed(team, run)
        node.kill("kubelet")
        check_it_counted(team, "LifetimeExceeded")
        assert not disrupted_by(team, pod, "")
        node.start_component("kubelet")
        team.client.wait_gone("pods", pod, team.namespace)
        assert team.jobs() == []


@contextmanager
def without_its_kubelet(team: Team, pod: str) -> Iterator[None]:
    """The kubelet is killed and the node tainted, as for one that does not answer; afterwards it is back.

    By hand, because Kubernetes itself does so only where another node still answers.
    """
    taint = "runkeys.test/unreachable:NoExecute"
    team.cluster.kill("kubelet")
    team.cluster.kubectl("taint", "node", NODE_NAME, taint)
    team.client.wait_for("pods", pod, team.namespace, is_going, what="to be on its way out")
    yield
    team.cluster.kubectl("taint", "node", NODE_NAME, f"{taint}-")
    team.cluster.start_component("kubelet")
