"""What policies and webhooks of others rewrite in a pod or Job: what decides who reads, and for how long."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from runkeys.names import ENVIRONMENT_VOLUME, RECIPIENT_VOLUME
from runkeys.planning.kubelet import SECRETS_VOLUME
from runkeys.planning.observation import PodView, Role
from runkeys.planning.readers import shape_of
from runkeys.planning.refusal import Reason
from tests.unit.planning.objects import bound_to, make_binding, make_run, task
from tests.unit.planning.world import World

Spec = dict[str, Any]
AS_FILE = [{"name": "api_token", "secret": "token", "file": "token"}]


def waits(delivery: str, **changes: Any) -> World:
    """A run whose pod has a node, and is as it was asked for but for ``changes`` of what is known of it."""
    secrets = [{"name": "other", "secret": "token"}, *AS_FILE]
    world = World(
        run=make_run(tasks=[task(secrets=secrets)]), bindings=bound_to(make_binding(delivery=delivery))
    )
    world.reconcile()
    world.bind_pod()
    change(world, **changes)
    return world


def change(world: World, **changes: Any) -> None:
    ((uid, pod),) = world.pods.items()
    world.pods[uid] = replace(pod, **changes)


def spec_of(world: World) -> Spec:
    return copy.deepcopy(next(iter(world.specs.values())))


def was_given(world: World) -> bool:
    world.reconcile()
    return bool(world.secrets or world.answered)


def refused(world: World) -> str:
    """The message of the refusal."""
    assert not was_given(world)
    (found,) = [item for item in world.run.status.conditions if item.type == "Stalled"]
    assert found.reason == Reason.POD_CHANGED
    return str(found.message)


def of_opener(field: str, value: Any) -> Callable[[Spec], None]:
    def edit(spec: Spec) -> None:
        spec["initContainers"][0][field] = value

    return edit


def of_context(field: str, value: Any) -> Callable[[Spec], None]:
    def edit(spec: Spec) -> None:
        spec["initContainers"][0]["securityContext"][field] = value

    return edit


def of_pod(field: str, value: Any = True) -> Callable[[Spec], None]:
    def edit(spec: Spec) -> None:
        spec[field] = value

    return edit


def renamed(name: str) -> Callable[[Spec], None]:
    """A volume of ours has another name, wherever it is used."""

    def edit(spec: Spec) -> None:
        mounts = [
            mount
            for kind in ("initContainers", "containers")
            for item in spec.get(kind, [])
            for mount in item.get("volumeMounts", [])
        ]
        for item in (*spec["volumes"], *mounts):
            if item["name"] == name:
                item["name"] = "innocent"

    return edit


def in_place_of(name: str, source: Spec) -> Callable[[Spec], None]:
    def edit(spec: Spec) -> None:
        spec["volumes"] = [
            {"name": name, **source} if item["name"] == name else item for item in spec["volumes"]
        ]

    return edit


def added(where: str, item: Any) -> Callable[[Spec], None]:
    def edit(spec: Spec) -> None:
        target = spec["initContainers"][0] if where in ("env", "volumeMounts") else spec
        target[where] = [*target.get(where, []), item]

    return edit


HOST = {"hostPath": {"path": "/tmp"}}
PROBE = {"exec": {"command": ["cat", "/values"]}}
BOTH = [
    *(of_pod(field) for field in ("hostPID", "hostIPC", "hostNetwork", "shareProcessNamespace")),
    renamed(SECRETS_VOLUME),
    in_place_of(SECRETS_VOLUME, HOST),
    added("volumes", {"name": "more", "secret": {"secretName": "rk-any"}}),
]
SEALED_ONLY = [
    renamed(RECIPIENT_VOLUME),
    renamed(ENVIRONMENT_VOLUME),
    in_place_of(ENVIRONMENT_VOLUME, HOST),
    of_opener("command", ["sh", "-c", "thief"]),
    of_opener("args", ["thief"]),
    of_opener("image", "thief:1"),
    of_opener("restartPolicy", "Always"),
    of_opener("startupProbe", PROBE),
    of_opener("lifecycle", {"postStart": PROBE}),
    of_opener("terminationMessagePath", "/var/run/runkeys-env/variables"),
    of_opener("terminationMessagePolicy", "FallbackToLogsOnError"),
    of_opener("envFrom", [{"configMapRef": {"name": "theirs"}}]),
    of_context("privileged", True),
    of_context("allowPrivilegeEscalation", True),
    of_context("capabilities", {"drop": ["ALL"], "add": ["SYS_PTRACE"]}),
    added("env", {"name": "LD_PRELOAD", "value": "/theirs/library.so"}),
    added("volumeMounts", {"name": "theirs", "mountPath": "/app"}),
    of_pod("initContainers", []),
]


@pytest.mark.parametrize(
    ("delivery", "edit"),
    [*(("Secret", edit) for edit in BOTH), *(("Sealed", edit) for edit in (*BOTH, *SEALED_ONLY))],
)
def test_a_pod_that_was_rewritten_gets_nothing(delivery: str, edit: Callable[[Spec], None]) -> None:
    world = waits(delivery)
    spec = spec_of(world)
    edit(spec)
    assert spec != spec_of(world), "nothing was changed"
    change(world, shape=shape_of(spec))

    assert "something in the cluster, such as a mutating policy or webhook" in refused(world)

    change(world, shape=shape_of(spec_of(world)))
    assert was_given(world)


def as_the_server_has_it(spec: Spec) -> None:
    """What the API server, its own admission and OpenShift fill in."""
    token = {"name": "kube-api-access-abcde", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    spec.update(hostNetwork=False, dnsPolicy="ClusterFirst", terminationGracePeriodSeconds=30)
    spec["volumes"].append({"name": token["name"], "projected": {"defaultMode": 420, "sources": []}})
    for volume in spec["volumes"]:
        if "projected" in volume:
            volume["projected"]["defaultMode"] = 420
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        container.update(
            terminationMessagePath="/dev/termination-log",
            terminationMessagePolicy="File",
            imagePullPolicy="Always",
            resources={"limits": {"cpu": "1"}},
        )
        container.setdefault("volumeMounts", []).append({**token, "readOnly": True})
        for variable in container.get("env", []):
            if "fieldRef" in variable.get("valueFrom", {}):
                variable["valueFrom"]["fieldRef"]["apiVersion"] = "v1"
        for mount in container["volumeMounts"]:
            if mount.get("readOnly") is False:
                del mount["readOnly"]
            elif mount.get("readOnly"):
                mount["recursiveReadOnly"] = "Disabled"
        context = container.setdefault("securityContext", {})
        context.update(runAsUser=1000700000, procMount="Default")


def with_a_sidecar(spec: Spec) -> None:
    spec["containers"].append({"name": "agent", "image": "vendor/agent:1", "volumeMounts": []})
    spec["volumes"].append({"name": "agents", "emptyDir": {}})


@pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
@pytest.mark.parametrize("edit", [as_the_server_has_it, with_a_sidecar])
def test_control_what_is_filled_in_or_added_makes_no_difference(
    delivery: str, edit: Callable[[Spec], None]
) -> None:
    world = waits(delivery)
    spec = spec_of(world)
    edit(spec)
    change(world, shape=shape_of(spec))

    assert was_given(world)


def test_what_the_run_asks_for_itself_is_no_change() -> None:
    template = {"spec": {"containers": [{"name": "main", "image": "ghcr.io/acme/app:1"}], "hostPID": True}}
    world = World(run=make_run(tasks=[task(template=template)]))
    world.reconcile()
    world.bind_pod()
    assert was_given(world)


# for how long


@pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"deadline_seconds": None},
            "activeDeadlineSeconds is missing, but the run and its bindings allow at most 3600",
        ),
        ({"deadline_seconds": 3601}, "activeDeadlineSeconds is 3601"),
        ({"grace_seconds": 601}, "terminationGracePeriodSeconds is 601"),
    ],
)
def test_a_pod_that_may_live_longer_gets_nothing(delivery: str, changes: dict[str, Any], told: str) -> None:
    assert told in refused(waits(delivery, **changes))


@pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
@pytest.mark.parametrize("seconds", [3599, 3600])
def test_control_one_that_may_live_as_long_or_shorter_does(delivery: str, seconds: int) -> None:
    assert was_given(waits(delivery, deadline_seconds=seconds))


@pytest.mark.parametrize("seconds", [None, 999999])
def test_a_job_that_stays_longer_gets_nothing(seconds: int | None) -> None:
    world = waits("Secret")
    for name, job in world.jobs.items():
        world.jobs[name] = replace(job, ttl_seconds=seconds)

    assert "ttlSecondsAfterFinished" in refused(world)


def without_a_deadline(world: World) -> PodView:
    for name, job in world.jobs.items():
        world.jobs[name] = replace(job, deadline_seconds=None)
    change(world, deadline_seconds=None)
    return next(iter(world.pods.values()))


def ended_as(world: World) -> tuple[str, str]:
    world.reconcile()
    attempt = world.run.status.tasks[0].attempts[0]
    return attempt.outcome, attempt.reason


def test_one_that_waits_without_a_deadline_is_ended_all_the_same() -> None:
    """An init container that was added runs, so that the start deadline does not end it."""
    world = waits("Secret")
    pod = without_a_deadline(world)
    agent = replace(pod.containers[0], name="agent", started=True, role=Role.INIT)
    change(world, containers=(agent, *pod.containers), phase="Running")
    world.reconcile()
    world.tick(3600 + 29)
    assert ended_as(world) == ("", "")
    world.tick(2)

    assert ended_as(world) == ("Failed", Reason.LIFETIME_EXCEEDED)
    assert not world.jobs


@pytest.mark.parametrize("secrets", [[], task()["secrets"]])
def test_the_deadline_of_the_task_is_kept_without_that_of_its_pod(secrets: list[Any]) -> None:
    world = World(run=make_run(tasks=[task(secrets=secrets, activeDeadlineSeconds=60)]))
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    assert bool(world.secrets) == bool(secrets)
    world.start_pod()
    without_a_deadline(world)
    world.reconcile()
    world.tick(61)
    world.reconcile()
    assert not world.secrets
    world.tick(30)

    assert ended_as(world) == ("Failed", Reason.LIFETIME_EXCEEDED)
    assert not world.jobs


def test_what_was_delivered_sealed_has_its_lifetime_too() -> None:
    world = waits("Sealed")
    world.reconcile()
    assert world.answered
    world.start_pod()
    world.reconcile()
    world.tick(3600 + 31)

    assert ended_as(world) == ("Failed", Reason.LIFETIME_EXCEEDED)
    assert not world.jobs
