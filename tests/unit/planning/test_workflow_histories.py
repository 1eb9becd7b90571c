"""Any graph of tasks and any history of events, crashes included, against what must hold of the whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runkeys.api import TaskStatus
from runkeys.planning.actions import CreateJob, Deliver, EnsureSecret, PatchStatus
from runkeys.planning.observation import JobState
from runkeys.planning.status import Outcome, State
from tests.unit.planning.objects import make_run, task
from tests.unit.planning.world import World, check_answers, check_exposures

Event = tuple[str, int]

OF_A_TASK: dict[str, Callable[[World, str], None]] = {
    "pod gets a node": World.bind_pod,
    "container starts": World.start_pod,
    "container ends": World.end_pod,
    "container fails": lambda world, name: world.end_pod(name, well=False),
    "drained": World.drain,
    "unsealed": World.unseal,
    "kubelet starts again": World.restart_kubelet,
}
OF_ALL: dict[str, Callable[[World], None]] = {
    "reconcile": World.reconcile,
    "pods get nodes": World.bind_pod,
    "Jobs finish": World.finish_jobs,
    "pods deleted": World.remove_pod,
    "Jobs deleted": World.remove_jobs,
    "operator crashes": World.crash,
    "answer to the next call lost": lambda world: setattr(world, "lose_answer_in", 0),
    "answer to the call after that lost": lambda world: setattr(world, "lose_answer_in", 1),
    "cancelled": World.cancel,
    "suspended": World.suspend,
    "resumed": lambda world: world.suspend(on=False),
    "run deleted": World.delete_run,
    "binding deleted": World.remove_bindings,
    "binding there again": World.restore_bindings,
    "ten seconds pass": lambda world: world.tick(10),
    "half a minute passes": lambda world: world.tick(31),
    "two hours pass": lambda world: world.tick(7200),
}
GOES_ON = [
    "reconcile",
    "pods get nodes",
    "reconcile",
    "container starts",
    "reconcile",
    "container ends",
    "Jobs finish",
    "ten seconds pass",
]
# Most of what happens is that work goes on; else nearly every history would be over before a value was handed out.
events = st.tuples(st.sampled_from([*GOES_ON * 6, *sorted([*OF_A_TASK, *OF_ALL])]), st.integers(0, 4))
# Lists without a least length have five items on average, in which little can happen.
histories = st.one_of(st.lists(events, max_size=12), st.lists(events, min_size=20, max_size=60))


@st.composite
def graphs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One to five tasks, each after some of those above it."""
    tasks: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 5))):
        runs = draw(st.sampled_from(["OnSuccess", "OnSuccess", "OnSuccess", "Always"]))
        above = [item["name"] for item in tasks if runs == "Always" or item["runs"] != "Always"]
        fields: dict[str, Any] = {
            "name": f"t{index}",
            "dependsOn": draw(st.lists(st.sampled_from(above), unique=True)) if above else [],
            "backoffLimit": draw(st.integers(0, 2)),
            "runs": runs,
            "releasePolicy": draw(st.sampled_from(["OnStart", "OnCompletion"])),
        }
        if draw(st.booleans()):
            fields["secrets"] = []
        elif draw(st.booleans()):
            fields["delivery"] = "Sealed"
        tasks.append(task(**fields))
    return tasks


def happen(world: World, event: Event) -> None:
    name, which = event
    if name in OF_ALL:
        OF_ALL[name](world)
    else:
        tasks = world.run.spec.tasks
        OF_A_TASK[name](world, tasks[which % len(tasks)].name)


def ended_well(world: World, name: str) -> bool:
    """Whether the cluster itself knows that an attempt of the task succeeded."""
    recorded = next((item for item in world.run.status.tasks if item.name == name), None)
    done = recorded is not None and any(item.outcome == Outcome.SUCCEEDED for item in recorded.attempts)
    return done or any(
        job.state is JobState.SUCCEEDED and world.task_of[job.name] == name for job in world.jobs.values()
    )


def check_now(world: World) -> None:
    """What holds after every event."""
    active = Counter(
        world.task_of[job.name]
        for job in world.jobs.values()
        if job.state is JobState.ACTIVE and not job.deleting
    )
    assert all(count == 1 for count in active.values()), f"several live attempts of a task: {active}"
    open_exposures = {
        attempt.job
        for status in world.run.status.tasks
        for attempt in status.attempts
        for exposure in attempt.exposures
        if exposure.deleted is None
    }
    for name in world.secrets:
        assert name in world.jobs, "a Secret without the Job that owns it"
        assert name in open_exposures or not world.run_there, "a Secret that the status does not speak of"
    check_answers(world)
    check_exposures(world)


