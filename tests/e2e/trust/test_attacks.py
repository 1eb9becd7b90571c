"""Somebody who may do all that an editor of the namespace may, but for reading Secrets, wants the value of a run.

The run is somebody else's and its Secret is there. Every way is refused: by a pod of one's own, a Job, a Deployment or
CronJob, by the run's own pod or Secret. Exec and reading Secrets are rights of their own, which no policy takes away.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from runkeys.names import RUNTIME
from testing.cluster.base import wait_until
from testing.cluster.client import PATIENCE, ApiError, Object
from testing.namespace import TASK_IMAGE, Team, make_namespace, python, run, team_in
from testing.operators import install_crds
from tests.e2e.conftest import OwnNode
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.trust import attacks_on_jobs, attacks_on_placing, secret_fields
from tests.e2e.trust.attacks_on_jobs import delete_run
from tests.e2e.trust.attacks_on_placing import INPUT, UNPLACED, place
from tests.e2e.trust.golden import check_golden, told
from tests.e2e.trust.scene import Attack, Scene, container, patch, pod_spec, scene_of

pytestmark = pytest.mark.e2e


def posing(scene: Scene, dry: dict[str, Any]) -> object:
    """With the labels and the owner of a pod of the run's Job."""
    there = scene.team.client.get("pods", scene.pod, scene.team.namespace)["metadata"]
    owners = [{**owner, "blockOwnerDeletion": False} for owner in there["ownerReferences"]]
    metadata = {"labels": there["labels"], "ownerReferences": owners}
    spec = pod_spec(**scene.reads_variable())
    return scene.make("Pod", f"{scene.secret}-thief", spec, metadata=metadata, **dry)


def debugger(scene: Scene, dry: dict[str, Any]) -> object:
    """A container beside that which has the value, in its process namespace."""
    added = {"ephemeralContainers": [{"name": "debug", "image": TASK_IMAGE, "targetContainerName": "main"}]}
    return patch("pods", "pod", {"spec": added}, sub="ephemeralcontainers")(scene, dry)


def named_as_ours(scene: Scene, dry: dict[str, Any]) -> object:
    """A Job of such a name could have a pod that refers to such a Secret."""
    template = {"spec": pod_spec(envFrom=[{"secretRef": {"name": "rk-mine"}}])}
    return scene.make("Job", "rk-mine", {"template": template}, **dry)


def labelled_as_ours(scene: Scene, dry: dict[str, Any]) -> object:
    labels = {"runkeys.dev/run": "job"}
    return scene.make("Job", "mine", {"template": {"spec": pod_spec()}}, metadata={"labels": labels}, **dry)


def secret_of_ours(scene: Scene, dry: dict[str, Any]) -> object:
    """Made first, it would be taken for the operator's own."""
    metadata = {"name": "rk-early", "namespace": scene.team.namespace}
    return scene.mallory.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}, **dry)


def secret_of_our_type(scene: Scene, dry: dict[str, Any]) -> object:
    metadata = {"name": "looks-like", "namespace": scene.team.namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "runkeys.dev/run-secret", "metadata": metadata}
    return scene.mallory.create(secret, **dry)


def applied(scene: Scene, dry: dict[str, Any]) -> object:
    """It takes no right to read: the answer to any change is the whole object."""
    metadata = {"name": scene.secret, "annotations": {"example.com/note": "x"}}
    return scene.mallory.request(
        "PATCH",
        f"/api/v1/namespaces/{scene.team.namespace}/secrets/{scene.secret}",
        query={"fieldManager": "mallory", **dry},
        body={"apiVersion": "v1", "kind": "Secret", "metadata": metadata},
        content_type="application/apply-patch+yaml",
    )


def deleted_with_others(scene: Scene, dry: dict[str, Any]) -> object:
    """The answer would be a list of all that went."""
    path = f"/api/v1/namespaces/{scene.team.namespace}/secrets"
    return scene.mallory.request(
        "DELETE", path, query={"fieldSelector": "type=runkeys.dev/run-secret", **dry}
    )


def delete_secret(scene: Scene, dry: dict[str, Any]) -> object:
    """The answer to this one would be the whole Secret."""
    options: dict[str, Any] = {"dryRun": ["All"]} if dry else {}
    scene.mallory.delete(
        "secrets", scene.secret, scene.team.namespace, propagationPolicy="Foreground", **options
    )
    return True


