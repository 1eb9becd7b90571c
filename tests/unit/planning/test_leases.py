"""Leases on record: when they are revoked, what the status says of them, and when the run is let go."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runkeys.api import Condition, LeaseStatus
from runkeys.names import FINALIZER
from runkeys.planning import leases, memory
from runkeys.planning.actions import DeleteSecret, EnsureSecret, PatchStatus, RevokeLeases
from runkeys.planning.memory import Memory
from runkeys.planning.refusal import Reason
from runkeys.planning.requirements import TaskRequirements, task_requirements
from tests.unit.planning.objects import START, bound_to, later, make_binding, make_run, task
from tests.unit.planning.test_lease_histories import LEASE, leasing
from tests.unit.planning.world import World


def lease(**changed: Any) -> LeaseStatus:
    given = {"store": "bao", "role": "r", "accessor": "a", "paths": ["db/creds/a"], "expires": later(100)}
    return LeaseStatus.model_validate({**given, **changed})


def released(world: World) -> Condition:
    return next(item for item in world.run.status.conditions if item.type == "SecretsReleased")


def running(delivery: str = "Secret") -> World:
    world = leasing(delivery)
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    world.start_pod()
    world.reconcile()
    return world


def test_entries_of_one_path_are_one_lease_and_lead_to_one_secret() -> None:
    entries = [
        {"name": "user", "lease": {**LEASE, "field": "username"}},
        {"name": "token", "template": "{{ user }}:{{ pass }}"},
        {"name": "pass", "lease": LEASE},
    ]
    found = task_requirements(make_run(), 0, bound_to(make_binding(secrets=entries)))
    assert isinstance(found, TaskRequirements)
    assert [source.field for _, source in leases.leased(found.references)] == ["username", "password"]
    assert leases.limit_refusal(found.references) is None


def test_a_task_with_more_leases_than_can_be_on_record_waits() -> None:
    many = [{"name": f"n{i}", "lease": {**LEASE, "role": f"r{i}"}} for i in range(17)]
    asks = [{"name": f"v{i}", "secret": f"n{i}"} for i in range(17)]
    world = World(run=make_run(tasks=[task(secrets=asks)]), bindings=bound_to(make_binding(secrets=many)))
    world.reconcile()
    assert world.run.status.tasks[0].reason == "LeasesUnavailable"
    assert not world.jobs


def test_the_order_at_the_end() -> None:
    world = running()
    assert world.run.status.live == 2
    assert (released(world).reason, FINALIZER in world.run.metadata.finalizers) == ("Live", True)
    world.end_pod()
    before = len(world.history)
    world.reconcile()
    kinds = [type(action) for action in world.history[before:]]
    assert kinds.index(DeleteSecret) < kinds.index(RevokeLeases)
    assert not world.store.live
    world.finish_jobs()
    world.reconcile()
    assert (released(world).status, world.run.status.live) == ("True", 0)


def test_with_on_start_the_secret_goes_and_the_lease_stays() -> None:
    binding = bound_to(make_binding(secrets=[{"name": "token", "lease": LEASE}], releasePolicy="OnStart"))
    world = World(run=make_run(tasks=[task()]), bindings=binding, restored=binding)
    for event in (world.bind_pod, world.start_pod):
        world.reconcile()
        event()
    world.reconcile()
    assert (len(world.secrets), len(world.store.live)) == (0, 1)
    world.end_pod()
    world.reconcile()
    assert not world.store.live


def test_a_revocation_that_is_accepted_and_not_carried_out_is_pending_and_tried_again() -> None:
    world = running()
    world.store.stuck = True
    world.end_pod()
    world.reconcile()
    world.finish_jobs()
    world.reconcile()
    status = world.run.status
    assert (status.phase, status.live) == ("Succeeded", 1)
    assert (released(world).status, released(world).reason) == ("False", "RevocationPending")
    assert "db/creds/a" not in released(world).message, "by its id"
    assert "id-accessor-1 of SecretStore bao: away; it is tried again" in released(world).message
    assert FINALIZER in world.run.metadata.finalizers

    tries = [action for action in world.history if isinstance(action, RevokeLeases)]
    world.tick(29)
    world.reconcile()
    assert [action for action in world.history if isinstance(action, RevokeLeases)] == tries
    world.store.come_back()
    world.tick(1)
    world.reconcile()
    assert (released(world).status, released(world).reason) == ("True", "Released")
    assert (world.run.status.live, world.run.metadata.finalizers) == (0, [])


def test_what_is_not_confirmed_when_it_expires_is_said_for_good() -> None:
    world = running()
    world.store.away = True
    world.end_pod()
    world.reconcile()
    world.finish_jobs()
    for _ in range(200):
        world.reconcile()
        world.tick(30)
    assert (released(world).status, released(world).reason) == ("False", "LeaseExpired")
    assert "see there whether it has" in released(world).message
    assert (world.run.status.live, world.run.metadata.finalizers) == (0, [])
    settled = len(world.history)
    world.crash()
    world.reconcile()
    assert not [item for item in world.history[settled:] if isinstance(item, RevokeLeases | PatchStatus)]


def test_a_deleted_run_waits_for_its_lease_and_says_so() -> None:
    world = running()
    world.store.away = True
    world.delete_run()
    world.reconcile()
    assert world.run_there
    assert not world.secrets
    assert released(world).reason == "RevocationPending"
    world.store.come_back()
    world.tick(30)
    world.reconcile()
    assert not world.run_there
    assert not world.store.live


def test_a_deleted_run_is_let_go_when_its_lease_has_expired() -> None:
    world = running()
    world.store.stuck = True
    world.delete_run()
    for _ in range(200):
        world.reconcile()
        world.tick(30)
    assert not world.run_there


def test_a_store_that_is_away_when_the_pod_has_a_node_is_said_and_nothing_is_on_record() -> None:
    world = leasing()
    world.reconcile()
    world.bind_pod()
    world.store.away = True
    world.reconcile()
    status = world.run.status
    assert (status.tasks[0].state, status.tasks[0].reason) == ("Waiting", "SourceUnavailable")
    assert (status.live, world.run.metadata.finalizers) == (0, [])
    world.store.come_back()
    world.tick(30)
    world.reconcile()
    assert len(world.secrets) == 1


def test_a_secret_that_arrives_after_its_lease_was_revoked_ends_the_attempt() -> None:
    world = leasing()
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    (job,) = world.jobs.values()
    world.memory = memory.secret_void(world.memory, job.uid)
    world.reconcile()
    attempt = world.run.status.tasks[0].attempts[0]
    assert (attempt.outcome, attempt.reason) == ("Disrupted", "LeaseLost")
    assert not world.store.live


def given_sealed() -> World:
    """Its pod has a credential, sealed, and has not started."""
    world = leasing("Sealed")
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    (request,) = world.requests.values()
    assert request.state == "Issued"
    return world


def test_sealed_values_that_arrive_after_their_lease_was_revoked_end_the_attempt() -> None:
    """The answer of an earlier try was under way while its lease was revoked, and that of the next came too late."""
    world = given_sealed()
    world.requests = {uid: replace(item, contested=True) for uid, item in world.requests.items()}
    world.reconcile()
    attempt = world.run.status.tasks[0].attempts[0]
    assert (attempt.outcome, attempt.reason) == ("Disrupted", "LeaseLost")
    assert not world.store.live


def test_sealed_values_of_which_no_lease_is_open_end_the_attempt() -> None:
    """As above, before the next try could log in, whatever process sees it."""
    world = leasing("Sealed")
    world.reconcile()
    world.tick(5)  # the Job is on record
    world.reconcile()
    world.bind_pod()
    world.lose_answer_in = 4  # it dies when it is on record that the request is answered
    world.reconcile()
    (request,) = world.requests.values()
    assert (request.state, len(world.store.live)) == ("", 1)
    world.source_there = False
    world.reconcile()
    assert not world.store.live
    world.source_there = True
    world.requests[request.uid] = replace(request, state="Issued", at=world.now)
    world.reconcile()
    attempt = world.run.status.tasks[0].attempts[0]
    assert (attempt.outcome, attempt.reason) == ("Disrupted", "LeaseLost")


def test_sealed_values_of_a_container_that_has_ended_are_no_reason_to_end_the_attempt() -> None:
    world = given_sealed()
    world.start_pod()
    world.reconcile()
    world.end_pod()
    for _ in range(3):  # its Job is still active
        world.reconcile()
        world.tick(5)
    (attempt,) = world.run.status.tasks[0].attempts
    assert (attempt.open_leases, attempt.outcome) == ([], "")
    world.finish_jobs()
    world.reconcile()
    assert world.run.status.phase == "Succeeded"


def test_an_attempt_whose_earlier_leases_are_all_open_gets_no_more() -> None:
    world = leasing()
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    attempt = world.run.status.tasks[0].attempts[0]
    left = [lease(accessor=f"a{number}") for number in range(17)]
    found = leases.too_many(attempt.model_copy(update={"leases": left}))
    assert found is not None
    assert found.reason is Reason.REVOCATION_PENDING
    assert leases.too_many(attempt) is None


def test_open_leases_are_never_left_out_of_the_record() -> None:
    world = running()
    status = world.run.status
    uid = status.tasks[0].attempts[0].job_uid
    before = [
        *(lease(accessor=f"open{i}") for i in range(10)),
        *(lease(accessor=f"ended{i}", ids=["x"], revoked=START) for i in range(40)),
        lease(accessor="unused", revoked=START),
    ]
    found = leases.with_leases(status, uid, before)
    found = leases.with_leases(found, uid, [lease(accessor="new")])
    kept = [item.accessor for item in found.tasks[0].attempts[0].leases or ()]
    assert len(kept) == 32
    assert {f"open{i}" for i in range(10)} | {"new"} <= set(kept)
    assert "unused" not in kept


def test_the_last_try_is_when_the_store_has_ended_it_by_itself() -> None:
    world = running()
    (attempt,) = world.run.status.tasks[0].attempts
    attempt = attempt.model_copy(update={"leases": [lease(expires=later(45))]})
    known = Memory()
    assert leases.revocations(known, attempt, later(0)).actions
    for tried, due in ((0, 30), (30, 45)):
        known = memory.lease_pending(known, "bao", "a", later(tried), "away")
        found = leases.revocations(known, attempt, later(tried))
        assert (found.actions, found.due) == ((), (later(due),))
    known = memory.lease_pending(known, "bao", "a", later(45), "away")
    found = leases.revocations(known, attempt, later(45) + timedelta(seconds=1))
    assert (found.actions, found.due) == ((), ())
    assert [item.expired for item in found.attempt.leases or ()] == [True]


def test_what_is_leased_is_on_record_before_the_secret_is_made() -> None:
    world = running()
    kinds = [action for action in world.history if isinstance(action, PatchStatus | EnsureSecret)]
    record, intent, secret = kinds[-3:]
    assert isinstance(record, PatchStatus)
    assert isinstance(intent, PatchStatus)
    assert isinstance(secret, EnsureSecret)
    (first,) = record.status.tasks[0].attempts
    (second,) = intent.status.tasks[0].attempts
    assert ([item.ids for item in first.leases or ()], first.exposures) == ([None], [])
    assert ([item.ids for item in second.leases or ()], len(second.exposures)) == ([["id-accessor-1"]], 1)


@pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
def test_a_run_with_a_lease_needs_one_status_more(delivery: str) -> None:
    world, plain = running(delivery), World(run=make_run(tasks=[task(delivery=delivery)]))
    for event in (plain.bind_pod, plain.start_pod):
        plain.reconcile()
        event()
    for each in (world, plain):
        each.reconcile()
        each.end_pod()
        each.reconcile()
        each.finish_jobs()
        each.reconcile()
        assert each.run.status.phase == "Succeeded"
        assert each.run.status.live == 0
    writes = [sum(isinstance(action, PatchStatus) for action in each.history) for each in (world, plain)]
    assert writes[0] == writes[1] + 1
