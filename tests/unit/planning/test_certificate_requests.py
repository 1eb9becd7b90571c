"""Which request of a pod gets its values, which gets nothing, which is refused and told, and which is deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runkeys.api import AttemptStatus, SealedDelivery, TaskStatus
from runkeys.names import UNSEALER
from runkeys.planning.actions import Action, AnswerEmpty, DeleteRequest, DenyRequest
from runkeys.planning.certificate_requests import (
    KEY_LOST_AFTER,
    asks_again,
    clean_up_requests,
    due,
    followed,
    intended,
    refused,
)
from runkeys.planning.memory import Memory
from runkeys.planning.observation import (
    NOTHING_LEFT,
    ContainerView,
    JobState,
    JobView,
    Observation,
    PodView,
    RequestView,
)
from runkeys.planning.plan import plan
from runkeys.planning.refusal import Reason
from tests.unit.planning.objects import bound_to, later, make_binding, make_run, task
from tests.unit.planning.world import World

JOB = JobView("rk-vqe-work-1", "job-uid", "run-uid", later(0), JobState.ACTIVE, sealed=True)
POD = PodView(
    name="rk-vqe-work-1-abcde",
    uid="pod-uid",
    job_uid="job-uid",
    phase="Pending",
    bound_at=later(2),
    service_account="runner",
    containers=(ContainerView(UNSEALER, "ours:1"),),
    node="node1",
)
REQUEST = RequestView(
    name="req-1",
    uid="req-1-uid",
    version="10",
    created=later(3),
    pod_name=POD.name,
    pod_uid=POD.uid,
    node="node1",
    service_account="runner",
    public="AAAA",
)
NEWER = replace(REQUEST, name="req-2", uid="req-2-uid", version="20", created=later(9))
ISSUED = replace(REQUEST, state="Issued", at=later(4))
OPENED = replace(
    POD,
    phase="Running",
    containers=(ContainerView(UNSEALER, "ours:1", exit_code=0, ended=True, ended_at=later(6)),),
)
RUNS = replace(
    OPENED, containers=(*OPENED.containers, ContainerView("main", "ghcr.io/acme/app:1", started=True))
)
ATTEMPT = AttemptStatus(number=1, job=JOB.name, job_uid=JOB.uid, pod_uid=POD.uid)


def recorded(request: RequestView = REQUEST, **changes: Any) -> AttemptStatus:
    """The attempt once it is on record that ``request`` is about to be answered."""
    sealed = SealedDelivery(request=request.uid).model_copy(update=changes)
    return ATTEMPT.model_copy(update={"sealed": sealed})


def observed(
    *requests: RequestView, pod: PodView = POD, attempt: AttemptStatus | None = ATTEMPT, job: JobView = JOB
) -> Observation:
    run = make_run()
    tasks = [TaskStatus(name="work", state="Running", attempts=[attempt])] if attempt is not None else []
    run = run.model_copy(update={"status": run.status.model_copy(update={"tasks": tasks})})
    jobs = {job.name: job}
    return Observation(run, bound_to(make_binding()), jobs, (pod,), Memory(), requests=requests)


def denied(actions: tuple[Action, ...]) -> dict[str, str]:
    return {item.request.name: item.message for item in actions if isinstance(item, DenyRequest)}


def emptied(actions: tuple[Action, ...]) -> set[str]:
    return {item.request.name for item in actions if isinstance(item, AnswerEmpty)}


def deleted(actions: tuple[Action, ...]) -> set[str]:
    return {item.request.name for item in actions if isinstance(item, DeleteRequest)}


def test_the_first_request_of_a_pod_is_answered() -> None:
    obs = observed(REQUEST)
    assert due(obs, POD, ATTEMPT) == REQUEST
    assert clean_up_requests(obs) == ()


@pytest.mark.parametrize(
    "attempt", [ATTEMPT, recorded()], ids=["at first", "after a crash behind the intent"]
)
def test_it_is_due_until_it_is_seen_to_be_answered(attempt: AttemptStatus) -> None:
    assert due(observed(REQUEST, attempt=attempt), POD, attempt) == REQUEST


@pytest.mark.parametrize(
    ("requests", "attempt"),
    [
        ((ISSUED, NEWER), recorded()),
        ((NEWER,), recorded()),
        ((replace(REQUEST, gone=True, state="Issued"), NEWER), recorded()),
        ((NEWER,), recorded(delivered=later(4))),
        ((REQUEST,), recorded(delivered=later(4))),
    ],
    ids=["answered", "out of sight", "answered and gone", "on record", "the same, on record"],
)
def test_an_attempt_is_given_its_values_once(
    requests: tuple[RequestView, ...], attempt: AttemptStatus
) -> None:
    """It is not denied either, nor answered with nothing: its unseal container may have its certificate already."""
    obs = observed(*requests, attempt=attempt)
    assert due(obs, POD, attempt) is None
    assert clean_up_requests(obs) == ()


def test_another_pod_of_the_same_attempt_gets_nothing() -> None:
    attempt = recorded()
    other = replace(POD, name="other", uid="other-uid")
    asked = replace(REQUEST, uid="req-9-uid", pod_uid="other-uid", pod_name="other")
    obs = observed(asked, pod=other, attempt=attempt)
    assert due(obs, other, attempt) is None
    assert "another pod of this attempt" in denied(clean_up_requests(obs))["req-1"]


# a kubelet that was started again


@pytest.mark.parametrize(
    ("pod", "attempt"),
    [
        (OPENED, recorded(delivered=later(4), opened=later(6))),
        (OPENED, recorded()),
        (RUNS, recorded(delivered=later(4), opened=later(6))),
        (replace(RUNS, phase="Succeeded"), recorded(delivered=later(4), opened=later(6))),
        (RUNS, recorded().model_copy(update={"outcome": "Cancelled"})),
        (replace(OPENED, containers=(replace(OPENED.containers[0], exit_code=1),)), recorded()),
    ],
    ids=["its own init container runs", "unnoticed", "runs", "finished", "is being ended", "unseal failed"],
)
def test_a_pod_that_needs_no_values_any_more_is_answered_with_nothing(
    pod: PodView, attempt: AttemptStatus
) -> None:
    """The kubelet does nothing more for a pod before it is answered, whatever the answer holds."""
    obs = observed(NEWER, pod=pod, attempt=attempt)
    assert due(obs, pod, attempt) is None
    assert emptied(clean_up_requests(obs)) == {NEWER.name}
    assert denied(clean_up_requests(obs)) == {}


def test_what_holds_nothing_is_not_deleted_under_the_kubelets_eyes() -> None:
    empty = replace(NEWER, state="Issued", reason=NOTHING_LEFT)
    obs = observed(replace(ISSUED, reason="Delivered"), empty, pod=RUNS, attempt=recorded())
    assert deleted(clean_up_requests(obs)) == {ISSUED.name}
    assert emptied(clean_up_requests(obs)) == set()


def test_a_key_that_was_lost_shows_by_a_second_request() -> None:
    attempt = recorded(delivered=later(4))
    started = replace(POD, containers=(replace(POD.containers[0], started=True),))
    assert asks_again(observed(ISSUED, NEWER, attempt=attempt), POD, attempt) == NEWER
    assert asks_again(observed(NEWER, attempt=recorded()), POD, recorded()) == NEWER, "answered, out of sight"
    # the answer is under way, or the container reads it
    assert asks_again(observed(ISSUED, attempt=attempt), POD, attempt) is None
    assert asks_again(observed(REQUEST, attempt=attempt), POD, attempt) is None
    assert asks_again(observed(ISSUED, NEWER, pod=started, attempt=attempt), started, attempt) is None
    # never answered: the newer one gets the values
    assert asks_again(observed(REQUEST, NEWER, attempt=recorded()), POD, recorded()) is None
    assert asks_again(observed(NEWER), POD, ATTEMPT) is None
    # of another kubelet
    forged = replace(NEWER, node="node2")
    assert asks_again(observed(ISSUED, forged, attempt=attempt), POD, attempt) is None


def test_an_attempt_whose_key_was_lost_ends_without_fault_and_is_tried_again() -> None:
    world = World(run=make_run(tasks=[task(delivery="Sealed", backoffLimit=0)]))
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    assert len(world.answered) == 1
    world.restart_kubelet()
    world.reconcile()
    (only,) = world.run.status.tasks[0].attempts
    assert only.outcome == "", "its unseal container may say yet that it has started"
    world.tick(KEY_LOST_AFTER.total_seconds())
    world.reconcile()
    (first,) = world.run.status.tasks[0].attempts
    assert (first.outcome, first.reason) == ("Disrupted", Reason.DISRUPTED)
    assert first.job not in world.jobs
    world.bring_to_end()
    assert world.run.status.phase == "Succeeded"
    assert len(world.answered) == 2


def test_no_key_is_lost_if_the_unseal_container_has_started() -> None:
    world = World(run=make_run(tasks=[task(delivery="Sealed")]))
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    ((uid, pod),) = world.pods.items()
    world.restart_kubelet()
    world.pods[uid] = replace(pod, containers=(replace(pod.containers[0], started=True), *pod.containers[1:]))
    world.tick(60)
    world.reconcile()
    assert world.run.status.tasks[0].attempts[0].outcome == ""
    done = replace(pod.containers[0], started=True, ended=True, exit_code=0, ended_at=world.now)
    world.pods[uid] = replace(pod, containers=(done, *pod.containers[1:]))
    world.bring_to_end()
    assert world.run.status.phase == "Succeeded"
    assert len(world.run.status.tasks[0].attempts) == 1


@pytest.mark.parametrize("attempt", [ATTEMPT, recorded()], ids=["no intent", "intent for the older"])
def test_of_two_that_are_open_the_newest_has_a_key_that_still_lives(attempt: AttemptStatus) -> None:
    obs = observed(NEWER, REQUEST, attempt=attempt)
    assert due(obs, POD, attempt) == NEWER
    assert set(denied(clean_up_requests(obs))) == {"req-1"}
    assert intended(attempt, NEWER).sealed == SealedDelivery(request=NEWER.uid)
    # That is no attack, and nothing to tell.
    after = replace(REQUEST, state="Denied", message=denied(clean_up_requests(obs))["req-1"])
    assert refused(observed(after, NEWER, attempt=attempt)) == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"node": "node2"}, "names node node2, but the pod is bound to node1"),
        ({"service_account": "admin"}, "names service account admin, but the pod runs as runner"),
        ({"pod_name": "mine"}, "names pod mine"),
    ],
)
def test_one_that_does_not_fit_its_pod_is_refused(changes: dict[str, Any], says: str) -> None:
    obs = observed(replace(REQUEST, **changes))
    assert due(obs, POD, ATTEMPT) is None
    assert says in denied(clean_up_requests(obs))["req-1"]


def test_one_that_does_not_fit_takes_the_place_of_none_that_does() -> None:
    obs = observed(REQUEST, replace(NEWER, node="node2"))
    assert due(obs, POD, ATTEMPT) == REQUEST
    assert set(denied(clean_up_requests(obs))) == {NEWER.name}


@pytest.mark.parametrize(
    ("pod", "attempt"),
    [
        (replace(POD, phase="Succeeded"), ATTEMPT),
        (replace(POD, phase="Failed"), ATTEMPT),
        (replace(POD, gone=True), ATTEMPT),
        (POD, ATTEMPT.model_copy(update={"outcome": "Failed"})),
    ],
    ids=["succeeded", "failed", "gone", "attempt over"],
)
def test_after_the_end_there_is_no_value_and_nothing_is_left(pod: PodView, attempt: AttemptStatus) -> None:
    obs = observed(REQUEST, pod=pod, attempt=attempt)
    assert due(obs, pod, attempt) is None
    assert emptied(clean_up_requests(obs)) == {"req-1"}
    assert deleted(clean_up_requests(observed(ISSUED, pod=pod, attempt=attempt))) == {"req-1"}


def test_a_job_that_was_made_for_a_secret_gets_no_answer() -> None:
    obs = observed(REQUEST, job=replace(JOB, sealed=False))
    assert "by a Secret" in denied(clean_up_requests(obs))["req-1"]


def test_it_is_deleted_once_it_was_opened_and_not_before() -> None:
    assert clean_up_requests(observed(ISSUED, attempt=recorded())) == ()
    assert deleted(clean_up_requests(observed(ISSUED, pod=OPENED, attempt=recorded()))) == {"req-1"}
    gone = replace(ISSUED, gone=True)
    assert clean_up_requests(observed(gone, pod=OPENED, attempt=recorded())) == ()


def test_the_status_says_when_it_was_delivered_and_opened() -> None:
    attempt = recorded()
    seen = followed(attempt, observed(ISSUED, attempt=attempt), [POD])
    assert (seen.sealed and seen.sealed.delivered, seen.sealed and seen.sealed.opened) == (later(4), None)
    # The answer may never be seen; that the pod opened it says that it was there.
    seen = followed(attempt, observed(attempt=attempt, pod=OPENED), [OPENED])
    assert (seen.sealed and seen.sealed.delivered, seen.sealed and seen.sealed.opened) == (later(6), later(6))
    assert followed(ATTEMPT, observed(ISSUED), [OPENED]) == ATTEMPT


def test_an_opener_that_failed_has_opened_nothing() -> None:
    attempt = recorded()
    failed = replace(OPENED, containers=(replace(OPENED.containers[0], exit_code=1),))
    seen = followed(attempt, observed(ISSUED, pod=failed, attempt=attempt), [failed])
    assert seen.sealed is not None
    assert seen.sealed.opened is None


def test_what_was_refused_is_told_each_reason_once() -> None:
    again = replace(NEWER, state="Denied", message="why")
    obs = observed(replace(REQUEST, state="Denied", message="why"), again, replace(ISSUED, uid="x"))
    assert refused(obs) == f"PodCertificateRequest req-1, req-2 of pod {POD.name}: why"


@pytest.mark.parametrize(("well", "status"), [(True, "False"), (False, "True")])
@pytest.mark.parametrize("late", [False, True])
def test_a_refusal_is_no_trouble_after_success(well: bool, status: str, late: bool) -> None:
    world = World(run=make_run(tasks=[task(delivery="Sealed", backoffLimit=0)]))
    world.reconcile()
    world.bind_pod()
    world.reconcile()

    def forge() -> None:
        (own,) = (item for item in world.requests.values() if item.node == "node1")
        world.requests["forged"] = replace(
            own, uid="forged", name="forged", version="999", state="", node="node2", gone=False
        )

    if not late:
        forge()
        world.reconcile()
        world.tick(5)
        world.reconcile()
        (found,) = (item for item in world.run.status.conditions if item.type == "RequestsRefused")
        assert found.status == "True"
    world.unseal()
    world.start_pod()
    world.end_pod(well=well)
    world.finish_jobs()
    world.reconcile()
    assert world.run.status.finished
    if late:
        forge()
        world.reconcile()
    (found,) = (item for item in world.run.status.conditions if item.type == "RequestsRefused")
    assert found.status == status
    assert found.message.count("names node node2") == 1
    assert plan(world._observe(), world.now).actions == ()