STATUS = {"status": {"phase": "Pending", "tasks": []}}
_NOBODY = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "name": "nobody",
    "uid": "00000000-0000-4000-8000-000000000000",
}
ATTACKS = {
    **secret_fields.ATTACKS,
    "pod: poses as the Job's": Attack("pods", posing),
    "the run's pod: ephemeral container": Attack("pods", debugger),
    "the run's pod: another image": Attack(
        "pods",
        patch("pods", "pod", {"spec": {"containers": [{"name": "main", "image": "localhost/thief:1"}]}}),
    ),
    "Job: named as ours": Attack("names", named_as_ours),
    "Job: labelled as ours": Attack("names", labelled_as_ours),
    "Secret: made before ours": Attack("names", secret_of_ours),
    "Secret: of our type": Attack("names", secret_of_our_type),
    "the run's Secret: finalizer": Attack(
        "names", patch("secrets", "secret", {"metadata": {"finalizers": ["example.com/keep"]}}, "merge")
    ),
    "the run's Secret: disowned": Attack(
        "names", patch("secrets", "secret", {"metadata": {"ownerReferences": None}}, "merge")
    ),
    "the run's Secret: annotated": Attack("names", applied),
    "the run's Secret: foreground deletion": Attack("names", delete_secret),
    "the run's Secret: deleted with others": Attack("names", deleted_with_others),
    **attacks_on_jobs.ATTACKS,
    **attacks_on_placing.ATTACKS,
    "run: status written": Attack("status", patch("workflowruns", "run", STATUS, "merge", "status")),
    "binding: status written": Attack(
        "status", patch("secretbindings", "binding", {"status": {"secrets": "9/9"}}, "merge", "status")
    ),
    "run: another input": Attack(
        "frozen",
        patch("workflowruns", "run", [{"op": "add", "path": "/spec/input", "value": {"x": 1}}], "json"),
    ),
    "binding: widened": Attack(
        "bindings", patch("secretbindings", "binding", {"spec": {"maxLifetimeSeconds": 9}}, "merge")
    ),
    "binding: given to the garbage collector": Attack(
        "bindings", patch("secretbindings", "binding", {"metadata": {"ownerReferences": [_NOBODY]}}, "merge")
    ),
    "binding: kept for ever": Attack(
        "bindings",
        patch("secretbindings", "binding", {"metadata": {"finalizers": ["example.com/keep"]}}, "merge"),
    ),
}


def test_every_way_is_refused(new_team: TeamMaker, tmp_path: Path) -> None:
    scene = scene_of(new_team())
    rows = {}
    for name, attack in ATTACKS.items():
        with pytest.raises(ApiError) as refused:
            attack.act(scene, {})
        rows[name] = told(refused.value.message, scene.team)
        assert scene.team.value not in str(refused.value.body)
    print(f"{len(rows)} attacks refused")
    check_golden("attacks.txt", rows, tmp_path)
    # A deletion that says nothing takes the Job along, and names of runs may begin as those of Jobs do.
    assert delete_run(scene, dryRun="All")
    assert scene.mallory.create(run(scene.team.namespace, "rk-mine", bindings=[]), dryRun="All")
    check_the_run_is_none_the_worse(scene)


def check_the_run_is_none_the_worse(scene: Scene) -> None:
    team = scene.team
    assert [pod["metadata"]["name"] for pod in team.client.list("pods", team.namespace)] == [scene.pod]
    team.tell_pod_to_finish(scene.pod)
    team.wait_phase("job", "Succeeded")
    assert team.secret_story() == ["made", "gone"]


INDIRECT: dict[str, Callable[[Scene], Object]] = {
    "Job": lambda scene: {"backoffLimit": 0, "template": {"spec": pod_spec(**scene.reads_variable())}},
    "Deployment": lambda scene: {
        "selector": {"matchLabels": {"app": "thief"}},
        "template": {
            "metadata": {"labels": {"app": "thief"}},
            "spec": {"containers": [container(**scene.reads_variable())]},
        },
    },
    "CronJob": lambda scene: {
        "schedule": "* * * * *",
        "jobTemplate": {"spec": {"template": {"spec": pod_spec(**scene.reads_variable())}}},
    },
}


def test_what_makes_pods_for_others_makes_none_that_can_steal(new_team: TeamMaker, tmp_path: Path) -> None:
    """The pod is made by a controller, much later than the object that asks for it was admitted."""
    scene = scene_of(new_team())
    team = scene.team
    for kind, spec in INDIRECT.items():
        scene.make(kind, "thief", spec(scene))
    rows = {}
    for kind in INDIRECT:
        by = "ReplicaSet" if kind == "Deployment" else "Job"
        event = wait_refused(team, by, "thief-" if kind != "Job" else "thief")
        rows[f"{kind}: its pod"] = told(event["message"], team)
    check_golden("attacks-by-controllers.txt", rows, tmp_path)
    check_the_run_is_none_the_worse(scene)