def check_new(world: World, since: int) -> None:
    """What holds of each action when it is taken."""
    tasks = {item.name: item for item in world.run.spec.tasks}
    for action in world.history[since:]:
        if isinstance(action, CreateJob) and tasks[action.task].runs != "Always":
            for name in tasks[action.task].depends_on:
                assert ended_well(world, name), f"{action.task} was started before {name} had succeeded"
            assert not world.run.spec.cancel
        if isinstance(action, EnsureSecret):
            assert tasks[action.task].secrets, "a Secret for a task that asks for none"
            assert tasks[action.task].delivery != "Sealed", (
                "a Secret for a task that asks for sealed delivery"
            )
        if isinstance(action, Deliver):
            assert tasks[action.task].delivery == "Sealed"


def check_end(world: World) -> None:
    assert world.over, f"never ends: {world.run.status.to_wire()}"
    assert not world.secrets, "a Secret is left"
    assert not world.requests_left, "an answer is left"
    if not world.run_there:
        return
    assert not [job for job in world.jobs.values() if job.state is JobState.ACTIVE and not job.deleting]
    status = world.run.status
    assert status.live == 0
    assert next(item.status for item in status.conditions if item.type == "SecretsReleased") == "True"
    found = {item.name: item for item in status.tasks}
    for wanted in world.run.spec.tasks:
        check_task(world, wanted.backoff_limit, found[wanted.name])
        if found[wanted.name].attempts and wanted.runs != "Always":
            assert all(found[name].state == State.SUCCEEDED for name in wanted.depends_on)
    states = {item.state for item in status.tasks}
    if states == {State.SUCCEEDED}:
        assert status.phase == "Succeeded"
    elif State.CANCELLED in states:
        assert status.phase == "Cancelled"
    else:
        assert status.phase == "Failed"


def check_task(world: World, limit: int, found: TaskStatus) -> None:
    outcomes = [Outcome(item.outcome) for item in found.attempts]
    assert [item.number for item in found.attempts] == list(range(1, len(outcomes) + 1))
    assert len({item.job for item in found.attempts}) == len(outcomes), "a name was used twice"
    assert sum(outcome.counts for outcome in outcomes) <= limit + 1
    assert Outcome.SUCCEEDED not in outcomes[:-1], "tried again after it had succeeded"
    match found.state:
        case State.SUCCEEDED:
            assert outcomes[-1] is Outcome.SUCCEEDED
        case State.FAILED:
            assert outcomes
            assert outcomes[-1] not in (Outcome.SUCCEEDED, Outcome.CANCELLED)
        case State.CANCELLED:
            assert world.run.spec.cancel
        case State.SKIPPED:
            assert not any(outcome.counts for outcome in outcomes)


@given(graphs(), histories)
@settings(max_examples=300, deadline=None)
def test_any_graph_and_any_history_end_as_they_must(
    tasks: list[dict[str, Any]], history: list[Event]
) -> None:
    world = World(run=make_run(tasks=tasks))
    world.reconcile()
    for event in history:
        done = len(world.history)
        happen(world, event)
        check_now(world)
        check_new(world, done)
    world.bring_to_end()
    check_now(world)
    check_end(world)
    before = len(world.history)
    world.reconcile()
    world.reconcile()
    if world.run_there:
        assert not any(isinstance(action, PatchStatus) for action in world.history[before:]), (
            "does not settle"
        )


@given(graphs())
@settings(max_examples=100, deadline=None)
def test_without_trouble_everything_succeeds_and_each_secret_is_made_once(
    tasks: list[dict[str, Any]],
) -> None:
    world = World(run=make_run(tasks=tasks))
    world.bring_to_end()
    assert world.run.status.phase == "Succeeded"
    for kind, sealed in ((EnsureSecret, False), (Deliver, True)):
        done = Counter(action.task for action in world.history if isinstance(action, kind))
        asked = [item for item in tasks if item["secrets"] and (item.get("delivery") == "Sealed") is sealed]
        assert done == {item["name"]: 1 for item in asked}
    assert len(world.answered) == sum(isinstance(action, Deliver) for action in world.history)


@given(graphs(), histories)
@settings(max_examples=100, deadline=None)
def test_a_pass_looks_at_the_state_and_never_at_the_event(
    tasks: list[dict[str, Any]], history: list[Event]
) -> None:
    """Passes after each event or only now and then: both come to an end with nothing left."""
    often, seldom = (World(run=make_run(tasks=tasks)) for _ in range(2))
    for world, every in ((often, True), (seldom, False)):
        world.reconcile()
        for event in history:
            if "lost" not in event[0]:
                happen(world, event)
                if every:
                    world.reconcile()
        world.bring_to_end()
        check_end(world)
