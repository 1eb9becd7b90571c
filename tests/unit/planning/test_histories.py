"""Any history of events, crashes and lost answers: the same invariants, and always an end with nothing left."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from runkeys.planning.actions import CreateJob, EnsureSecret, PatchStatus
from runkeys.planning.observation import JobState
from runkeys.planning.waiting import UNREAD
from tests.unit.planning.objects import make_run, task
from tests.unit.planning.world import World, check_answers, check_exposures

EVENTS: dict[str, Callable[[World], None]] = {
    "reconcile": World.reconcile,
    "pod gets a node": World.bind_pod,
    "pod has a node past the scheduler": lambda world: world.bind_pod(scheduled=False),
    "container starts": World.start_pod,
    "container ends": World.end_pod,
    "container fails": lambda world: world.end_pod(well=False),
    "pod deleted": World.remove_pod,
    "pod gone, and its Job goes on": World.take_pods_away,
    "pod refused by its node": World.refuse_pod,
    "Job suspended": World.suspend_jobs,
    "Job resumed": lambda world: world.suspend_jobs(on=False),
    "kubelet away": World.lose_kubelet,
    "kubelet there again": World.start_kubelet,
    "Job finishes": World.finish_jobs,
    "Job deleted": World.remove_jobs,
    "operator crashes": World.crash,
    "answer to the next call lost": lambda world: setattr(world, "lose_answer_in", 0),
    "answer to the call after that lost": lambda world: setattr(world, "lose_answer_in", 1),
    "cancelled": World.cancel,
    "run deleted": World.delete_run,
    "binding deleted": World.remove_bindings,
    "binding there again": World.restore_bindings,
    "source gone": lambda world: setattr(world, "source_there", False),
    "source there again": lambda world: setattr(world, "source_there", True),
    "a second passes": lambda world: world.tick(1),
    "half a minute passes": lambda world: world.tick(31),
    "two hours pass": lambda world: world.tick(7200),
}

# Lists without a least length have five items on average, in which little can happen.
histories = st.one_of(
    *(st.lists(st.sampled_from(sorted(EVENTS)), min_size=least, max_size=40) for least in (0, 15))
)


def check(world: World) -> None:
    """What holds after every event."""
    active = [job for job in world.jobs.values() if job.state is JobState.ACTIVE and not job.deleting]
    assert len(active) <= 1, "two live attempts of one task"
    assert len(world.secrets) <= 1
    for name in world.secrets:
        assert name in world.jobs, "a Secret without the Job that owns it"
        recorded = [
            exposure
            for status in world.run.status.tasks
            for attempt in status.attempts
            for exposure in attempt.exposures
            if exposure.deleted is None
        ]
        assert recorded or not world.run_there, "a Secret that the status does not speak of"


def check_history(world: World) -> None:
    """What holds over everything that the operator did."""
    variables: dict[str, set[str]] = {}
    for action in world.history:
        match action:
            case CreateJob(_, manifest):
                name = manifest["metadata"]["name"]
                variables[name] = {
                    item["valueFrom"]["secretKeyRef"]["key"]
                    for container in manifest["spec"]["template"]["spec"]["containers"]
                    for item in container.get("env", [])
                    if item.get("valueFrom", {}).get("secretKeyRef", {}).get("name") == name
                }
                assert all(
                    item["valueFrom"]["secretKeyRef"]["name"] == name
                    and item["valueFrom"]["secretKeyRef"]["optional"] is False
                    for container in manifest["spec"]["template"]["spec"]["containers"]
                    for item in container.get("env", [])
                    if "valueFrom" in item
                ), "a reference to a Secret that is not the attempt's own"
            case EnsureSecret(_, name, _, _, references):
                assert {reference.variable for reference in references} == variables[name]
            case _:
                pass


@given(histories)
@settings(max_examples=400)
def test_any_history_ends_with_nothing_left(history: list[str]) -> None:
    world = World()
    world.reconcile()
    for name in history:
        EVENTS[name](world)
        check(world)
        check_exposures(world)
    world.bring_to_end()
    check(world)
    check_exposures(world)
    check_history(world)
    assert world.over, f"never ends: {world.run.status.to_wire()}"
    assert not world.secrets, "a Secret is left"
    if world.run_there:
        status = world.run.status
        assert status.live == 0
        released = next(item for item in status.conditions if item.type == "SecretsReleased")
        assert released.status == "True"
        before = len(world.history)
        world.reconcile()
        world.reconcile()
        assert not any(isinstance(action, PatchStatus) for action in world.history[before:]), (
            "the status does not settle"
        )


@given(histories)
def test_a_task_without_secrets_never_has_one(history: list[str]) -> None:
    world = World(run=make_run(bindings=[], tasks=[task(secrets=[])]))
    for name in history:
        EVENTS[name](world)
        assert not world.secrets
    world.bring_to_end()
    assert world.over
    assert not any(isinstance(action, EnsureSecret) for action in world.history)


ASKS_AGAIN = {**EVENTS, "unsealed": World.unseal, "kubelet starts again": World.restart_kubelet}
GOES_ON = (
    "reconcile",
    "pod gets a node",
    "reconcile",
    "unsealed",
    "container starts",
    "kubelet starts again",
)


@given(st.lists(st.sampled_from([*GOES_ON * 4, *sorted(ASKS_AGAIN)]), min_size=10, max_size=40))
@settings(max_examples=400)
def test_a_sealed_task_has_one_answer_for_each_pod_and_never_a_secret(history: list[str]) -> None:
    world = World(run=make_run(tasks=[task(delivery="Sealed")]))
    world.reconcile()
    for name in history:
        ASKS_AGAIN[name](world)
        check_answers(world)
        assert not world.secrets
    world.bring_to_end()
    check_answers(world)
    assert world.over, f"never ends: {world.run.status.to_wire()}"
    assert not world.requests_left, "an answer is left"
    assert not any(isinstance(action, EnsureSecret) for action in world.history)


@given(histories)
def test_no_secret_waits_for_a_kubelet_for_long(history: list[str]) -> None:
    world = World()
    for name in ["reconcile", *history]:
        EVENTS[name](world)
        world.reconcile()
        for secret in world.secrets:
            mine = [
                pod for pod in world.pods.values() if pod.job_uid == world.jobs[secret].uid and not pod.over
            ]
            assert all(
                pod.taken or pod.bound_at is None or world.now < pod.bound_at + UNREAD for pod in mine
            ), "nobody reads it"


@given(histories, histories)
def test_events_between_two_passes_may_come_in_any_order(first: list[str], second: list[str]) -> None:
    """A pass looks at the state and never at the event: reconciling more often changes nothing at the end."""
    often, seldom = World(), World()
    calm = [name for name in first + second if "lost" not in name and "crash" not in name]
    for world, every in ((often, True), (seldom, False)):
        world.reconcile()
        for name in calm:
            EVENTS[name](world)
            if every:
                world.reconcile()
        world.bring_to_end()
    assert often.over
    assert seldom.over
    assert often.secrets == seldom.secrets == set()


@given(histories)
def test_no_secret_before_a_pod_has_a_node_and_none_after_it_ended(history: list[str]) -> None:
    world = World()
    for name in ["reconcile", *history]:
        EVENTS[name](world)
        done = len(world.history)
        pods, jobs = dict(world.pods), dict(world.jobs)
        world.reconcile()
        for action in world.history[done:]:
            if isinstance(action, EnsureSecret):
                mine = [pod for pod in pods.values() if pod.job_uid == action.job_uid]
                assert any(not pod.over and not pod.started for pod in mine), "no pod waits for this Secret"
                assert any(pod.taken or pod.scheduled for pod in mine), (
                    "no kubelet may be there for this Secret"
                )
                assert jobs[action.name].state is JobState.ACTIVE
