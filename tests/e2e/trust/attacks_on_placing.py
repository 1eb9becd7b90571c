"""Labels and annotations that a pod gets together with its node: whoever binds it can send some along."""

from __future__ import annotations

from typing import Any

from tests.e2e.cluster.client import KubeClient, Object
from tests.e2e.trust.attacks_on_jobs import NAME, UID
from tests.e2e.trust.scene import Attack, Scene, pod_spec

UNPLACED: Object = {"schedulerName": "nobody"}
"""Part of a pod spec: no scheduler gives the pod a node."""


def place(scene: Scene, by: KubeClient, pod: str, *, old_way: bool = False, **more: Any) -> object:
    """Give a pod the cluster's first node. ``more``: metadata of the Binding, and parameters of the request."""
    node = scene.team.client.list("nodes")[0]["metadata"]["name"]
    metadata: Object = {"name": pod}
    metadata |= {key: more.pop(key) for key in ("labels", "annotations") if key in more}
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    made = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
    path = "bindings" if old_way else f"pods/{pod}/binding"
    return by.request("POST", f"/api/v1/namespaces/{scene.team.namespace}/{path}", query=more, body=made)


def placed(old_way: bool = False, **metadata: Any) -> Attack:
    """A pod of one's own stands for the run's, which has its node already."""

    def act(scene: Scene, dry: dict[str, Any]) -> object:
        namespace = scene.team.namespace
        scene.make("Pod", "unplaced", {**pod_spec(), **UNPLACED})
        try:
            return place(scene, scene.mallory, "unplaced", old_way=old_way, **metadata, **dry)
        finally:
            scene.team.client.delete("pods", "unplaced", namespace, gracePeriodSeconds=0)
            scene.team.client.wait_gone("pods", "unplaced", namespace)

    return Attack("pods", act)


INPUT = {"runkeys.dev/input.known": "2"}

ATTACKS = {
    "a pod's node: with another input": placed(annotations=INPUT),
    "a pod's node: with another input, in the old way": placed(old_way=True, annotations=INPUT),
    "a pod's node: with a label of a run": placed(labels={"runkeys.dev/run": "job"}),
    "a pod's node: with a label of a run, in the old way": placed(
        old_way=True, labels={"runkeys.dev/run": "job"}
    ),
    "a pod's node: counted for a Job": placed(labels={UID: "00000000-0000-4000-8000-000000000000"}),
    "a pod's node: with the name of a Job": placed(labels={NAME: "rk-job"}),
    "a pod's node: with the name of a Job, as of old": placed(labels={"job-name": "rk-job"}),
}
