"""Runs of several tasks: who starts when, what is tried again, what is handed on, when secrets go."""

from __future__ import annotations

from typing import Any

import pytest

from runkeys.planning.actions import CreateJob, DeleteJob, DeleteSecret, EnsureSecret
from runkeys.planning.observation import JobState
from runkeys.planning.refusal import Reason
from tests.unit.planning.objects import bound_to, make_binding, make_run, task, template
from tests.unit.planning.world import World


def plain(name: str, *before: str, **fields: Any) -> dict[str, Any]:
    """A task without secrets that comes after others."""
    return task(**{"name": name, "secrets": [], "dependsOn": list(before), **fields})


def secret(name: str, *before: str, **fields: Any) -> dict[str, Any]:
    """A task with a secret that comes after others."""
    return task(**{"name": name, "dependsOn": list(before), **fields})


def begun(*tasks: dict[str, Any], **spec: Any) -> World:
    world = World(run=make_run(tasks=list(tasks), **spec))
    world.reconcile()
    return world


def made(world: World) -> list[str]:
    """The tasks of the Jobs that were made, in order."""
    return [action.task for action in world.history if isinstance(action, CreateJob)]


def states(world: World) -> dict[str, str]:
    return {item.name: item.state for item in world.run.status.tasks}


def outcomes(world: World, name: str = "a") -> list[str]:
    found = next(item for item in world.run.status.tasks if item.name == name)
    return [attempt.outcome for attempt in found.attempts]


def condition(world: World, kind: str) -> tuple[str, str, str]:
    found = next(item for item in world.run.status.conditions if item.type == kind)
    return found.status, found.reason, found.message


# the graph


def test_independent_tasks_run_side_by_side_and_the_others_wait() -> None:
    world = begun(plain("a"), plain("b"), plain("c", "a", "b"))
    assert made(world) == ["a", "b"]
    world.complete("a")
    assert made(world) == ["a", "b"]
    world.complete("b")
    assert made(world) == ["a", "b", "c"]
    world.complete("c")
    assert (world.run.status.phase, world.run.status.tasks_done) == ("Succeeded", "3/3")


def test_a_diamond() -> None:
    world = begun(plain("a"), plain("b", "a"), plain("c", "a"), plain("d", "b", "c"))
    for name in "abcd":
        world.complete(name)
    assert made(world) == list("abcd")
    assert world.run.status.phase == "Succeeded"


def test_after_a_failure_nothing_new_starts_and_what_runs_may_finish() -> None:
    world = begun(plain("a"), plain("b"), plain("after-a", "a"), plain("after-b", "b"))
    world.bind_pod("b")
    world.start_pod("b")
    world.complete("a", well=False)
    assert states(world) == {"a": "Failed", "b": "Running", "after-a": "Skipped", "after-b": "Skipped"}
    assert world.run.status.phase == "Running"
    world.end_pod("b")
    world.finish_jobs()
    world.reconcile()
    assert made(world) == ["a", "b"]
    assert states(world)["b"] == "Succeeded"
    assert world.run.status.phase == "Failed"
    assert condition(world, "Failed")[2].startswith("task a: ")


def test_a_task_that_always_runs_does_so_after_a_failure_and_after_a_cancel() -> None:
    for well in (True, False):
        world = begun(plain("a"), plain("b", "a"), secret("clean", runs="Always"))
        world.complete("a", well=well)
        if well:
            world.cancel()
            world.reconcile()
        assert made(world)[-1] == "clean"
        assert world.run.status.phase not in ("Failed", "Cancelled")
        world.complete("clean")
        assert states(world)["clean"] == "Succeeded"
        assert world.run.status.phase == ("Cancelled" if well else "Failed")
        assert world.run.status.live == 0


