"""A run whose planning raises says so, and keeps no Secret."""

from __future__ import annotations

from runkeys.planning.actions import Action, DeleteJob, DeleteSecret, PatchStatus
from runkeys.planning.defect import plan_after_defect
from tests.unit.planning.test_plan import condition
from tests.unit.planning.world import World

WHAT = "TypeError in runkeys.planning.graph.graph_refusals:27"


def after_defect(world: World) -> list[Action]:
    """What is done until nothing is left to do, as the controller does it."""
    done: list[Action] = []
    for _ in range(20):
        step = plan_after_defect(world._observe(), world.now, WHAT)
        if not step.actions:
            return done
        for action in step.actions:
            world._do(action)
            done.append(action)
    raise AssertionError("it does not settle")


def with_secret() -> World:
    world = World()
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    assert world.secrets
    return world


def test_the_run_says_that_it_is_a_defect_and_no_value() -> None:
    world = World()

    assert [type(action) for action in after_defect(world)] == [PatchStatus]
    assert condition(world, "Stalled") == ("True", "Defect")
    message = next(item.message for item in world.run.status.conditions if item.type == "Stalled")
    assert message.startswith(f"the operator raised {WHAT}. This is a defect of Runkeys")
    assert (world.run.status.phase, world.run.status.live) == ("Pending", 0)
    assert after_defect(world) == [], "it says so once"


def test_a_secret_that_may_exist_is_deleted_first() -> None:
    world = with_secret()

    assert [type(action) for action in after_defect(world)] == [DeleteSecret, PatchStatus]
    assert world.secrets == set()
    assert world.run.status.live == 0
    assert world.run.status.tasks[0].attempts[0].exposures[0].deleted is not None
    assert world.jobs, "what runs may go on"


def test_an_operator_that_was_started_since_deletes_it_too() -> None:
    world = with_secret()
    world.crash()

    after_defect(world)

    assert world.secrets == set()


def test_a_cancelled_or_suspended_run_loses_its_job_as_well() -> None:
    for stop in (World.cancel, World.suspend):
        world = with_secret()
        stop(world)

        done = after_defect(world)

        assert {type(action) for action in done} == {DeleteSecret, DeleteJob, PatchStatus}, stop


def test_once_it_is_mended_the_run_goes_on() -> None:
    world = World()
    after_defect(world)

    world.bring_to_end()

    assert world.run.status.phase == "Succeeded"
    assert condition(world, "Stalled")[0] == "False"


def test_a_finished_run_stays_as_it_is() -> None:
    world = World()
    world.bring_to_end()
    before = world.run.status

    after_defect(world)

    assert world.run.status == before
