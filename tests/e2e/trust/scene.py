"""A run at work, and somebody who wants its value: what the attacks have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.e2e.cluster.base import wait_until
from tests.e2e.cluster.client import ApiError, KubeClient, Object
from tests.e2e.runs.team import FINISHES_WHEN_TOLD, TASK_IMAGE, Team, python
from tests.e2e.sealed.people import give

EVERYTHING = ["create", "get", "list", "watch", "patch", "update", "delete", "deletecollection"]
RIGHTS: list[Object] = [
    {"apiGroups": [group], "resources": resources, "verbs": EVERYTHING}
    for group, resources in (
        ("runkeys.dev", ["workflowruns", "workflowruns/status", "secretbindings", "secretbindings/status"]),
        ("", ["pods", "pods/ephemeralcontainers", "pods/status", "configmaps", "events"]),
        ("", ["pods/binding", "bindings"]),
        ("batch", ["jobs", "jobs/status", "cronjobs"]),
        ("apps", ["deployments", "replicasets"]),
    )
] + [
    {
        "apiGroups": [""],
        "resources": ["secrets"],
        "verbs": ["create", "patch", "update", "delete", "deletecollection"],
    }
]


@dataclass(frozen=True)
class Scene:
    """A run at work, its Secret and its pod, and the one who wants the value."""

    team: Team
    mallory: KubeClient
    secret: str
    pod: str

    def make(self, kind: str, name: str, spec: Object, **options: Any) -> Object:
        version = {"Pod": "v1", "Job": "batch/v1", "CronJob": "batch/v1", "Deployment": "apps/v1"}[kind]
        metadata = {"name": name, "namespace": self.team.namespace, **options.pop("metadata", {})}
        made = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
        return self.mallory.create(made, **options)

    def reads_variable(self) -> Object:
        reference = {"secretKeyRef": {"name": self.secret, "key": "SECRET_API_TOKEN"}}
        return {"env": [{"name": "STOLEN", "valueFrom": reference}]}


def container(**more: Any) -> Object:
    return {"name": "main", "image": TASK_IMAGE, "imagePullPolicy": "IfNotPresent", **more}


def pod_spec(*, volume: Object | None = None, **of_container: Any) -> Object:
    spec: Object = {"restartPolicy": "Never", "containers": [container(**of_container)]}
    if volume is not None:
        spec["volumes"] = [{"name": "stolen", **volume}]
    return spec


@dataclass(frozen=True)
class Attack:
    """One way. ``act(scene, dry)``: as it is, or only to see whether it would be let through.

    :ivar policy: which one refuses it.
    """

    policy: str
    act: Callable[[Scene, dict[str, Any]], object]


def patch(
    resource: str, which: str, change: object, how: Any = "strategic", sub: str = ""
) -> Callable[..., object]:
    def act(scene: Scene, dry: dict[str, Any]) -> object:
        name = {"pod": scene.pod, "secret": scene.secret, "run": "job", "binding": "keys"}[which]
        return scene.mallory.patch(resource, name, scene.team.namespace, change, how, sub, **dry)

    return act


def scene_of(team: Team) -> Scene:
    team.make_source()
    team.make_binding()
    found = team.make_run(command=python(FINISHES_WHEN_TOLD), input={"known": 1})
    pod = team.wait_running(found)
    give(team, "mallory", "mallory", RIGHTS)
    mallory = team.client.as_user("mallory")
    wait_until("mallory to be let in", lambda: may_list(mallory, team.namespace))
    return Scene(team, mallory, team.object_name(found), pod["metadata"]["name"])


def may_list(client: KubeClient, namespace: str) -> bool:
    try:
        client.list("deployments", namespace)
    except ApiError:
        return False
    return True
