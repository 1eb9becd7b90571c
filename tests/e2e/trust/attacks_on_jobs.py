"""Pods that count for a run's Job or do so no more, Jobs that are changed, Jobs and runs that leave things behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.e2e.cluster.client import Object
from tests.e2e.runs.team import run
from tests.e2e.trust.scene import Attack, Scene, patch, pod_spec

UID, NAME = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"


def counted(labels: Callable[[Object], Object]) -> Callable[..., object]:
    """A pod that says nothing of its owner, and has labels by which the Job controller may take it for the Job's."""

    def act(scene: Scene, dry: dict[str, Any]) -> object:
        job = scene.team.client.get("jobs", scene.secret, scene.team.namespace)
        return scene.make("Pod", "forged", pod_spec(), metadata={"labels": labels(job["metadata"])}, **dry)

    return act


def relabelled(scene: Scene, dry: dict[str, Any]) -> object:
    """The same, of a pod that was made without."""
    there = scene.team.client.list("pods", scene.team.namespace, labels="app=mine")
    if not there:
        scene.make("Pod", "mine", pod_spec(), metadata={"labels": {"app": "mine"}})
    job = scene.team.client.get("jobs", scene.secret, scene.team.namespace)
    labels = {UID: job["metadata"]["uid"]}
    try:
        return scene.mallory.patch(
            "pods", "mine", scene.team.namespace, {"metadata": {"labels": labels}}, **dry
        )
    finally:
        scene.team.client.delete("pods", "mine", scene.team.namespace, gracePeriodSeconds=0)


def of_job(change: object, sub: str = "") -> Attack:
    return Attack("names", patch("jobs", "secret", change, "merge", sub))


def deleted(**options: Any) -> Attack:
    def act(scene: Scene, dry: dict[str, Any]) -> object:
        path = f"/apis/batch/v1/namespaces/{scene.team.namespace}/jobs/{scene.secret}"
        return scene.mallory.request("DELETE", path, query={**options, **dry})

    return Attack("names", act)


def delete_run(scene: Scene, **query: Any) -> object:
    path = f"/apis/runkeys.dev/v1alpha1/namespaces/{scene.team.namespace}/workflowruns"
    return scene.mallory.request("DELETE", path if "fieldSelector" in query else f"{path}/job", query=query)


def run_deleted(**options: Any) -> Attack:
    return Attack("names", lambda scene, dry: delete_run(scene, **options, **dry))


def run_deleted_by_a_finalizer(scene: Scene, dry: dict[str, Any]) -> object:
    """It says beforehand what a deletion is to leave behind that says nothing, as that of the garbage collector."""
    here = ("workflowruns", "job", scene.team.namespace)
    scene.mallory.patch(*here, {"metadata": {"finalizers": ["orphan"]}})
    try:
        return delete_run(scene, **dry)
    finally:
        scene.team.client.patch(*here, {"metadata": {"finalizers": None}})


def run_made_with_a_finalizer(scene: Scene, dry: dict[str, Any]) -> object:
    made = run(scene.team.namespace, "left", bindings=[], task={"secrets": []})
    made["metadata"]["finalizers"] = ["orphan"]
    return scene.mallory.create(made, **dry)


def of_pod(change: object, sub: str = "") -> Attack:
    return Attack("pods", patch("pods", "pod", change, "merge", sub))


OF_POD: dict[str, Object] = {
    "released by its Job": {"labels": {UID: None}},
    "renamed": {"labels": {NAME: "another"}},
    "not counted": {"finalizers": None},
    "another input": {"annotations": {"runkeys.dev/input.known": "2"}},
    "label taken off": {"labels": {"runkeys.dev/run": None}},
}

ATTACKS = {
    "pod: counted for the run's Job": Attack("pods", counted(lambda job: {UID: job["uid"]})),
    "pod: bears the name of the run's Job": Attack("pods", counted(lambda job: {NAME: job["name"]})),
    "pod: bears the name of the run's Job, as of old": Attack(
        "pods", counted(lambda job: {"job-name": job["name"]})
    ),
    "pod: counted for the run's Job later": Attack("pods", relabelled),
    **{f"the run's pod: {how}": of_pod({"metadata": change}) for how, change in OF_POD.items()},
    "the run's pod: disowned": of_pod({"metadata": {"ownerReferences": None}}),
    **{
        f"the run's pod: {how}, with its status": of_pod({"metadata": change}, "status")
        for how, change in OF_POD.items()
    },
    "the run's Job: gone at once": of_job({"spec": {"ttlSecondsAfterFinished": 0}}),
    "the run's Job: kept": of_job({"metadata": {"finalizers": ["example.com/keep"]}}),
    "the run's Job: disowned": of_job({"metadata": {"ownerReferences": None}}),
    "the run's Job: suspended": of_job({"spec": {"suspend": True}}),
    "the run's Job: another deadline": of_job({"spec": {"activeDeadlineSeconds": 1}}),
    "the run's Job: annotated": of_job({"metadata": {"annotations": {"example.com/note": "x"}}}),
    "the run's Job: status written": of_job({"status": {"terminating": 1}}, "status"),
    "the run's Job: deleted without its pod": deleted(propagationPolicy="Orphan"),
    "the run's Job: deleted, and nothing is said of its pod": deleted(),
    "the run's Job: deleted, in the old way, without its pod": deleted(orphanDependents="true"),
    "run: deleted without its Job": run_deleted(propagationPolicy="Orphan"),
    "run: deleted, in the old way, without its Job": run_deleted(orphanDependents="true"),
    "run: deleted with others, without its Job": run_deleted(
        propagationPolicy="Orphan", fieldSelector="metadata.name=job"
    ),
    "run: deleted, and a finalizer keeps its Job": Attack("names", run_deleted_by_a_finalizer),
    "run: made with the finalizer that keeps its Job": Attack("names", run_made_with_a_finalizer),
}