def test_the_deadline_of_the_run_ends_what_runs_and_lets_only_always_run() -> None:
    world = begun(plain("a"), plain("b", "a"), plain("last", runs="Always"), activeDeadlineSeconds=60)
    world.bind_pod()
    world.start_pod()
    world.tick(3)
    world.reconcile()
    world.tick(60)
    world.reconcile()
    assert states(world) == {"a": "Failed", "b": "Skipped", "last": "Pending"} | {
        "last": states(world)["last"]
    }
    assert made(world) == ["a", "last"]
    world.complete("last")
    assert world.run.status.phase == "Failed"
    assert condition(world, "Failed")[1] == Reason.RUN_DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("tasks", "where", "says"),
    [
        ([plain("a", "a")], "spec.tasks[0].dependsOn[0]", "cannot depend on itself"),
        ([plain("a", "x")], "spec.tasks[0].dependsOn[0]", "there is no task 'x'"),
        ([plain("a", "b"), plain("b")], "spec.tasks[0].dependsOn[0]", "is listed further down"),
        ([plain("a", runs="Always"), plain("b", "a")], "spec.tasks[1].dependsOn[0]", "need runs: Always too"),
        (
            [plain("a", input=[{"name": "p", "from": "input.q"}])],
            "spec.tasks[0].input[0].from",
            "the run's input has no 'q'; it has: data",
        ),
        (
            [plain("a"), plain("b", "a", input=[{"name": "p", "from": "tasks.a.output"}])],
            "spec.tasks[1].input[0].from",
            "task a does not keep its output",
        ),
        (
            [plain("a", recordOutput=True), plain("b", input=[{"name": "p", "from": "tasks.a.output"}])],
            "spec.tasks[1].input[0].from",
            "add a to its dependsOn",
        ),
        (
            [plain("a"), plain("b", input=[{"name": "p", "from": "tasks.x.output"}])],
            "spec.tasks[1].input[0].from",
            "there is no task 'x'",
        ),
        (
            [plain("a", input=[{"name": "p", "from": "input.data"}])],
            "spec.tasks[0].input",
            "has 204803 bytes in total",
        ),
    ],
)
def test_what_is_wrong_with_the_graph_is_said_before_anything_starts(
    tasks: list[dict[str, Any]], where: str, says: str
) -> None:
    data = "x" * (200 * 1024 + 1) if "204803" in says else 1
    world = begun(*tasks, input={"data": data})
    assert made(world) == []
    assert world.run.status.phase == "Failed"
    assert where in condition(world, "Failed")[2]
    assert says in condition(world, "Failed")[2]


def test_a_secret_that_a_later_task_lacks_keeps_the_first_from_starting() -> None:
    lacks = secret("b", "a", secrets=[{"name": "x", "secret": "nothing"}])
    world = begun(plain("a"), lacks)
    assert made(world) == []
    assert condition(world, "Stalled")[:2] == ("True", Reason.SECRET_NOT_FOUND)
    assert "spec.tasks[1].secrets[0].secret" in condition(world, "Stalled")[2]


# attempts


def test_a_failed_attempt_is_followed_by_another_with_a_secret_of_its_own() -> None:
    world = begun(secret("a", backoffLimit=1))
    world.complete("a", well=False)
    assert states(world) == {"a": "Waiting"}
    assert world.run.status.tasks[0].reason == Reason.BACK_OFF
    assert made(world) == ["a"]
    world.tick(9)
    world.reconcile()
    assert made(world) == ["a"], "ten seconds, as a Job does"
    world.tick(1)
    world.reconcile()
    assert made(world) == ["a", "a"]
    world.complete("a")
    assert outcomes(world) == ["Failed", "Succeeded"]
    ensured = [action.name for action in world.history if isinstance(action, EnsureSecret)]
    deleted = [action.name for action in world.history if isinstance(action, DeleteSecret)]
    assert len(set(ensured)) == 2
    assert ensured == deleted
    assert world.run.status.phase == "Succeeded"


def test_backoff_doubles_and_the_limit_is_kept() -> None:
    world = begun(plain("a", backoffLimit=2))
    world.complete("a", well=False)
    for pause in (10, 20):
        world.tick(pause - 1)
        world.reconcile()
        before = len(made(world))
        world.tick(1)
        world.reconcile()
        assert len(made(world)) == before + 1
        world.complete("a", well=False)
    assert outcomes(world) == ["Failed"] * 3
    assert world.run.status.phase == "Failed"


def test_what_the_cluster_does_to_a_pod_does_not_count_up_to_ten_times() -> None:
    world = begun(secret("a"))
    for number in range(11):
        assert made(world) == ["a"] * (number + 1)
        world.bind_pod()
        world.reconcile()
        world.start_pod()
        world.drain()
        world.finish_jobs()
        world.reconcile()
        world.tick(min(360, 10 * 2 ** (number - 1)) if number else 0)
        world.reconcile()
    assert outcomes(world) == ["Disrupted"] * 11
    assert states(world) == {"a": "Failed"}
    assert not world.secrets


