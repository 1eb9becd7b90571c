"""Pods of one's own that count for a run's Job, pods that their Job does not know any more, Jobs that are changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testing.cluster.client import Object
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


def of_pod(change: object) -> Attack:
    return Attack("pods", patch("pods", "pod", change, "merge"))


ATTACKS = {
    "pod: counted for the run's Job": Attack("pods", counted(lambda job: {UID: job["uid"]})),
    "pod: bears the name of the run's Job": Attack("pods", counted(lambda job: {NAME: job["name"]})),
    "pod: bears the name of the run's Job, as of old": Attack(
        "pods", counted(lambda job: {"job-name": job["name"]})
    ),
    "pod: counted for the run's Job later": Attack("pods", relabelled),
    "the run's pod: released by its Job": of_pod({"metadata": {"labels": {UID: None}}}),
    "the run's pod: renamed": of_pod({"metadata": {"labels": {NAME: "another"}}}),
    "the run's pod: disowned": of_pod({"metadata": {"ownerReferences": None}}),
    "the run's pod: not counted": of_pod({"metadata": {"finalizers": None}}),
    "the run's pod: another input": of_pod({"metadata": {"annotations": {"runkeys.dev/input.known": "2"}}}),
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
}
