"""The plan, situation by situation: what is seen on the left, what is done on the right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runkeys.planning import memory
from runkeys.planning.actions import (
    CheckSources,
    CreateJob,
    DeleteJob,
    DeleteRun,
    DeleteSecret,
    Diagnose,
    EnsureSecret,
    PatchStatus,
    Refresh,
)
from runkeys.planning.observation import ContainerView, JobState, PodView, Role
from runkeys.planning.plan import plan
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.status import Outcome
from tests.unit.planning.objects import bound_to, make_binding, make_run, task, template
from tests.unit.planning.world import World


def kinds(world: World) -> list[str]:
    """Kinds of the actions so far, in order."""
    return [type(action).__name__ for action in world.history]


def with_job() -> World:
    """A run whose Job was just made by this process."""
    world = World()
    world.reconcile()
    return world


def with_secret() -> World:
    """A run whose pod has a node and its Secret, and whose container runs."""
    world = with_job()
    world.bind_pod()
    world.reconcile()
    world.start_pod()
    return world


def next_actions(world: World) -> list[object]:
    """What follows now, after reading anew if that is asked for."""
    world.fresh = False
    step = plan(world._observe(), world.now)
    if step.actions == (Refresh(),):
        world.fresh = True
        step = plan(world._observe(), world.now)
    return list(step.actions)


def condition(world: World, kind: str) -> tuple[str, str]:
    found = next(item for item in world.run.status.conditions if item.type == kind)
    return found.status, found.reason


def test_the_whole_life_in_five_writes() -> None:
    world = World()
    world.reconcile()
    for event in (world.bind_pod, world.start_pod, world.end_pod, world.finish_jobs):
        event()
        world.reconcile()
    assert kinds(world) == [
        "CheckSources",
        "CreateJob",
        "PatchStatus",
        "EnsureSecret",
        "DeleteSecret",
        "PatchStatus",
    ]
    status = world.run.status
    assert (status.phase, status.live, status.tasks_done) == ("Succeeded", 0, "1/1")
    assert condition(world, "SecretsReleased") == ("True", "Released")
    assert condition(world, "Complete")[0] == "True"
    assert status.tasks[0].attempts[0].exposures[0].estimated is False


def test_no_secret_and_no_status_while_the_pod_has_no_node() -> None:
    world = with_job()
    assert kinds(world) == ["CheckSources", "CreateJob"]
    world.tick(1)
    world.reconcile()
    assert kinds(world) == ["CheckSources", "CreateJob"]


def test_a_run_that_waits_says_so_after_a_while() -> None:
    world = with_job()
    world.tick(3)
    world.reconcile()
    assert any(isinstance(action, Diagnose) for action in world.history)
    assert world.run.status.tasks[0].state == "Waiting"
    assert world.run.status.tasks[0].attempts[0].job_uid == "job-1"
    assert condition(world, "SecretsReleased") == ("False", "NotFinished")


def test_the_intent_is_on_record_before_the_secret_is_made() -> None:
    world = with_job()
    world.bind_pod()
    (ensure,) = next_actions(world)
    assert isinstance(ensure, EnsureSecret)
    assert ensure.intent is not None
    exposure = ensure.intent.tasks[0].attempts[0].exposures[0]
    assert exposure.deleted is None
    assert exposure.estimated is True
    assert ensure.intent.live == 1


def test_released_when_the_container_ended_though_the_job_does_not_know_yet() -> None:
    world = with_secret()
    world.end_pod()
    assert [type(action) for action in next_actions(world)] == [DeleteSecret]


def test_released_when_the_job_is_over_though_no_pod_was_seen() -> None:
    world = with_secret()
    world.end_pod()
    world.finish_jobs()
    world.pods.clear()
    assert [type(action) for action in next_actions(world)] == [DeleteSecret]


def test_released_when_the_job_is_gone() -> None:
    world = with_secret()
    world.jobs.clear()
    assert [type(action) for action in next_actions(world)] == [DeleteSecret]
    world.reconcile()
    assert world.run.status.phase == "Failed"
    assert world.run.status.tasks[0].reason == Reason.ATTEMPT_LOST


def test_a_secret_that_is_gone_is_not_made_again() -> None:
    world = with_job()
    world.bind_pod()
    world.reconcile()
    (job,) = world.jobs.values()
    world.memory = memory.secret_gone(world.memory, job.uid, world.now)
    assert not any(isinstance(action, EnsureSecret) for action in next_actions(world))


def test_after_a_crash_the_secret_is_asked_for_again_only_if_a_container_waits() -> None:
    world = with_job()
    world.bind_pod()
    world.reconcile()
    world.crash()
    assert [type(action) for action in next_actions(world)] == [EnsureSecret]
    world.start_pod()
    assert not any(isinstance(action, EnsureSecret) for action in next_actions(world))


def test_a_job_that_nothing_shows_to_be_ours_is_replaced_before_it_gets_a_secret() -> None:
    world = with_job()
    world.bind_pod()
    world.crash()
    (job,) = world.jobs.values()
    assert next_actions(world) == [DeleteJob(job.name, job.uid)]


def test_what_replaces_a_job_waits_until_the_pods_of_that_are_gone() -> None:
    world = with_job()
    world.bind_pod()
    world.crash()
    (job,), (pod,) = world.jobs.values(), world.pods.values()
    assert next_actions(world) == [DeleteJob(job.name, job.uid)]
    world.jobs = {}
    world.reconcile()
    assert not world.jobs, "its pod would read the Secret of the next one"
    world.pods[pod.uid] = replace(pod, gone=True)
    world.reconcile()
    assert world.jobs


def test_no_secret_is_made_while_a_pod_of_a_replaced_job_would_read_it_too() -> None:
    world = with_job()
    world.bind_pod()
    (pod,) = world.pods.values()
    world.pods["earlier"] = replace(pod, uid="earlier", job_uid="replaced", name=f"{pod.name[:-5]}zzzzz")
    world.reconcile()
    assert condition(world, "Stalled") == ("True", Reason.AMBIGUOUS_PODS)
    assert not world.secrets
    world.pods["earlier"] = replace(world.pods["earlier"], gone=True)
    world.reconcile()
    assert world.secrets


def test_a_job_of_our_name_that_does_not_claim_to_be_ours_is_left_alone_and_said() -> None:
    world = with_job()
    world.crash()
    (job,) = world.jobs.values()
    world.jobs = {job.name: replace(job, controller_uid="somebody")}
    world.bind_pod()
    world.reconcile()
    assert kinds(world) == ["CheckSources", "CreateJob", "PatchStatus"]
    assert condition(world, "Stalled") == ("True", Reason.NAME_TAKEN)


def test_pods_of_other_owners_are_not_observed() -> None:
    world = with_job()
    world.bind_pod()
    (uid, pod), *_ = world.pods.items()
    world.pods[uid] = replace(pod, job_uid="somebody-elses-job")
    assert next_actions(world) == []
    world.pods[uid] = replace(pod, name="forged")
    assert next_actions(world) == []


def test_two_pods_that_claim_to_be_the_attempt_get_nothing() -> None:
    world = with_job()
    world.bind_pod()
    (pod,) = world.pods.values()
    world.pods["second"] = replace(pod, uid="second", name=f"{pod.name[:-5]}zzzzz")
    world.reconcile()
    assert condition(world, "Stalled") == ("True", Reason.AMBIGUOUS_PODS)
    assert not world.secrets


def test_another_pod_that_ended_releases_nothing_while_the_real_one_runs() -> None:
    world = with_secret()
    (pod,) = world.pods.values()
    world.pods["second"] = replace(pod, uid="second", phase="Succeeded")
    assert next_actions(world) == []


def test_cancel_releases_says_so_and_ends_the_job() -> None:
    world = with_secret()
    world.cancel()
    before = len(world.history)
    world.reconcile()
    assert kinds(world)[before:] == ["DeleteSecret", "PatchStatus", "DeleteJob"]
    assert world.run.status.phase == "Cancelled"
    assert condition(world, "Failed") == ("True", Reason.CANCELLED)
    assert condition(world, "SecretsReleased")[0] == "True"


def test_cancel_before_anything_started() -> None:
    world = World(run=make_run(cancel=True))
    world.reconcile()
    assert kinds(world) == ["PatchStatus"]
    assert world.run.status.phase == "Cancelled"


def test_a_pod_that_starts_nothing_within_its_deadline_fails_and_its_secret_goes() -> None:
    world = World(run=make_run(tasks=[task(startDeadlineSeconds=60)]))
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    assert len(world.secrets) == 1
    world.tick(59)
    world.reconcile()
    assert len(world.secrets) == 1
    world.tick(1)
    world.reconcile()
    assert not world.secrets
    assert not world.jobs
    assert world.run.status.tasks[0].reason == Reason.START_DEADLINE_EXCEEDED


def test_a_running_init_container_stops_the_start_deadline() -> None:
    world = World(run=make_run(tasks=[task(startDeadlineSeconds=60)]))
    world.reconcile()
    world.bind_pod()
    ((uid, pod),) = world.pods.items()
    world.pods[uid] = replace(
        pod,
        containers=(
            ContainerView("init", "ghcr.io/acme/init:1", started=True, role=Role.INIT),
            *pod.containers,
        ),
    )
    world.reconcile()
    world.tick(120)
    world.reconcile()
    assert world.run.status.phase == "Running"
    assert len(world.secrets) == 1


@pytest.mark.parametrize(
    ("disrupted", "outcome", "reason"),
    [
        (False, Outcome.FAILED, Reason.LIFETIME_EXCEEDED),
        (True, Outcome.DISRUPTED, Reason.DISRUPTED),  # its node was lost: that is no failure of the task
    ],
)
def test_the_lifetime_is_the_last_word(disrupted: bool, outcome: Outcome, reason: Reason) -> None:
    world = World(bindings=bound_to(make_binding(maxLifetimeSeconds=100)))
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    world.start_pod()
    (first,) = world.jobs
    ((uid, pod),) = world.pods.items()
    world.pods[uid] = replace(pod, disrupted=disrupted)
    world.tick(101)
    assert [type(action) for action in next_actions(world)] == [DeleteSecret]
    world.reconcile()
    world.tick(40)
    world.reconcile()
    ended = world.run.status.tasks[0].attempts[0]
    assert (ended.outcome, ended.reason) == (outcome, reason)
    assert first not in world.jobs
    assert bool(world.jobs) == disrupted, "what does not count is tried again"


@pytest.mark.parametrize("disrupted", [False, True])
def test_a_pod_whose_node_was_lost_before_it_started_did_not_fail(disrupted: bool) -> None:
    world = World(run=make_run(tasks=[task(startDeadlineSeconds=60)]))
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    ((uid, pod),) = world.pods.items()
    world.pods[uid] = replace(pod, disrupted=disrupted)
    world.tick(60)
    world.reconcile()
    ended = world.run.status.tasks[0].attempts[0]
    assert ended.outcome == (Outcome.DISRUPTED if disrupted else Outcome.FAILED)
    assert ended.reason == (Reason.DISRUPTED if disrupted else Reason.START_DEADLINE_EXCEEDED)


def test_the_pod_gets_the_shortest_deadline() -> None:
    world = World(bindings=bound_to(make_binding(maxLifetimeSeconds=100)))
    world.reconcile()
    (job,) = world.jobs.values()
    assert job.deadline_seconds == 100


@pytest.mark.parametrize(
    ("missing", "reason", "condition_type"),
    [
        ("binding", Reason.BINDING_NOT_FOUND, "Stalled"),
        ("access", Reason.ACCESS_DENIED, "Authorized"),
        ("entry", Reason.SECRET_NOT_FOUND, "Stalled"),
        ("source", Reason.SOURCE_NOT_FOUND, "SecretsReady"),
    ],
)
def test_what_others_can_mend_is_waited_for(missing: str, reason: Reason, condition_type: str) -> None:
    world = World()
    if missing == "binding":
        world.remove_bindings()
    elif missing == "access":
        world.bindings = bound_to(make_binding(access=[]))
    elif missing == "entry":
        other = {"name": "other", "secretKeyRef": {"name": "source", "key": "token"}}
        world.bindings = bound_to(make_binding(secrets=[other]))
    else:
        world.source_there = False
    world.reconcile()
    status, found = condition(world, condition_type)
    assert found == reason
    assert status == ("True" if condition_type == "Stalled" else "False")
    assert not world.jobs
    assert world.run.status.phase == "Pending"
    world.restore_bindings()
    world.source_there = True
    world.tick(31)
    world.reconcile()
    assert world.jobs


def test_what_only_a_new_run_can_mend_fails_at_once() -> None:
    bad = task(template=template(restartPolicy="OnFailure"))
    world = World(run=make_run(tasks=[bad]))
    world.reconcile()
    assert kinds(world) == ["PatchStatus"]
    assert world.run.status.phase == "Failed"
    assert condition(world, "Failed") == ("True", Reason.TEMPLATE_REFUSED)
    assert condition(world, "Stalled") == ("True", Reason.TEMPLATE_REFUSED)
    assert condition(world, "SecretsReleased") == ("True", "NeverMade")


def test_the_pod_that_was_made_is_checked_again() -> None:
    world = World(bindings=bound_to(make_binding(access=[{"images": ["ghcr.io/acme/*"]}])))
    world.reconcile()
    world.bind_pod()
    ((uid, pod),) = world.pods.items()
    evil = ContainerView("sidecar", "evil.example/steal:1")
    changed = replace(pod, containers=(*pod.containers, evil))
    for other in (changed, replace(pod, volume_images=("evil.example/steal:1",))):
        world.pods[uid] = other
        world.reconcile()
        assert not world.secrets
        assert condition(world, "Authorized") == ("False", Reason.ACCESS_DENIED)
    world.pods[uid] = pod
    world.reconcile()
    assert len(world.secrets) == 1


def test_a_source_that_is_missing_is_not_asked_for_more_than_every_30_seconds() -> None:
    world = World(source_there=False)
    for _ in range(10):
        world.reconcile()
        world.tick(5)
    assert kinds(world).count("CheckSources") == 2


def test_a_secret_held_by_a_finalizer_is_reported_and_asked_to_go_again() -> None:
    world = with_secret()
    world.end_pod()
    world.finish_jobs()
    (job,) = world.jobs.values()
    deleted = world.now
    world.memory = memory.secret_held(world.memory, job.uid, deleted, ("example.com/keep",))
    world.reconcile()
    assert world.run.status.phase == "Succeeded"
    assert world.run.status.live == 1
    assert condition(world, "SecretsReleased") == ("False", Reason.HELD_BY_FINALIZER)
    world.tick(31)
    world.memory = memory.secret_held(world.memory, job.uid, deleted, ())
    world.reconcile()
    assert world.run.status.live == 0
    assert condition(world, "SecretsReleased")[0] == "True"


def test_nothing_of_a_run_that_ended_well_needs_a_look() -> None:
    world = with_secret()
    world.end_pod()
    world.finish_jobs()
    world.reconcile()
    assert world.jobs, "left for its logs"
    step = plan(world._observe(), world.now)
    assert (step.actions, step.look_again, step.settled) == ((), None, True)


def test_a_secret_that_an_earlier_process_may_have_asked_for_is_deleted_again_while_its_job_is_there() -> (
    None
):
    world = with_job()
    world.bind_pod()
    world.lose_answer_in = 1
    world.reconcile()
    world.reconcile()
    world.start_pod()
    assert world.run.status.tasks[0].attempts[0].exposures[0].estimated
    world.end_pod()
    world.finish_jobs()
    world.reconcile()
    done = len(world.history)
    for _ in range(60):
        world.tick(10)
        world.reconcile()
    again = [action for action in world.history[done:] if isinstance(action, DeleteSecret)]
    assert len(again) == 5, "at 30, 60, 120, 240 and 480 seconds"
    world.remove_jobs()
    for _ in range(60):
        world.tick(60)
        world.reconcile()
    assert len([a for a in world.history[done:] if isinstance(a, DeleteSecret)]) == 5


def test_a_source_that_is_gone_when_the_pod_is_there_leaves_no_exposure() -> None:
    world = with_job()
    world.bind_pod()
    world.source_there = False
    world.reconcile()
    assert condition(world, "SecretsReady") == ("False", Reason.SOURCE_NOT_FOUND)
    assert world.run.status.live == 0
    world.cancel()
    world.reconcile()
    assert world.run.status.exposed is None
    assert condition(world, "SecretsReleased") == ("True", "NeverMade")


def test_time_to_live() -> None:
    world = World(run=make_run(ttlSecondsAfterFinished=60))
    world.bring_to_end()
    world.tick(61)
    world.reconcile()
    assert isinstance(world.history[-1], DeleteRun)


def test_a_run_being_deleted_gives_up_its_secret_first() -> None:
    world = with_secret()
    metadata = world.run.metadata.model_copy(update={"deletion_timestamp": world.now})
    world.run = world.run.model_copy(update={"metadata": metadata})
    assert [type(action) for action in next_actions(world)] == [DeleteSecret, DeleteJob]


def test_two_containers_and_the_secret_goes_when_the_one_that_has_it_ends() -> None:
    two = template(containers=[{"name": "main", "image": "a/b:1"}, {"name": "side", "image": "a/b:1"}])
    world = World(run=make_run(tasks=[task(template=two, containers=["main"])]))
    world.reconcile()
    world.bind_pod()
    ((uid, pod),) = world.pods.items()
    side = ContainerView("side", "a/b:1", started=True)
    world.pods[uid] = replace(pod, containers=(*pod.containers, side))
    world.reconcile()
    main = ContainerView("main", "a/b:1", started=True, ended=True, exit_code=0)
    world.pods[uid] = replace(pod, phase="Running", containers=(main, side))
    assert [type(action) for action in next_actions(world)] == [DeleteSecret]
    world.reconcile()
    world.tick(11)
    world.reconcile()
    assert world.run.status.live == 0, "a long sidecar must not hide that the Secret is gone"
    restartable = replace(main, restartable=True)
    assert not PodView("p", "u", "j", None, "Running", "default", (restartable, side)).done_with(["main"])


def test_actions_have_no_room_for_a_value() -> None:
    world = with_secret()
    ensured = next(action for action in world.history if isinstance(action, EnsureSecret))
    assert "data" not in ensured.manifest
    assert "stringData" not in ensured.manifest
    created = next(action for action in world.history if isinstance(action, CreateJob))
    checked = next(action for action in world.history if isinstance(action, CheckSources))
    assert ensured.references == checked.references
    assert created.manifest["metadata"]["name"] == ensured.name
    assert next(iter(world.jobs.values())).state is JobState.ACTIVE


# a request that fails again and again


def failing(world: World) -> None:
    """The request for the task's Job, or before it for what its secrets come from, has just failed."""
    said = Refusal(Reason.REQUEST_FAILED, "spec.tasks[0]", "is made again", permanent=False)
    world.memory = memory.request_failed(world.memory, "work", world.now, world.now, said)