def test_a_job_with_a_selector_of_its_own_makes_no_pod_that_counts_for_another(new_team: TeamMaker) -> None:
    """The Job controller would count the pod for a run's Job once its own lets it go, and the run would succeed."""
    scene = scene_of(new_team())
    team = scene.team
    victim = team.client.get("jobs", scene.secret, team.namespace)["metadata"]["uid"]
    labels = {"evil": "yes", attacks_on_jobs.UID: victim}
    template = {"metadata": {"labels": labels}, "spec": pod_spec()}
    evil = {"manualSelector": True, "selector": {"matchLabels": {"evil": "yes"}}, "template": template}
    scene.make("Job", "evil", evil)
    assert (
        "names another Job than the one that the pod is created for"
        in wait_refused(team, "Job", "evil")["message"]
    )
    check_the_run_is_none_the_worse(scene)
    # the control
    with team.without_policies("pods"):
        scene.make("Job", "open", {**evil, "selector": {"matchLabels": {"evil": "yes"}}})
        wait_until(
            "the pod to be made", lambda: bool(team.client.list("pods", team.namespace, labels="evil=yes"))
        )


SHOWS_ITS_INPUT = f"print(open('{RUNTIME}/input/known.json').read())"


def test_a_task_is_given_what_its_run_says_whoever_gives_its_pod_a_node(new_team: TeamMaker) -> None:
    scene = scene_of(new_team())
    team = scene.team
    task = {"secrets": [], "input": [{"name": "known", "from": "input.known"}]}
    made = {
        name: team.make_run(
            name, command=python(SHOWS_ITS_INPUT), pod=UNPLACED, task=task, input={"known": 1}, bindings=[]
        )
        for name in ("kept", "open")
    }
    pods = {name: team.pod(found)["metadata"] for name, found in made.items()}
    with pytest.raises(ApiError, match="are the input of a task"):
        place(scene, scene.mallory, pods["kept"]["name"], annotations=INPUT)
    # A scheduler may send back what the pod has, as Volcano does.
    place(scene, team.client, pods["kept"]["name"], annotations=pods["kept"]["annotations"])
    team.wait_phase("kept", "Succeeded")
    assert team.output(made["kept"]) == "1\n"
    # the control
    with team.without_policies("pods"):
        place(scene, scene.mallory, pods["open"]["name"], annotations=INPUT)
    team.wait_phase("open", "Succeeded")
    assert team.output(made["open"]) == "2\n"


def wait_refused(team: Team, kind: str, name: str) -> Object:
    """The event that says that a controller may not make the pod."""
    for _, event in team.client.watch(
        "events", team.namespace, timeout=PATIENCE, fields="reason=FailedCreate"
    ):
        about = event["involvedObject"]
        exact = about["name"] == name
        if about["kind"] == kind and (exact or (name.endswith("-") and about["name"].startswith(name))):
            return event
    raise AssertionError(f"nothing refused the pod of {kind} {name} within {PATIENCE:g} s")


# what each policy is there for

TWINS = sorted({attack.policy for attack in ATTACKS.values()})


@pytest.mark.parametrize("policy", TWINS)
def test_control_without_its_policy_each_way_is_open(new_team: TeamMaker, policy: str) -> None:
    check_each_way_is_open(scene_of(new_team()), policy, secret_fields.VOLUMES.keys())


def test_control_without_its_policy_a_volume_may_name_the_secret(own_node: OwnNode, tmp_path: Path) -> None:
    """A volume is in no namespace: where there are other operators, their policies would refuse it, too."""
    node = own_node()
    install_crds(node)
    with team_in(node, make_namespace(node.client, "volumes"), tmp_path) as team:
        team.operator.start()
        others = ATTACKS.keys() - secret_fields.VOLUMES.keys()
        check_each_way_is_open(scene_of(team), "pods", others)


def check_each_way_is_open(scene: Scene, policy: str, but: Collection[str]) -> None:
    with scene.team.without_policies(policy):
        for name, attack in ATTACKS.items():
            if attack.policy == policy and name not in but:
                answer = attack.act(scene, {"dryRun": "All"})
                assert answer, name
                if attack.act in (applied, deleted_with_others):
                    assert base64.b64encode(scene.team.value.encode()).decode() in str(answer), name


def test_a_pod_that_is_too_large_to_be_looked_through_names_no_secret_of_a_run(new_team: TeamMaker) -> None:
    """To go through it would take the API server seconds, for anybody who may create pods."""
    team = new_team(start=False)
    many = [{"name": f"V{number}", "value": "x"} for number in range(1001)]
    last = {"name": "LAST", "valueFrom": {"secretKeyRef": {"name": "rk-of-a-run", "key": "k"}}}
    metadata = {"name": "large", "namespace": team.namespace}

    def told_of(env: list[Object]) -> str:
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(env=env)}
        try:
            team.client.create(made, dryRun="All")
        except ApiError as error:
            return error.message
        return ""

    assert told_of(many) == ""
    assert "too many to check" in told_of([*many, last])
    assert "refers to a Secret" in told_of([last])
    with team.without_policies("pods"):
        assert told_of([*many, last]) == ""
