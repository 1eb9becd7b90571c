"""The attempt's own pod: which it is, that only it counts, and that it is as the run describes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runkeys.names import ENVIRONMENT_VOLUME, RECIPIENT_VOLUME, SIGNER, UNSEALER
from runkeys.planning import memory
from runkeys.planning.actions import Refresh
from runkeys.planning.kubelet import SECRETS_VOLUME
from runkeys.planning.observation import ContainerView, JobState, PodView
from runkeys.planning.plan import plan
from runkeys.planning.readers import readers
from runkeys.planning.refusal import Reason
from runkeys.planning.secret_paths import POD
from runkeys.planning.status import Outcome
from tests.unit.planning.objects import bound_to, make_binding, make_run, task
from tests.unit.planning.world import World

# which pod counts


def given(**of_task: Any) -> tuple[World, PodView]:
    """A run whose pod has its Secret and runs, and that pod."""
    world = World(run=make_run(tasks=[task(**of_task)]))
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    world.start_pod()
    world.reconcile()
    world.tick(5)
    world.reconcile()
    return world, next(iter(world.pods.values()))


def job_says_it_succeeded(world: World) -> None:
    for name, job in world.jobs.items():
        world.jobs[name] = replace(job, state=JobState.SUCCEEDED, finished_at=world.now)


def forge(world: World, own: PodView, **changes: Any) -> None:
    world.pods["forged"] = replace(own, uid="forged", name=f"{own.name[:-5]}zzzzz", **changes)


def ends_with(world: World) -> tuple[str, str]:
    world.reconcile()
    found = world.run.status.tasks[0]
    return found.state, found.reason


def test_the_pod_that_was_given_the_values_is_on_record() -> None:
    world, own = given()

    assert world.run.status.tasks[0].attempts[0].pod_uid == own.uid


@pytest.mark.parametrize(
    "own",
    [
        pytest.param({"gone": True}, id="killed"),
        pytest.param({"phase": "Failed"}, id="failed"),
        pytest.param({"job_uid": ""}, id="released-and-runs-on"),
        pytest.param({"job_uid": "", "gone": True}, id="released-and-killed"),
    ],
)
def test_the_success_of_another_pod_is_none(own: dict[str, Any]) -> None:
    world, pod = given()
    forge(world, pod, phase="Succeeded")
    world.pods[pod.uid] = replace(pod, **own)
    job_says_it_succeeded(world)

    assert ends_with(world) == ("Failed", Reason.POD_REPLACED)
    assert "zzzzz was counted instead" in world.run.status.tasks[0].message
    assert not world.secrets


def test_nor_that_of_a_pod_of_a_task_without_secrets() -> None:
    world, pod = given(secrets=[])
    forge(world, pod, phase="Succeeded")
    world.pods[pod.uid] = replace(pod, gone=True)
    job_says_it_succeeded(world)

    assert ends_with(world) == ("Failed", Reason.POD_REPLACED)


@pytest.mark.parametrize("secrets", [[], task()["secrets"]])
def test_nor_that_of_one_with_a_name_that_no_job_controller_gives(secrets: list[Any]) -> None:
    """Nobody has seen the pod of the Job."""
    world, pod = given(secrets=secrets)
    without_the_pod(world)
    world.pods = {"forged": replace(pod, uid="forged", name="innocent", phase="Succeeded")}
    job_says_it_succeeded(world)

    assert ends_with(world) == ("Failed", Reason.POD_REPLACED)
    assert "innocent was counted instead" in world.run.status.tasks[0].message


def test_control_of_a_pod_that_nobody_has_seen_the_job_is_believed() -> None:
    """The operator was away while it ran and went."""
    world, _ = given()
    without_the_pod(world)
    world.pods = {}
    job_says_it_succeeded(world)

    assert ends_with(world)[0] == "Succeeded"


def without_the_pod(world: World) -> None:
    """As if the pod had not been on record: of an attempt that an older version began."""
    status = world.run.status
    attempt = status.tasks[0].attempts[0].model_copy(update={"pod_uid": None})
    tasks = [status.tasks[0].model_copy(update={"attempts": [attempt]})]
    world.run = world.run.model_copy(update={"status": status.model_copy(update={"tasks": tasks})})


@pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
@pytest.mark.parametrize("seen", [True, False])
def test_an_attempt_that_was_given_nothing_cannot_have_succeeded(delivery: str, seen: bool) -> None:
    world = World(run=make_run(tasks=[task(delivery=delivery)]), source_there=False)
    world.memory = memory.sources_checked(world.memory, world.now, None)
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    ((uid, pod),) = world.pods.items()
    world.pods = {uid: replace(pod, phase="Succeeded")} if seen else {}
    job_says_it_succeeded(world)

    assert ends_with(world) == ("Failed", Reason.POD_REPLACED)
    assert "never got the secrets that it needs" in world.run.status.tasks[0].message


def test_control_one_that_needs_none_can() -> None:
    world = World(run=make_run(tasks=[task(secrets=[])]))
    world.reconcile()
    job_says_it_succeeded(world)

    assert ends_with(world)[0] == "Succeeded"


@pytest.mark.parametrize("phase", ["Running", "Failed"])
def test_one_that_was_seen_to_go_did_not_succeed_although_no_other_is_seen(phase: str) -> None:
    """Pods without the labels of a run are not looked at."""
    world, pod = given()
    world.pods[pod.uid] = replace(pod, gone=True, phase=phase)
    job_says_it_succeeded(world)

    assert ends_with(world) == ("Failed", Reason.POD_REPLACED)


def test_a_job_that_says_more_than_its_pod_is_not_believed() -> None:
    world, _ = given()
    job_says_it_succeeded(world)

    assert ends_with(world) == ("Failed", Reason.POD_REPLACED)


def test_first_the_pod_is_read_again() -> None:
    """The end of the Job may be shown before that of its pod."""
    world, own = given()
    job_says_it_succeeded(world)
    world.secrets.clear()
    world.memory = memory.secret_gone(world.memory, own.job_uid, world.now)
    world.fresh = False
    assert plan(world._observe(), world.now).actions == (Refresh(),)

    world.pods[own.uid] = replace(own, phase="Succeeded")
    assert ends_with(world)[0] == "Succeeded"


def test_what_it_wrote_is_that_of_its_own_pod() -> None:
    world, own = given(recordOutput=True)
    main = own.containers[-1]
    forge(world, own, phase="Succeeded", containers=(replace(main, ended=True, output='{"mine": 0}'),))
    world.pods[own.uid] = replace(
        own, phase="Succeeded", containers=(replace(main, ended=True, output='{"mine": 1}'),)
    )
    job_says_it_succeeded(world)

    assert ends_with(world)[0] == "Succeeded"
    assert world.run.status.tasks[0].output == {"mine": 1}


@pytest.mark.parametrize("seen", [True, False])
def test_of_a_pod_that_went_without_a_word_the_job_is_believed(seen: bool) -> None:
    world, own = given()
    world.pods = {own.uid: own.vanished()} if seen else {}
    job_says_it_succeeded(world)

    assert ends_with(world)[0] == "Succeeded"


def test_a_second_pod_ends_the_attempt_and_its_secret() -> None:
    """Its Job knows the first one no more, and the second one would find the Secret there."""
    world, own = given()
    assert world.secrets
    world.pods[own.uid] = replace(own, job_uid="")
    forge(world, own, phase="Pending", containers=(ContainerView("main", own.containers[-1].image),))
    world.reconcile()

    assert not world.secrets
    first = world.run.status.tasks[0].attempts[0]
    assert (first.outcome, first.reason) == (Outcome.DISRUPTED, Reason.POD_REPLACED)
    assert first.job not in world.jobs


# as what


def waits_for_its_secret(*containers: ContainerView, **binding: Any) -> tuple[World, PodView]:
    world = World(bindings=bound_to(make_binding(**binding)))
    world.reconcile()
    world.bind_pod()
    ((uid, pod),) = world.pods.items()
    world.pods[uid] = replace(pod, containers=(*pod.containers, *containers))
    world.reconcile()
    return world, pod


def test_a_container_that_was_added_gets_nothing() -> None:
    world, pod = waits_for_its_secret(ContainerView("agent", "vendor/agent:1", reads=True))

    assert not world.secrets
    found = next(item for item in world.run.status.conditions if item.type == "Stalled")
    assert found.reason == Reason.POD_CHANGED
    assert found.message.startswith(f"pod {pod.name}: container agent (vendor/agent:1) would get the secrets")

    world.pods[pod.uid] = pod
    world.reconcile()
    assert world.secrets


def test_one_that_reads_nothing_does_no_harm() -> None:
    assert waits_for_its_secret(ContainerView("agent", "vendor/agent:1"))[0].secrets


def test_another_image_in_place_of_the_one_that_opens_gets_nothing() -> None:
    world = World(bindings=bound_to(make_binding(delivery="Sealed")))
    world.reconcile()
    world.bind_pod()
    ((uid, pod),) = world.pods.items()
    world.pods[uid] = replace(
        pod, containers=(ContainerView(UNSEALER, "thief:1", reads=True), *pod.containers[1:])
    )
    world.reconcile()

    assert not world.answered
    assert any(item.reason == Reason.POD_CHANGED for item in world.run.status.conditions)


# who reads


def spec(added: dict[str, Any], **of_pod: Any) -> dict[str, Any]:
    return {"containers": [{"name": "main"}, {"name": "agent", **added}], **of_pod}


def at(path: str, value: str) -> dict[str, Any]:
    field, _, rest = path.partition(".")
    inner: Any = at(rest, value) if rest else value
    return {field.removesuffix("[]"): [inner] if field.endswith("[]") else inner}


@pytest.mark.parametrize("path", [path for path in POD if path.startswith("containers[]")])
def test_a_container_that_refers_to_the_secret_reads(path: str) -> None:
    (found,) = at(path, "rk-job-1")["containers"]

    assert readers(spec(found)) == {"agent"}
    assert readers(spec(at(path, "theirs")["containers"][0])) == set()


@pytest.mark.parametrize("path", [path for path in POD if path.startswith("volumes[]")])
def test_one_that_mounts_a_volume_of_it_reads(path: str) -> None:
    (volume,) = at(path, "rk-job-1")["volumes"]
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}

    assert readers(spec(mounts, volumes=[{"name": "v", **volume}])) == {"agent"}
    assert readers(spec({}, volumes=[{"name": "v", **volume}])) == set()


@pytest.mark.parametrize("volume", [RECIPIENT_VOLUME, ENVIRONMENT_VOLUME, SECRETS_VOLUME])
def test_one_that_mounts_what_is_delivered_sealed_reads(volume: str) -> None:
    reference = {"fileKeyRef": {"volumeName": volume, "path": "x", "key": "y"}}

    assert readers(spec({"volumeMounts": [{"name": volume, "mountPath": "/v"}]})) == {"agent"}
    assert readers(spec({"env": [{"name": "X", "valueFrom": reference}]})) == {"agent"}


def test_among_shared_processes_all_read() -> None:
    reference = {"secretKeyRef": {"name": "rk-job-1", "key": "k"}}
    shared = spec({"env": [{"name": "X", "valueFrom": reference}]}, shareProcessNamespace=True)

    assert readers(shared) == {"main", "agent"}
    assert readers({**shared, "containers": [{"name": "main"}]}) == set()
    of_node = {field: value for field, value in shared.items() if field != "shareProcessNamespace"}
    assert readers({**of_node, "hostPID": True}) == {"main", "agent"}


@pytest.mark.parametrize("volume", ["key", "filled"])
def test_what_is_delivered_sealed_is_found_under_any_name(volume: str) -> None:
    certificate = {"projected": {"sources": [{"podCertificate": {"signerName": SIGNER}}]}}
    volumes = [{"name": "key", **certificate}, {"name": "filled", "emptyDir": {}}, {"name": "certs"}]
    opens = [{"name": "key", "mountPath": "/k", "readOnly": True}, {"name": "filled", "mountPath": "/f"}]
    opener = {
        "name": UNSEALER,
        "volumeMounts": [*opens, {"name": "certs", "mountPath": "/c", "readOnly": True}],
    }
    mounts = {"volumeMounts": [{"name": volume, "mountPath": "/v"}]}

    assert readers(spec(mounts, volumes=volumes, initContainers=[opener])) == {UNSEALER, "agent"}
    reference = {"fileKeyRef": {"volumeName": volume, "path": "x", "key": "y"}}
    variable = {"env": [{"name": "X", "valueFrom": reference}]}
    assert readers(spec(variable, volumes=volumes, initContainers=[opener])) == {UNSEALER, "agent"}
    harmless = {"volumeMounts": [{"name": "certs", "mountPath": "/v"}]}
    assert readers(spec(harmless, volumes=volumes, initContainers=[opener])) == {UNSEALER}
