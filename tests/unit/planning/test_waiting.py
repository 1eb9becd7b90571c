"""What keeps a pod from starting: since when, what is said of it, and when it has taken too long."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from runkeys.planning.actions import CreateJob, EnsureSecret
from runkeys.planning.observation import ContainerView, PodView, Role
from runkeys.planning.refusal import Reason
from runkeys.planning.status import Outcome
from tests.unit.planning.objects import START, later, make_run, task
from tests.unit.planning.world import World

IMAGE = "ghcr.io/acme/app:1"


def container(name: str = "main", role: Role = Role.MAIN, **fields: Any) -> ContainerView:
    return ContainerView(name, IMAGE, role=role, restartable=role is Role.SIDECAR, **fields)


def ran(name: str, until: float, role: Role = Role.INIT) -> ContainerView:
    return container(name, role, started=True, ended=True, exit_code=0, ended_at=later(until))


def runs(name: str, role: Role = Role.MAIN) -> ContainerView:
    return container(name, role, started=True)


def waits(name: str = "main", role: Role = Role.MAIN) -> ContainerView:
    return container(name, role, waiting="ImagePullBackOff")


@pytest.mark.parametrize(
    ("containers", "since"),
    [
        pytest.param([waits()], START, id="nothing has started"),
        pytest.param([ran("open", 7), waits()], later(7), id="an init container has ended"),
        pytest.param([ran("open", 7), ran("own", 9), waits()], later(9), id="two have"),
        pytest.param([ran("open", 7), runs("own", Role.INIT), waits()], None, id="one still runs"),
        pytest.param([ran("open", 7), waits("own", Role.INIT), waits()], later(7), id="one cannot start"),
        pytest.param([runs("proxy", Role.SIDECAR), waits()], START, id="a sidecar is no progress"),
        pytest.param([waits(), runs("side")], START, id="nor is a container beside the task's"),
        pytest.param([runs("debug", Role.EPHEMERAL), waits()], START, id="nor is one for debugging"),
        pytest.param([runs("main"), waits("side")], None, id="the task's own runs"),
        pytest.param(
            [ran("main", 8, Role.MAIN), waits("side")], later(8), id="it has ended, and another waits"
        ),
        pytest.param([runs("main")], None, id="all have started"),
        pytest.param([runs("main"), container("d", Role.EPHEMERAL)], None, id="one for debugging need not"),
    ],
)
def test_since_when_a_pod_is_stuck(containers: list[ContainerView], since: datetime | None) -> None:
    pod = PodView("p", "u", "j", START, "Pending", "default", tuple(containers))
    assert pod.stuck_since(["main"]) == since
    assert replace(pod, phase="Failed").stuck_since(["main"]) is None


def test_of_two_containers_of_the_task_one_that_runs_is_progress() -> None:
    pod = PodView("p", "u", "j", START, "Pending", "default", (runs("a"), waits("b")))
    assert pod.stuck_since(["a", "b"]) is None
    pod = replace(pod, containers=(ran("a", 5, Role.MAIN), waits("b")))
    assert pod.stuck_since(["a", "b"]) == later(5)


@pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
def test_the_start_deadline_counts_from_the_end_of_the_init_container(delivery: str) -> None:
    world = World(run=make_run(tasks=[task(startDeadlineSeconds=60, delivery=delivery)]))
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    world.tick(50)
    opened = ran("runkeys-open" if delivery == "Sealed" else "own", 50)
    message = 'Back-off pulling image "x": ErrImagePull: rpc error: x: not found'
    set_containers(world, opened, replace(waits(), message=message))
    world.reconcile()
    world.tick(3)
    world.reconcile()
    (found,) = world.run.status.tasks
    assert (found.state, found.reason) == ("Waiting", "ImagePullBackOff")
    assert found.message.endswith("-00000 waits: rpc error: x: not found")
    assert IMAGE in found.message
    conditions = {item.type: item for item in world.run.status.conditions}
    assert conditions["Reconciling"].message == found.message
    world.tick(56)
    world.reconcile()
    assert not world.run.status.finished
    world.tick(1)
    world.reconcile()
    (found,) = world.run.status.tasks
    assert found.reason == Reason.START_DEADLINE_EXCEEDED
    assert (
        "container main did not start within 60 s (ImagePullBackOff: rpc error: x: not found)"
        in found.message
    )
    assert not world.secrets


def test_the_two_words_for_an_image_that_cannot_be_pulled_are_one_message() -> None:
    world = World()
    world.reconcile()
    world.bind_pod()
    told = set()
    for waiting, message in (
        ("ErrImagePull", "rpc error: x: not found"),
        ("ImagePullBackOff", 'Back-off pulling image "x": ErrImagePull: rpc error: x: not found'),
    ):
        set_containers(world, replace(waits(), waiting=waiting, message=message))
        world.tick(5)
        world.reconcile()
        world.tick(5)
        world.reconcile()
        (found,) = world.run.status.tasks
        told.add((found.reason, found.message))
    assert len(told) == 1


def test_a_container_beside_that_cannot_start_is_told_while_the_task_runs() -> None:
    world = World()
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    set_containers(world, runs("main"), waits("side"))
    for _ in range(2):
        world.tick(5)
        world.reconcile()
    (found,) = world.run.status.tasks
    assert (found.state, found.reason) == ("Running", "ImagePullBackOff")
    set_containers(world, runs("main"), replace(waits("proxy", Role.SIDECAR), started=True))
    for _ in range(2):
        world.tick(5)
        world.reconcile()
    (found,) = world.run.status.tasks
    assert (found.state, found.reason) == ("Running", ""), (
        "one that starts again by itself is none of its business"
    )


def set_containers(world: World, *containers: ContainerView) -> None:
    ((uid, pod),) = world.pods.items()
    world.pods[uid] = replace(pod, containers=containers)


# no kubelet


def test_no_secret_for_a_pod_that_no_scheduler_gave_its_node_before_a_kubelet_has_it() -> None:
    world = World()
    world.lose_kubelet()
    world.reconcile()
    world.bind_pod(scheduled=False)
    world.reconcile()
    assert not any(isinstance(action, EnsureSecret) for action in world.history)
    world.tick(30)
    world.reconcile()
    world.tick(2)
    world.reconcile()
    (found,) = world.run.status.tasks
    assert (found.state, found.reason) == ("Waiting", Reason.NODE_UNREACHABLE)
    assert "kubectl get node node1" in found.message
    world.tick(100)
    world.reconcile()
    assert world.run.status.live == 0
    world.start_kubelet()
    world.reconcile()
    assert world.secrets
    assert world.run.status.tasks[0].state == "Running"


def test_a_secret_for_which_no_kubelet_comes_goes_after_a_minute() -> None:
    world = World()
    world.lose_kubelet()
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    assert world.secrets
    world.tick(32)
    world.reconcile()
    world.tick(2)
    world.reconcile()
    assert world.run.status.tasks[0].reason == Reason.NODE_UNREACHABLE
    world.tick(25)
    world.reconcile()
    assert world.secrets
    world.tick(1)
    world.reconcile()
    assert not world.secrets
    (first, *_) = world.run.status.tasks[0].attempts
    assert (first.outcome, first.reason) == (Outcome.DISRUPTED, Reason.NODE_UNREACHABLE)
    assert first.message == f"no kubelet of node node1 took pod {first.job}-00000 within 60 s"
    assert sum(isinstance(action, CreateJob) for action in world.history) == 2


@pytest.mark.parametrize(("deadline", "seconds"), [(20, 20), (90, 60)])
def test_a_kubelet_that_takes_the_pod_in_time_is_given_the_whole_start_deadline(
    deadline: int, seconds: int
) -> None:
    world = World(run=make_run(tasks=[task(startDeadlineSeconds=deadline)]))
    world.lose_kubelet()
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    world.tick(seconds - 1)
    world.start_kubelet()
    world.tick(deadline - seconds)
    world.reconcile()
    assert world.secrets
    world.tick(1)
    world.reconcile()
    assert world.run.status.tasks[0].reason == Reason.START_DEADLINE_EXCEEDED


def test_a_pod_without_a_secret_that_no_kubelet_takes_is_disrupted_at_the_start_deadline() -> None:
    world = World(run=make_run(tasks=[task(startDeadlineSeconds=90, secrets=[])]))
    world.lose_kubelet()
    world.reconcile()
    world.bind_pod()
    world.tick(89)
    world.reconcile()
    assert [item.outcome for item in world.run.status.tasks[0].attempts] == [""]
    world.tick(1)
    world.reconcile()
    (first, *_) = world.run.status.tasks[0].attempts
    assert (first.outcome, first.reason) == (Outcome.DISRUPTED, Reason.NODE_UNREACHABLE)


@pytest.mark.parametrize(
    ("status", "taken"),
    [
        ({}, False),
        ({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}, False),
        (
            {
                "phase": "Pending",
                "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}],
            },
            False,
        ),
        ({"phase": "Pending", "startTime": "2026-01-05T12:00:00Z"}, True),
        ({"phase": "Running"}, True),
        ({"containerStatuses": [{"name": "main", "state": {"waiting": {}}}]}, True),
    ],
)
def test_what_shows_that_a_kubelet_has_a_pod(status: dict[str, Any], taken: bool) -> None:
    metadata = {"name": "p", "uid": "u"}
    spec = {"nodeName": "n", "containers": [{"name": "main", "image": IMAGE}]}
    found = PodView.parse({"metadata": metadata, "spec": spec, "status": status})
    assert found.taken is taken
    assert found.scheduled is any(item["type"] == "PodScheduled" for item in status.get("conditions", []))
