"""Entries of stores: what is asked of a store, and as which pod."""

from __future__ import annotations

from runkeys.planning.actions import EnsureSecret
from runkeys.planning.refusal import Reason
from runkeys.planning.requirements import (
    PodIdentity,
    StoreValue,
    TaskRequirements,
    lease_refusal,
    source_of,
    task_requirements,
)
from tests.unit.planning.objects import bound_to, make_binding, make_run
from tests.unit.planning.test_plan import with_secret

PLACE = {"store": "bao", "role": "runner", "path": "kv/data/a", "field": "token"}


def test_an_entry_says_what_to_ask_which_store_for() -> None:
    binding = make_binding(secrets=[{"name": "token", "value": PLACE}, {"name": "db", "lease": PLACE}])
    expected = StoreValue("bao", "runner", "kv/data/a", "token")
    assert source_of("team-a", binding, binding.spec.secrets[0]) == expected
    leased = source_of("team-a", binding, binding.spec.secrets[1])
    assert leased == StoreValue("bao", "runner", "kv/data/a", "token", leased=True)
    assert leased != expected, "one is revoked at its end, the other not"
    assert [entry.source for entry in binding.spec.secrets] == ["value", "lease"]


def test_a_task_with_a_value_of_a_store_can_start_and_one_with_a_lease_waits() -> None:
    run = make_run()
    value = make_binding(secrets=[{"name": "token", "value": PLACE}])
    found = task_requirements(run, 0, bound_to(value))
    assert isinstance(found, TaskRequirements)
    assert found.references[0].source == StoreValue("bao", "runner", "kv/data/a", "token")

    lease = make_binding(secrets=[{"name": "token", "lease": PLACE}])
    (refusal,) = task_requirements(run, 0, bound_to(lease))  # type: ignore[misc]
    assert (refusal.reason, refusal.permanent) == (Reason.LEASES_UNAVAILABLE, False)
    assert refusal == lease_refusal(lease, lease.spec.secrets[0], "spec.tasks[0].secrets[0].secret")


def test_values_are_read_as_the_pod_that_was_created() -> None:
    world = with_secret()
    (ensured,) = [action for action in world.history if isinstance(action, EnsureSecret)]
    pod = next(iter(world.pods.values()))
    assert ensured.pod == PodIdentity("team-a", pod.service_account, pod.name, pod.uid)
