"""Entries of stores: what is asked of a store, and as which pod."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runkeys.api import SecretStore
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
from runkeys.planning.stores import filled, misfit
from tests.crd_cases import CSI_STORE, STORE
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


NAMES = st.text("abzAZ09-/_+=.@:~", min_size=1, max_size=40)


@given(NAMES, st.sampled_from(["", "reader"]))
def test_what_stands_for_a_path_is_that_path_and_nothing_more(path: str, role: str) -> None:
    store = SecretStore.parse(CSI_STORE)
    assert misfit(store, StoreValue("aws", "reader", path, "")) is None
    parameters = {
        "double": '- objectName: "{{ path }}"\n  kind: "{{role}}"\n',
        "single": "- objectName: '{{path}}'\n",
        "flow": '[{objectName: "{{ path }}", kind: x}]',
        "json": '[{"objectName": "{{  path  }}"}]',
        "text": "{{ path }}",
        "twice": '["{{ path }}", "{{ path }}"]',
        "none": "{{",
    }
    found = filled(parameters, path, role)
    assert yaml.safe_load(found["double"]) == [{"objectName": path, "kind": role}]
    assert yaml.safe_load(found["single"]) == [{"objectName": path}]
    assert yaml.safe_load(found["flow"]) == [{"objectName": path, "kind": "x"}]
    assert json.loads(found["json"]) == [{"objectName": path}]
    assert (found["text"], json.loads(found["twice"]), found["none"]) == (path, [path, path], "{{")


@pytest.mark.parametrize(
    "character", [*"\"'\\{}[](),;&*!|>#%?`$^<", " ", "\n", "\t", "\x00", "ü", "\u2028", "\u0085"]
)
def test_a_path_that_could_be_more_is_refused(character: str) -> None:
    store = SecretStore.parse(CSI_STORE)
    for path in (f"a{character}", f"{character}a", f"a{character}b"):
        found = misfit(store, StoreValue("aws", "reader", path, ""))
        assert found is not None
        assert found[0] is Reason.BINDING_INVALID
        assert "characters that could change the parameters" in found[1]


def test_an_entry_has_what_its_kind_of_store_needs() -> None:
    def told(store: Any, **changed: Any) -> tuple[Reason, str] | None:
        place = {"store": "s", "role": "r", "path": "kv/data/a", "field": "f", **changed}
        return misfit(SecretStore.parse(store), StoreValue(**place))

    assert told(STORE) is None
    assert told(STORE, leased=True) is None
    for missing, words in (
        ({"role": ""}, "role"),
        ({"field": ""}, "field"),
        ({"role": "", "field": ""}, "role and field"),
    ):
        found = told(STORE, **missing)
        assert found == (
            Reason.BINDING_INVALID,
            f"SecretStore good is a Vault or OpenBao server, whose entries name {words} too",
        )
    assert told(CSI_STORE, field="") is None
    found = told(CSI_STORE, role="")
    assert found is not None
    assert "need role, which the entry lacks" in found[1]
    found = told(CSI_STORE, leased=True)
    assert found is not None
    assert (found[0], "cannot be revoked" in found[1]) == (Reason.LEASES_UNAVAILABLE, True)
    without = {**CSI_STORE["spec"]["csi"], "parameters": {"objects": "{{ path }}"}}
    assert told({**CSI_STORE, "spec": {"csi": without, "namespaces": {}}}, role="") is None


def test_a_store_has_the_audience_of_its_kind() -> None:
    assert SecretStore.parse(STORE).spec.audience == "bao"
    assert SecretStore.parse(CSI_STORE).spec.audience == "sts.amazonaws.com"