def test_a_lost_attempt_counts() -> None:
    world = begun(secret("a", backoffLimit=1))
    world.bind_pod()
    world.reconcile()
    world.remove_jobs()
    world.reconcile()
    assert outcomes(world) == ["Lost"]
    world.tick(10)
    world.reconcile()
    assert made(world) == ["a", "a"]


def test_suspend_ends_what_runs_and_resume_makes_the_next_attempt() -> None:
    world = begun(secret("a"), plain("b", "a"))
    world.bind_pod()
    world.reconcile()
    world.start_pod()
    assert len(world.secrets) == 1
    world.suspend()
    world.reconcile()
    assert not world.secrets
    assert not world.jobs
    assert world.run.status.phase == "Suspended"
    assert outcomes(world) == ["Suspended"]
    world.tick(100)
    world.reconcile()
    assert made(world) == ["a"]
    world.suspend(on=False)
    world.reconcile()
    assert made(world) == ["a", "a"]
    world.complete("a")
    world.complete("b")
    assert world.run.status.phase == "Succeeded"
    assert outcomes(world) == ["Suspended", "Succeeded"]


def test_suspended_from_the_start() -> None:
    world = begun(secret("a"), suspend=True)
    assert made(world) == []
    world.tick(3)
    world.reconcile()
    assert world.run.status.phase == "Suspended"
    world.suspend(on=False)
    world.reconcile()
    assert made(world) == ["a"]


@pytest.mark.parametrize("moment", ["before", "made", "bound", "running", "ended", "backing off"])
def test_cancel_at_every_moment(moment: str) -> None:
    world = World(run=make_run(tasks=[secret("a", backoffLimit=3), plain("b", "a")]))
    steps = {"made": world.reconcile, "bound": world.bind_pod, "running": world.start_pod}
    if moment != "before":
        for name, step in steps.items():
            step()
            world.reconcile()
            if name == moment:
                break
    if moment in ("ended", "backing off"):
        world.end_pod(well=moment == "ended")
        world.reconcile()
    if moment == "backing off":
        world.finish_jobs()
        world.reconcile()
    world.cancel()
    world.reconcile()
    assert world.run.status.phase == "Cancelled"
    assert not world.secrets
    assert not [job for job in world.jobs.values() if job.state is JobState.ACTIVE]
    assert set(states(world).values()) == {"Cancelled"}


def test_an_attempt_that_is_stopped_by_us_has_its_job_taken_away_while_the_run_goes_on() -> None:
    world = begun(secret("a", startDeadlineSeconds=60, backoffLimit=1))
    world.bind_pod()
    world.reconcile()
    world.tick(60)
    world.reconcile()
    assert outcomes(world) == ["Failed"]
    assert not world.jobs
    assert any(isinstance(action, DeleteJob) for action in world.history)


def exit_with(world: World, code: int) -> None:
    world.bind_pod()
    world.reconcile()
    world.start_pod()
    world.end_pod(well=False, code=code)
    world.finish_jobs()
    world.reconcile()


RULES = {
    "rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42, 43]}},
        {"action": "Ignore", "onExitCodes": {"containerName": "main", "operator": "NotIn", "values": [1, 2]}},
        {"action": "Ignore", "onExitCodes": {"containerName": "other", "operator": "In", "values": [1]}},
    ]
}


@pytest.mark.parametrize(
    ("code", "outcome", "state"),
    [
        (42, "Failed", "Failed"),
        (7, "Disrupted", "Pending"),
        (1, "Failed", "Waiting"),
        (2, "Failed", "Waiting"),
    ],
)
def test_exit_codes_say_whether_it_is_tried_again(code: int, outcome: str, state: str) -> None:
    world = begun(secret("a", backoffLimit=1, podFailurePolicy=RULES))
    exit_with(world, code)
    assert outcomes(world)[0] == outcome
    assert (states(world)["a"] == "Failed") == (state == "Failed")
    assert not world.secrets


# release


def test_on_start_takes_the_secret_away_while_the_container_runs() -> None:
    world = begun(secret("a", releasePolicy="OnStart"))
    world.bind_pod()
    world.reconcile()
    assert len(world.secrets) == 1
    world.start_pod()
    world.reconcile()
    assert not world.secrets
    world.tick(3)
    world.reconcile()
    assert world.run.status.live == 0
    assert world.run.status.phase == "Running"
    world.end_pod()
    world.finish_jobs()
    world.reconcile()
    assert world.run.status.phase == "Succeeded"
    assert sum(isinstance(action, EnsureSecret) for action in world.history) == 1


