"""The operator is upgraded while a pod waits for sealed delivery: its unseal container has the image of before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runkeys.names import UNSEALER
from runkeys.planning.observation import ContainerView
from runkeys.planning.readers import Shape
from runkeys.planning.refusal import Reason
from runkeys.planning.requirements import SealedSupport
from tests.unit.planning.objects import make_run, task
from tests.unit.planning.world import World

BEFORE, AFTER = SealedSupport(image="ours:1"), SealedSupport(image="ours:2")


def upgraded(*, attempts: int = 1, **of_pod: Any) -> World:
    """A run whose pod got its node while the operator was away, which is of the next version when it is back."""
    world = World(run=make_run(tasks=[task(delivery="Sealed", backoffLimit=0)]), support=BEFORE)
    world.reconcile()
    world.tick(5)
    world.reconcile()
    assert len(world.run.status.tasks[0].attempts) == attempts
    world.bind_pod()
    change(world, **of_pod)
    world.crash()
    world.support = AFTER
    return world


def change(world: World, **changes: Any) -> None:
    pods = {uid: replace(pod, **changes) for uid, pod in world.pods.items() if not pod.gone}
    world.pods |= pods


def without_the_image(world: World) -> None:
    """As if the image had not been on record: of an attempt that an older version began."""
    status = world.run.status
    attempt = status.tasks[0].attempts[0].model_copy(update={"unsealer": None})
    tasks = [status.tasks[0].model_copy(update={"attempts": [attempt]})]
    world.run = world.run.model_copy(update={"status": status.model_copy(update={"tasks": tasks})})


def test_the_pod_gets_its_values_in_the_image_that_its_job_was_created_with() -> None:
    world = upgraded()
    world.reconcile()

    assert len(world.answered) == 1
    (attempt,) = world.run.status.tasks[0].attempts
    assert (attempt.unsealer, attempt.outcome) == ("ours:1", "")


THIEF = ContainerView(UNSEALER, "thief:1", reads=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"containers": (THIEF, ContainerView("main", "ghcr.io/acme/app:1"))},
        {"shape": Shape(opener="of another version")},
    ],
    ids=["another image", "another shape"],
)
def test_one_that_is_not_as_this_version_makes_it_is_tried_again_at_once(changes: dict[str, Any]) -> None:
    world = upgraded(**changes)
    world.reconcile()

    assert not world.answered
    first = world.run.status.tasks[0].attempts[0]
    assert (first.outcome, first.reason) == ("Disrupted", Reason.DISRUPTED)
    assert "was upgraded" in world.run.status.tasks[0].message
    assert first.job not in world.jobs
    world.bring_to_end()
    assert world.run.status.phase == "Succeeded"
    assert [item.unsealer for item in world.run.status.tasks[0].attempts] == ["ours:1", "ours:2"]


def test_so_is_one_of_a_version_that_kept_no_record() -> None:
    world = upgraded()
    without_the_image(world)
    world.reconcile()

    assert not world.answered
    assert world.run.status.tasks[0].attempts[0].outcome == "Disrupted"
    world.bring_to_end()
    assert world.run.status.phase == "Succeeded"


def test_control_without_an_upgrade_nothing_is_tried_again() -> None:
    """A policy that changes the image would change that of the next pod, too."""
    world = upgraded(containers=(THIEF, ContainerView("main", "ghcr.io/acme/app:1")))
    world.support = BEFORE
    world.reconcile()

    assert not world.answered
    assert world.run.status.tasks[0].attempts[0].outcome == ""
    assert any(item.reason == Reason.POD_CHANGED for item in world.run.status.conditions)
