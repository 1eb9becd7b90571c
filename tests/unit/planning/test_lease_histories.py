"""Any history of a run with a lease: nothing is leased that is not on record, and nothing stays open."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runkeys.names import FINALIZER
from runkeys.planning.actions import EnsureSecret
from tests.unit.planning.objects import bound_to, make_binding, make_run, task
from tests.unit.planning.test_histories import EVENTS as COMMON
from tests.unit.planning.world import World

LEASE = {"store": "bao", "role": "r", "path": "db/creds/a", "field": "password"}

EVENTS: dict[str, Callable[[World], None]] = {
    **COMMON,
    "store away": lambda world: setattr(world.store, "away", True),
    "database of the store away": lambda world: setattr(world.store, "stuck", True),
    "store and database there again": lambda world: world.store.come_back(),
    "a late answer lost": lambda world: setattr(world, "lose_answer_in", 3),
}
GOES_ON = ("reconcile", "pod gets a node", "reconcile", "container starts", "reconcile", "container ends")

histories = st.one_of(
    st.lists(st.sampled_from(sorted(EVENTS)), min_size=10, max_size=40),
    st.lists(st.sampled_from([*GOES_ON * 4, *sorted(EVENTS)]), min_size=10, max_size=40),
)


def leasing(delivery: str = "Secret") -> World:
    binding = bound_to(make_binding(secrets=[{"name": "token", "lease": LEASE}]))
    return World(
        run=make_run(tasks=[task(delivery=delivery, backoffLimit=2)]), bindings=binding, restored=binding
    )


def check(world: World) -> None:
    """What holds after every event."""
    recorded = [lease for item in world.run.status.tasks for a in item.attempts for lease in a.leases or ()]
    if world.run_there:
        still_open = {lease.accessor for lease in recorded if lease.open}
        live = {accessor for accessor in world.store.live if world.store.has(accessor, world.now)}
        assert live <= still_open, "a credential that the status does not speak of"
        given_out = {accessor for accessor in live if accessor in world.store.delivered}
        if given_out and world.secrets:
            assert FINALIZER in world.run.metadata.finalizers, "its record can go before it does"
    else:
        live = {accessor for accessor in world.store.live if world.store.has(accessor, world.now)}
        assert not live, "the run is gone, and its credential is not"
    assert all(lease.revoked is None or not lease.expired for lease in recorded)


def check_end(world: World) -> None:
    assert world.over, f"never ends: {world.run.status.to_wire()}"
    assert not world.secrets
    assert not [accessor for accessor in world.store.live if world.store.has(accessor, world.now)]
    if not world.run_there:
        return
    assert world.run.status.live == 0
    assert FINALIZER not in world.run.metadata.finalizers
    released = next(item for item in world.run.status.conditions if item.type == "SecretsReleased")
    assert (released.status, released.reason) in (
        ("True", "Released"),
        ("True", "NeverMade"),
        ("False", "LeaseExpired"),
    )


def live(world: World, history: list[str]) -> None:
    world.reconcile()
    for name in history:
        EVENTS[name](world)
        check(world)
    world.bring_to_end()
    world.tick(31)
    world.reconcile()
    check(world)
    check_end(world)


@given(histories)
@settings(max_examples=400)
def test_any_history_ends_with_nothing_leased(history: list[str]) -> None:
    live(leasing(), history)


@given(histories)
@settings(max_examples=200)
def test_nor_when_it_is_delivered_sealed(history: list[str]) -> None:
    world = leasing("Sealed")
    live(world, history)
    assert not any(isinstance(action, EnsureSecret) for action in world.history)


def test_a_calm_run_logs_in_once() -> None:
    world = leasing()
    live(world, list(GOES_ON))
    assert world.store.logins == 1
    (attempt,) = world.run.status.tasks[0].attempts
    (lease,) = attempt.leases or []
    assert lease.revoked is not None
    assert lease.ids == ["id-accessor-1"]


@pytest.mark.parametrize("lost", range(6))
@pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
def test_wherever_the_operator_dies_its_pod_gets_a_credential_that_works(lost: int, delivery: str) -> None:
    world = leasing(delivery)
    world.reconcile()
    world.tick(5)  # the Job is on record
    world.reconcile()
    world.bind_pod()
    world.lose_answer_in = lost
    for _ in range(3):
        world.reconcile()
    world.start_pod()
    world.reconcile()
    (pod,) = world.pods.values()
    assert pod.phase == "Running"
    (held,) = world.holds.values()
    assert list(world.store.live) == [held], "the pod has the one credential that works"
    check(world)
    world.end_pod()
    world.finish_jobs()
    world.reconcile()
    check_end(world)
