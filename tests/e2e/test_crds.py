"""The kinds on a real API server: what they accept, what they refuse and how, how they read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from runkeys.api import SecretBinding, WorkflowRun
from runkeys.api.crd import KINDS, Kind, manifest
from testing.cluster.base import Cluster, ClusterError
from testing.cluster.cache import CHECKOUT
from testing.cluster.client import KubeClient, Object
from testing.operators import wait_established
from tests.crd_cases import (
    BAD_BINDINGS,
    BAD_REVEALS,
    BAD_RUNS,
    BAD_STORES,
    BINDING,
    CANARY,
    CSI_STORE,
    OWNER,
    REVEAL,
    REVEAL_FIXED,
    RUN,
    STORE,
    changed,
)
from tests.e2e.conftest import OwnNode

# Changes to a run that exists, as merge patches one after the other.
BAD_CHANGES: list[tuple[str, Object, str]] = [
    (
        "account",
        {"serviceAccountName": "x"},
        "serviceAccountName is immutable once a run exists: create a new run",
    ),
    ("bindings", {"bindings": [{"name": "x"}]}, "bindings is immutable once a run exists: create a new run"),
    ("no bindings", {"bindings": None}, "bindings is immutable once a run exists: create a new run"),
    (
        "tasks",
        {"tasks": [{**RUN["spec"]["tasks"][0], "containers": ["x"]}]},
        "tasks is immutable once a run exists",
    ),
    ("input", {"input": None}, "input is immutable once a run exists: create a new run"),
    (
        "another value",
        {"sealedInput": {"token": "rk1.z"}},
        "sealedInput is immutable once a run exists, and is removed when the run ends: create a new run",
    ),
    # the same fields and values, but not each to its own
    (
        "swapped",
        {"sealedInput": {"token": "rk1.y", "other": "rk1.x"}},
        "sealedInput is immutable once a run exists",
    ),
    ("one field", {"sealedInput": {"other": None}}, "sealedInput is immutable once a run exists"),
    ("requester", {"requester": {"username": "bob"}}, "requester is immutable once a run exists"),
    ("group", {"requester": {"groups": ["admins"]}}, "requester is immutable once a run exists"),
    ("deadline", {"activeDeadlineSeconds": 5}, "activeDeadlineSeconds is immutable once a run exists"),
    ("cancel", {"cancel": False}, "cancel cannot be undone: create a new run"),
]


# Checked in full, but not kept should it be accepted.
CREATE = ("create", "--namespace=default", "--dry-run=server", "-f", "-")

pytestmark = pytest.mark.usefixtures("crds")


def refusal(cluster: Cluster, *kubectl: str, body: Object | None = None) -> str:
    with pytest.raises(ClusterError) as refused:
        cluster.kubectl(*kubectl, input=None if body is None else json.dumps(body))
    return " ".join(str(refused.value).split())


def test_definitions_apply_on_their_own_and_again(own_node: OwnNode) -> None:
    node = own_node()
    folder = str(CHECKOUT / "crds")

    first = node.kubectl("apply", "-f", folder)
    wait_established(node, *(manifest(kind)["metadata"]["name"] for kind in KINDS))
    again = node.kubectl("apply", "-f", folder)

    assert [line.rpartition(" ")[2] for line in first.splitlines()] == ["created"] * len(KINDS)
    assert [line.rpartition(" ")[2] for line in again.splitlines()] == ["unchanged"] * len(KINDS)
    assert node.kubectl("get", "wfr,rkb", "--all-namespaces") == ""


@pytest.mark.parametrize(
    "example",
    [RUN, BINDING, REVEAL, STORE, CSI_STORE],
    ids=["run", "binding", "reveal", "store", "csi-store"],
)
def test_a_good_example_is_accepted_and_gets_its_defaults(
    cluster: Cluster,
    client: KubeClient,
    namespace: str,
    example: Object,
    request: pytest.FixtureRequest,
) -> None:
    name = f"good-{namespace}"  # stores are of the cluster, which other tests use at the same time
    named = {**example, "metadata": {**example["metadata"], "name": name}}
    cluster.kubectl("-n", namespace, "create", "-f", "-", input=json.dumps(named))

    if example in (STORE, CSI_STORE):
        request.addfinalizer(lambda: cluster.kubectl("delete", "secretstore", name))
        namespace = ""
    plural = f"{example['kind'].lower()}s"
    stored = client.get(plural, name, namespace)
    if example is not REVEAL:  # which is no lasting state that tools wait for
        assert stored["status"]["observedGeneration"] == -1
    assert stored["spec"] == example["spec"]


def test_a_short_run_gets_its_defaults(client: KubeClient, namespace: str) -> None:
    task = {"name": "t", "template": RUN["spec"]["tasks"][0]["template"]}
    stored = client.create({**RUN, "spec": {"tasks": [task]}}, namespace)

    assert stored["spec"]["serviceAccountName"] == "default"
    assert stored["spec"]["cancel"] is False
    defaults = {"backoffLimit": 0, "recordOutput": False, "runs": "OnSuccess", "startDeadlineSeconds": 900}
    assert stored["spec"]["tasks"] == [{**task, **defaults}]


@pytest.mark.parametrize(("path", "value", "message"), BAD_RUNS, ids=[path for path, *_ in BAD_RUNS])
def test_a_bad_run_is_refused_with_field_and_remedy_but_not_the_value(
    cluster: Cluster, path: str, value: Any, message: str
) -> None:
    answer = refusal(cluster, *CREATE, body=changed(RUN, path, value))

    assert message in answer
    assert CANARY.lower() not in answer.lower()


@pytest.mark.parametrize(("path", "value", "message"), BAD_BINDINGS, ids=[path for path, *_ in BAD_BINDINGS])
def test_a_bad_binding_is_refused_with_field_and_remedy_but_not_the_value(
    cluster: Cluster, path: str, value: Any, message: str
) -> None:
    answer = refusal(cluster, *CREATE, body=changed(BINDING, path, value))

    assert message in answer
    assert CANARY not in answer


@pytest.mark.parametrize(("path", "value", "message"), BAD_REVEALS, ids=[path for path, *_ in BAD_REVEALS])
def test_a_bad_reveal_is_refused_with_field_and_remedy_but_not_the_value(
    cluster: Cluster, path: str, value: Any, message: str
) -> None:
    answer = refusal(cluster, *CREATE, body=changed(REVEAL, path, value))

    assert message in answer
    assert CANARY not in answer


@pytest.mark.parametrize(("path", "value", "message"), BAD_STORES, ids=[path for path, *_ in BAD_STORES])
def test_a_bad_store_is_refused_with_field_and_remedy_but_not_the_value(
    cluster: Cluster, path: str, value: Any, message: str
) -> None:
    answer = refusal(cluster, *CREATE, body=changed(STORE, path, value))

    assert message in answer
    assert CANARY not in answer


def test_a_reveal_is_fixed(cluster: Cluster, client: KubeClient, namespace: str) -> None:
    client.create(REVEAL, namespace)
    for change in ({"publicKey": "rkpub1.y"}, {"requester": None}, {"entry": "other"}):
        patch = json.dumps({"spec": change})
        answer = refusal(cluster, "-n", namespace, "patch", "rkr", "good", "--type=merge", "-p", patch)
        assert f"spec: Forbidden: {REVEAL_FIXED}" in answer


def test_a_run_is_fixed_but_for_cancel_and_ttl(cluster: Cluster, client: KubeClient, namespace: str) -> None:
    client.create(RUN, namespace)
    client.patch("workflowruns", "good", namespace, {"spec": {"ttlSecondsAfterFinished": None}})
    client.patch("workflowruns", "good", namespace, {"spec": {"cancel": True}})

    for _, change, message in BAD_CHANGES:
        patch = json.dumps({"spec": change})
        answer = refusal(cluster, "-n", namespace, "patch", "wfr", "good", "--type=merge", "-p", patch)
        assert f"spec: Forbidden: {message}" in answer
    purged = client.patch("workflowruns", "good", namespace, {"spec": {"sealedInput": None}})
    assert "sealedInput" not in purged["spec"]
    again = json.dumps({"spec": {"sealedInput": RUN["spec"]["sealedInput"]}})
    assert "sealedInput is immutable" in refusal(
        cluster, "-n", namespace, "patch", "wfr", "good", "--type=merge", "-p", again
    )


def test_the_owner_of_a_binding_is_fixed(cluster: Cluster, client: KubeClient, namespace: str) -> None:
    strict = changed(BINDING, "spec.secrets.1.scope", None)
    client.create(changed(strict, "spec.owner", {"username": "alice"}), namespace)
    for change in ({"username": "bob"}, None):
        patch = json.dumps({"spec": {"owner": change}})
        answer = refusal(cluster, "-n", namespace, "patch", "rkb", "good", "--type=merge", "-p", patch)
        assert f"spec: Forbidden: {OWNER}" in answer
    owned = "--field-selector=spec.owner.username=alice"
    assert "good" in cluster.kubectl("-n", namespace, "get", "rkb", "-o", "name", owned)


def test_control_a_rule_without_our_reason_repeats_the_value(cluster: Cluster) -> None:
    group = f"t{secrets.token_hex(4)}.example"
    twin = manifest(WorkflowRun)
    for rule in rules_in(twin):
        del rule["reason"]
    twin["metadata"]["name"] = f"twins.{group}"
    twin["spec"] |= {"group": group, "names": {"plural": "twins", "kind": "Twin"}}
    definition = json.dumps(twin)
    cluster.kubectl("create", "-f", "-", input=definition)
    try:
        wait_established(cluster, twin["metadata"]["name"])
        bad = changed(RUN, "spec.tasks.0.name", CANARY)
        body = {**bad, "apiVersion": f"{group}/v1alpha1", "kind": "Twin"}
        assert CANARY in refusal(cluster, *CREATE, body=body)
    finally:
        cluster.kubectl("delete", "-f", "-", "--wait=false", input=definition)


def test_every_rule_has_a_bad_example() -> None:
    covered = [message for *_, message in (*BAD_RUNS, *BAD_BINDINGS, *BAD_STORES, *BAD_CHANGES)]
    covered += [OWNER, REVEAL_FIXED, *(message for *_, message in BAD_REVEALS)]
    rules = {rule["message"] for kind in KINDS for rule in rules_in(manifest(kind))}

    untested = {rule for rule in rules if not any(shared(rule, message) for message in covered)}
    assert not untested


def rules_in(node: Any) -> Iterator[Object]:
    if isinstance(node, dict):
        yield from node.get("x-kubernetes-validations", [])
        for inner in node.values():
            yield from rules_in(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from rules_in(inner)


def shared(rule: str, message: str) -> bool:
    return rule.startswith(message.partition("Forbidden: ")[2] or message)


def test_status_is_a_subresource_that_takes_what_the_models_write(client: KubeClient, namespace: str) -> None:
    status = {
        "observedGeneration": 1,
        "phase": "Succeeded",
        "tasksDone": "1/1",
        "live": 0,
        "exposed": "41.2s",
        "conditions": [
            {
                "type": "SecretsReleased",
                "status": "True",
                "reason": "Released",
                "message": "",
                "lastTransitionTime": "2030-01-02T03:04:05Z",
                "observedGeneration": 1,
            }
        ],
        "tasks": [
            {
                "name": "run-circuit",
                "state": "Succeeded",
                "reason": "",
                "message": "",
                "attempts": [
                    {
                        "number": 1,
                        "job": "rk-x",
                        "jobUID": "u",
                        "exposures": [
                            {
                                "created": "2030-01-02T03:04:05.123456Z",
                                "deleted": "2030-01-02T03:04:46.323456Z",
                                "estimated": False,
                            }
                        ],
                    }
                ],
            }
        ],
    }
    made = WorkflowRun.parse({**RUN, "status": status})
    client.create({**RUN, "status": status}, namespace)
    assert client.get("workflowruns", "good", namespace)["status"] == {"live": 0, "observedGeneration": -1}

    stored = client.patch(
        "workflowruns", "good", namespace, {"status": made.status.to_wire()}, subresource="status"
    )

    assert WorkflowRun.parse(stored).status == made.status
    assert (
        stored["status"]["tasks"][0]["attempts"][0]["exposures"][0]["created"]
        == "2030-01-02T03:04:05.123456Z"
    )


def test_short_names_category_and_columns(cluster: Cluster, client: KubeClient, namespace: str) -> None:
    client.create(RUN, namespace)
    client.create(BINDING, namespace)

    assert columns(cluster.kubectl("-n", namespace, "get", "wfr")) == [
        ["NAME", "PHASE", "TASKS", "LIVE", "EXPOSED", "AGE"]
    ]
    assert columns(cluster.kubectl("-n", namespace, "get", "rkb")) == [["NAME", "READY", "SECRETS", "AGE"]]
    listed = cluster.kubectl("-n", namespace, "get", "runkeys", "-o", "name").split()
    # SecretStores are in no namespace, and others may have some.
    both = [name for name in listed if not name.startswith("secretstore.")]
    assert both == ["secretbinding.runkeys.dev/good", "workflowrun.runkeys.dev/good"]


def columns(printed: str) -> list[list[str]]:
    return [line.split() for line in printed.splitlines() if line.startswith("NAME")]


EXPLAINED = [
    "wfr.spec",
    "wfr.spec.tasks",
    "wfr.spec.tasks.secrets",
    "wfr.spec.tasks.template",
    "wfr.status",
    "wfr.status.conditions",
    "wfr.status.tasks.attempts.exposures",
    "rkb.spec",
    "rkb.spec.secrets.secretKeyRef",
    "rkb.spec.access",
    "rkb.status",
]


@pytest.mark.parametrize("path", EXPLAINED)
def test_explain_shows_every_description(cluster: Cluster, path: str) -> None:
    short, *steps = path.split(".")
    model: type[Kind] = WorkflowRun if short == "wfr" else SecretBinding
    schema = manifest(model)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for step in steps[:-1]:
        schema = schema["properties"][step]
        schema = schema.get("items", schema)
    field = schema["properties"][steps[-1]]
    wanted = [field["description"], *described(field.get("items", field))]

    shown = " ".join(cluster.kubectl("explain", path).split())

    assert [text for text in wanted if text not in shown] == []


def described(schema: Object) -> list[str]:
    return [inner["description"] for inner in schema.get("properties", {}).values()]
