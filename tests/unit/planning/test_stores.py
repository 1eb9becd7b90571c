"""Entries of stores: what is asked of a store, and as which pod."""

from __future__ import annotations

from runkeys.planning.actions import EnsureSecret
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import (
    PodIdentity,
    StoreValue,
    TaskRequirements,
    reference_to,
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


def test_a_task_with_a_value_of_a_store_or_a_lease_can_start() -> None:
    run = make_run()
    value = make_binding(secrets=[{"name": "token", "value": PLACE}])
    found = task_requirements(run, 0, bound_to(value))
    assert isinstance(found, TaskRequirements)
    assert found.references[0].source == StoreValue("bao", "runner", "kv/data/a", "token")

    lease = make_binding(secrets=[{"name": "token", "lease": PLACE}])
    found = task_requirements(run, 0, bound_to(lease))
    assert isinstance(found, TaskRequirements)
    assert found.references[0].source == StoreValue("bao", "runner", "kv/data/a", "token", leased=True)


def test_what_is_no_run_has_no_lease() -> None:
    lease = make_binding(
        secrets=[{"name": "token", "lease": PLACE}, {"name": "url", "template": "x{{ token }}"}]
    )
    for entry in lease.spec.secrets:
        refusal = reference_to("team-a", lease, entry, "here", leases=False)
        assert isinstance(refusal, Refusal)
        assert (refusal.reason, refusal.permanent) == (Reason.LEASES_UNAVAILABLE, False)
        assert "entry 'token' of SecretBinding keys is a lease" in refusal.message


def test_values_are_read_as_the_pod_that_was_created() -> None:
    world = with_secret()
    (ensured,) = [action for action in world.history if isinstance(action, EnsureSecret)]
    pod = next(iter(world.pods.values()))
    assert ensured.pod == PodIdentity("team-a", pod.service_account, pod.name, pod.uid)