def test_a_request_that_fails_once_is_made_again_and_no_more_is_said() -> None:
    world = World()
    failing(world)
    assert [type(action) for action in next_actions(world)] == [CheckSources]


@pytest.mark.parametrize("request_for", [CheckSources, CreateJob])
def test_a_request_that_goes_on_failing_is_told_and_then_made_again(request_for: type) -> None:
    world = World(run=make_run(tasks=[task(**({"secrets": []} if request_for is CreateJob else {}))]))
    failing(world)
    world.tick(11)
    (told,) = next_actions(world)
    assert isinstance(told, PatchStatus)
    world._do(told)
    assert condition(world, "Stalled") == ("True", Reason.REQUEST_FAILED)
    assert world.run.status.phase == "Pending"
    failing(world)
    assert [type(action) for action in next_actions(world)] == [request_for]


def test_what_failed_long_ago_is_not_told() -> None:
    world = World()
    failing(world)
    world.tick(3600)
    assert [type(action) for action in next_actions(world)] == [CheckSources]
    failing(world)
    assert [type(action) for action in next_actions(world)] == [CheckSources]


def test_a_run_whose_job_cannot_be_made_ends_at_its_deadline() -> None:
    world = World(run=make_run(activeDeadlineSeconds=60))
    failing(world)
    world.tick(11)
    (told,) = next_actions(world)
    assert isinstance(told, PatchStatus)
    world._do(told)
    world.tick(60)
    failing(world)
    (told,) = next_actions(world)
    assert isinstance(told, PatchStatus)
    assert (told.status.phase, told.status.tasks[0].reason) == ("Failed", Reason.RUN_DEADLINE_EXCEEDED)


@pytest.mark.parametrize("gone", [False, True])
def test_a_job_that_arrives_after_the_end_is_taken_away(gone: bool) -> None:
    late = with_job()
    world = World(run=make_run(cancel=True), run_there=not gone)
    if not gone:
        world.reconcile()
        assert world.run.status.phase == "Cancelled"
    world.jobs = dict(late.jobs)
    world.reconcile()
    assert [type(action) for action in world.history][-1] is DeleteJob


def test_a_job_of_somebody_else_stays() -> None:
    late = with_job()
    world = World(run=make_run(cancel=True))
    world.reconcile()
    world.jobs = {name: replace(job, run_uid="another") for name, job in late.jobs.items()}
    assert next_actions(world) == []