def test_on_start_of_a_binding_counts_for_every_task_that_uses_it() -> None:
    world = World(run=make_run(tasks=[secret("a")]), bindings=bound_to(make_binding(releasePolicy="OnStart")))
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    world.crash()
    world.start_pod()
    world.reconcile()
    assert not world.secrets, "the operator that made it is another one: the status remembers"


def test_on_start_is_refused_where_a_container_may_start_again() -> None:
    sidecar = {"name": "main", "image": "a/b:1", "restartPolicy": "Always"}
    pod = template(initContainers=[sidecar], containers=[{"name": "work", "image": "a/b:1"}])
    world = begun(secret("a", template=pod, containers=["main"], releasePolicy="OnStart"))
    assert made(world) == []
    assert condition(world, "Failed")[1] == Reason.TEMPLATE_REFUSED


# what is handed on


def handed_to(world: World, name: str) -> dict[str, str]:
    manifest = next(a.manifest for a in world.history if isinstance(a, CreateJob) and a.task == name)
    found: dict[str, str] = manifest["spec"]["template"]["metadata"].get("annotations", {})
    return found


def test_output_is_kept_and_handed_on() -> None:
    handed = [{"name": "plan", "from": "tasks.a.output"}, {"name": "n", "from": "input.n"}]
    world = begun(plain("a", recordOutput=True), plain("b", "a", input=handed), input={"n": [1, {"x": "ü"}]})
    world.outputs["a"] = '{"depth": 3}\n'
    world.complete("a")
    assert handed_to(world, "b") == {
        "runkeys.dev/input.plan": '{"depth":3}',
        "runkeys.dev/input.n": '[1,{"x":"ü"}]',
    }
    world.tick(3)
    world.reconcile()
    assert world.run.status.tasks[0].output == {"depth": 3}
    world.crash()
    world.complete("b")
    assert world.run.status.phase == "Succeeded"


@pytest.mark.parametrize(
    ("written", "reason"),
    [("x" * 4096, Reason.OUTPUT_TOO_LARGE), ("not json", Reason.OUTPUT_INVALID), ("", "")],
)
def test_output_that_cannot_be_kept_fails_the_attempt(written: str, reason: str) -> None:
    world = begun(plain("a", recordOutput=True))
    world.outputs["a"] = written
    world.complete("a")
    assert world.run.status.tasks[0].reason == reason
    assert states(world) == {"a": "Failed" if reason else "Succeeded"}


def test_an_output_that_was_not_written_fails_whoever_needs_it() -> None:
    handed = [{"name": "plan", "from": "tasks.a.output"}]
    world = begun(plain("a", recordOutput=True), plain("b", "a", input=handed))
    world.complete("a")
    assert states(world) == {"a": "Succeeded", "b": "Failed"}
    assert condition(world, "Failed")[1] == Reason.OUTPUT_MISSING


def test_an_output_whose_pod_is_not_seen_yet_is_waited_for() -> None:
    world = begun(plain("a", recordOutput=True))
    world.outputs["a"] = "1"
    world.bind_pod()
    world.start_pod()
    world.end_pod()
    world.finish_jobs()
    pods, world.pods = world.pods, {}
    world.reconcile()
    assert world.run.status.phase != "Succeeded"
    world.pods = pods
    world.reconcile()
    assert world.run.status.tasks[0].output == 1
    assert world.run.status.phase == "Succeeded"


def test_an_output_whose_pod_is_gone_is_not_taken_for_none() -> None:
    world = begun(plain("a", recordOutput=True, backoffLimit=1))
    world.outputs["a"] = "1"
    world.bind_pod()
    world.start_pod()
    world.end_pod()
    world.finish_jobs()
    world.remove_pod()
    world.reconcile()
    world.tick(61)
    world.reconcile()
    assert outcomes(world)[0] == "Lost"
    world.complete("a")
    assert world.run.status.tasks[0].output == 1
    assert world.run.status.phase == "Succeeded"


def test_many_tasks_side_by_side_settle_in_one_pass() -> None:
    world = begun(*(secret(f"t{number}") for number in range(64)))
    world.bind_pod()
    world.reconcile()
    assert len(world.secrets) == 64
