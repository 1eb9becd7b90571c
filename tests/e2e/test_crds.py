"""The kinds on a real API server: what they accept, what they refuse and how, how they read."""

from __future__ import annotations

import copy
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
from tests.e2e.conftest import OwnNode

CANARY = "C" + secrets.token_hex(8)

RUN: Object = {
    "apiVersion": "runkeys.dev/v1alpha1",
    "kind": "WorkflowRun",
    "metadata": {"name": "good", "labels": {"app": "vqe"}},
    "spec": {
        "serviceAccountName": "runner",
        "bindings": [{"name": "quantum"}],
        "cancel": False,
        "ttlSecondsAfterFinished": 60,
        "jobTtlSecondsAfterFinished": 600,
        "activeDeadlineSeconds": 3600,
        "suspend": False,
        "input": {"circuit": {"qubits": 5}},
        "sealedInput": {"token": "rk1.x", "other": "rk1.y"},
        "requester": {"username": "alice", "groups": ["team-a", "system:authenticated"]},
        "tasks": [
            {
                "name": "run-circuit",
                "dependsOn": ["transpile"],
                "runs": "OnSuccess",
                "secrets": [
                    {"name": "ibm_token", "secret": "ibmq-token"},
                    {"name": "api", "secret": "any name?", "env": "api_token"},
                    {"name": "account", "secret": "gcp", "file": "sa.json"},
                    {"name": "mine", "input": "token"},
                ],
                "input": [
                    {"name": "circuit", "from": "input.circuit"},
                    {"name": "plan", "from": "tasks.transpile.output"},
                ],
                "dataPools": [{"name": "models", "persistentVolumeClaim": "models", "readOnly": True}],
                "recordOutput": True,
                "backoffLimit": 2,
                "podFailurePolicy": {
                    "rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]
                },
                "releasePolicy": "OnStart",
                "delivery": "Secret",
                "containers": ["main"],
                "env": [{"name": "FOO", "value": "bar"}],
                "activeDeadlineSeconds": 900,
                "startDeadlineSeconds": 300,
                "template": {"spec": {"containers": [{"name": "main", "image": "busybox:1.37"}]}},
            }
        ],
    },
}
BINDING: Object = {
    "apiVersion": "runkeys.dev/v1alpha1",
    "kind": "SecretBinding",
    "metadata": {"name": "good"},
    "spec": {
        "secrets": [
            {"name": "any name?", "secretKeyRef": {"name": "db", "key": "password"}},
            {"name": "token", "sealed": "rk1.x", "scope": "Namespace"},
        ],
        "access": [
            {
                "runSelector": {
                    "matchLabels": {"app": "vqe"},
                    "matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}],
                },
                "serviceAccountNames": ["runner"],
                "images": ["ghcr.io/acme/*"],
            },
            {"runSelector": {}},
        ],
        "releasePolicy": "OnCompletion",
        "delivery": "Sealed",
        "maxLifetimeSeconds": 60,
    },
}

REVEAL: Object = {
    "apiVersion": "runkeys.dev/v1alpha1",
    "kind": "SecretReveal",
    "metadata": {"name": "good"},
    "spec": {
        "binding": "quantum",
        "entry": "ibmq-token",
        "publicKey": "rkpub1.x",
        "requester": {"username": "alice", "groups": []},
    },
}

TASK_NAME = "a task name may hold lower-case letters, digits and hyphens"
ENV_NAME = "a variable name may hold letters, digits and underscores, and may not begin with a digit"
ENV_TAKEN = (
    "PATH, LD_*, KUBERNETES_* and PYTHON* change what a program runs and cannot be set; choose another"
)
RELEASE = "releasePolicy must be OnCompletion or OnStart"
DELIVERY = "delivery must be Secret or Sealed"
FILE = "a file name may hold letters, digits, '-', '_' and '.', and may not begin with '-' or '.'"
PARAMETER = "a parameter name may hold letters, digits, '-' and '_', and begins with a letter or '_'"
POOL = "a data pool's name may hold letters, digits, '-' and '_', and does not begin with '-'"
FROM = "from must be input.<key> or tasks.<task>.output"
ONE_OF = (
    "a secret is delivered either as a variable (env) or as a file: give one of the two, or none for SECRET_*"
)
EITHER_SOURCE = "a secret comes either from a binding (secret) or from the run's sealedInput (input)"
EITHER_BINDING = "a binding is either named (name) or the requester's own (personal: true)"
EITHER_REVEAL = "a binding is either named (binding) or the requester's own (personal: true)"
PUBLIC_KEY = "publicKey must be a public key of Runkeys, which begins with rkpub1."
REVEAL_FIXED = "a SecretReveal cannot be changed: create a new one"
SEALED = "a sealed value begins with rk1.; this one does not, and may be a secret in the clear: seal it"
ONE_SOURCE = "an entry has exactly one source: give secretKeyRef or sealed"
OWNER = "owner is immutable once a binding exists: create a new binding"
SCOPE_ALONE = "scope applies only to a sealed value: give sealed, or leave scope out"
OPERATOR = "operator must be In, NotIn, Exists or DoesNotExist"
STARS = "an image pattern may hold at most 16 stars; write several patterns"
ACCESS = "an access rule must give runSelector, serviceAccountNames or images"
RUN_NAME = "metadata.name of a WorkflowRun may have at most 63 characters"

# Where the good example is changed, to what, and what the answer must say.
OBJECT_NAME = (
    "it must be the name of an object: lower-case letters, digits, '-' and '.',"
    " with a letter or digit at the ends"
)
BAD_RUNS: list[tuple[str, Any, str]] = [
    ("spec.bindings.0.name", f"{CANARY}'; x", f"spec.bindings[0].name: Forbidden: {OBJECT_NAME}"),
    ("spec.serviceAccountName", f"{CANARY} x", f"spec.serviceAccountName: Forbidden: {OBJECT_NAME}"),
    ("metadata.name", "a" * 64, f"<nil>: Forbidden: {RUN_NAME}"),
    ("spec.tasks.0.name", CANARY, f"spec.tasks[0].name: Forbidden: {TASK_NAME}"),
    (
        "spec.tasks.0.name",
        f"{CANARY}{'x' * 40}".lower(),
        "spec.tasks[0].name: Too long: may not be more than 40",
    ),
    ("spec.tasks.0.secrets.1.env", f"0{CANARY}", f"spec.tasks[0].secrets[1].env: Forbidden: {ENV_NAME}"),
    ("spec.tasks.0.secrets.1.env", f"a={CANARY}", f"spec.tasks[0].secrets[1].env: Forbidden: {ENV_NAME}"),
    ("spec.tasks.0.secrets.1.env", f"LD_{CANARY}", f"spec.tasks[0].secrets[1].env: Forbidden: {ENV_TAKEN}"),
    (
        "spec.tasks.0.secrets.1.env",
        f"PYTHON{CANARY}",
        f"spec.tasks[0].secrets[1].env: Forbidden: {ENV_TAKEN}",
    ),
    (
        "spec.tasks.0.secrets.1.env",
        f"KUBERNETES_{CANARY}",
        f"spec.tasks[0].secrets[1].env: Forbidden: {ENV_TAKEN}",
    ),
    ("spec.tasks.0.env.0.name", "PATH", f"spec.tasks[0].env[0].name: Forbidden: {ENV_TAKEN}"),
    ("spec.tasks.0.env.0.name", f"a b{CANARY}", f"spec.tasks[0].env[0].name: Forbidden: {ENV_NAME}"),
    ("spec.tasks.0.env.0.value", [CANARY], "spec.tasks[0].env[0].value in body must be of type string"),
    ("spec.tasks.0.secrets.1.name", "ibm_token", "spec.tasks[0].secrets[1]: Duplicate value"),
    (
        "spec.tasks.0.secrets.0.name",
        "",
        "spec.tasks[0].secrets[0].name in body should be at least 1 chars long",
    ),
    ("spec.tasks.0.secrets.0.secret", None, f"spec.tasks[0].secrets[0]: Forbidden: {EITHER_SOURCE}"),
    ("spec.tasks.0.secrets.0.input", "x", f"spec.tasks[0].secrets[0]: Forbidden: {EITHER_SOURCE}"),
    ("spec.bindings.0.personal", True, f"spec.bindings[0]: Forbidden: {EITHER_BINDING}"),
    ("spec.bindings.0.name", None, f"spec.bindings[0]: Forbidden: {EITHER_BINDING}"),
    ("spec.sealedInput.token", CANARY, f"spec.sealedInput[token]: Forbidden: {SEALED}"),
    ("spec.sealedInput.token", f"rk1.{CANARY * 6000}", "spec.sealedInput.token: Too long"),
    ("spec.sealedInput", [CANARY], "spec.sealedInput in body must be of type object"),
    ("spec.tasks.0.secrets.1.file", "x", f"spec.tasks[0].secrets[1]: Forbidden: {ONE_OF}"),
    ("spec.tasks.0.secrets.2.file", f"../{CANARY}", f"spec.tasks[0].secrets[2].file: Forbidden: {FILE}"),
    ("spec.tasks.0.input.0.name", f"{CANARY}/x", f"spec.tasks[0].input[0].name: Forbidden: {PARAMETER}"),
    ("spec.tasks.0.input.0.from", CANARY, f"spec.tasks[0].input[0].from: Forbidden: {FROM}"),
    ("spec.tasks.0.dataPools.0.name", f"{CANARY}.", f"spec.tasks[0].dataPools[0].name: Forbidden: {POOL}"),
    ("spec.tasks.0.releasePolicy", CANARY, f"spec.tasks[0].releasePolicy: Forbidden: {RELEASE}"),
    ("spec.tasks.0.delivery", CANARY, f"spec.tasks[0].delivery: Forbidden: {DELIVERY}"),
    (
        "spec.tasks.0.runs",
        CANARY,
        "spec.tasks[0].runs: Forbidden: runs must be OnSuccess or Always",
    ),
    (
        "spec.tasks.0.podFailurePolicy.rules.0.action",
        CANARY,
        "rules[0].action: Forbidden: action must be FailJob, Ignore or Count",
    ),
    (
        "spec.tasks.0.podFailurePolicy.rules.0.onExitCodes.operator",
        CANARY,
        "onExitCodes.operator: Forbidden: operator must be In or NotIn",
    ),
    (
        "spec.tasks.0.backoffLimit",
        21,
        "spec.tasks[0].backoffLimit in body should be less than or equal to 20",
    ),
    ("spec.input", [CANARY], "spec.input in body must be of type object"),
    ("spec.tasks.0.template", None, "spec.tasks[0].template: Required value"),
    ("spec.tasks.0.template", CANARY, "spec.tasks[0].template in body must be of type object"),
    ("spec.tasks", [], "spec.tasks in body should have at least 1 items"),
    (
        "spec.tasks.0.activeDeadlineSeconds",
        0,
        "spec.tasks[0].activeDeadlineSeconds in body should be greater",
    ),
    (
        "spec.ttlSecondsAfterFinished",
        -1,
        "spec.ttlSecondsAfterFinished in body should be greater than or equal to 0",
    ),
    ("spec.ttlSecondsAfterFinished", CANARY, "spec.ttlSecondsAfterFinished in body must be of type integer"),
    ("spec.bindings", [{"name": CANARY}] * 9, "spec.bindings: Too many: 9: must have at most 8 items"),
    ("spec.serviceAccountName", CANARY * 20, "spec.serviceAccountName: Too long"),
    ("spec.cancel", CANARY, "spec.cancel in body must be of type boolean"),
    # Unknown to this version: refused, never silently dropped.
    ("spec.tasks.0.schedule", CANARY, 'unknown field "spec.tasks[0].schedule"'),
    ("spec.tasks.0.secrets.0.value", CANARY, 'unknown field "spec.tasks[0].secrets[0].value"'),
]
BAD_BINDINGS: list[tuple[str, Any, str]] = [
    (
        "spec.secrets.0.secretKeyRef.name",
        f"{CANARY}$(x)",
        f"spec.secrets[0].secretKeyRef.name: Forbidden: {OBJECT_NAME}",
    ),
    ("spec.releasePolicy", CANARY, f"spec.releasePolicy: Forbidden: {RELEASE}"),
    ("spec.delivery", CANARY, f"spec.delivery: Forbidden: {DELIVERY}"),
    (
        "spec.access.0.runSelector.matchExpressions.0.operator",
        CANARY,
        f"spec.access[0].runSelector.matchExpressions[0].operator: Forbidden: {OPERATOR}",
    ),
    ("spec.access.1", {}, f"spec.access[1]: Forbidden: {ACCESS}"),
    ("spec.access.0.images", [], "spec.access[0].images in body should have at least 1 items"),
    ("spec.access.0.images", ["*a" * 17], f"spec.access[0].images[0]: Forbidden: {STARS}"),
    ("spec.secrets", [], "spec.secrets in body should have at least 1 items"),
    ("spec.secrets.0.secretKeyRef", None, f"spec.secrets[0]: Forbidden: {ONE_SOURCE}"),
    ("spec.secrets.0.sealed", f"rk1.{CANARY}", f"spec.secrets[0]: Forbidden: {ONE_SOURCE}"),
    ("spec.secrets.0.scope", "Strict", f"spec.secrets[0]: Forbidden: {SCOPE_ALONE}"),
    ("spec.secrets.1.scope", CANARY, "spec.secrets[1].scope: Forbidden: scope must be Strict or Namespace"),
    ("spec.secrets.1.sealed", CANARY, f"spec.secrets[1].sealed: Forbidden: {SEALED}"),
    (
        "spec.owner",
        {"username": "alice"},
        "spec: Forbidden: scope: Namespace is for shared bindings; a value of",
    ),
    ("spec.owner", {"username": ""}, "spec.owner.username in body should be at least 1 chars long"),
    ("spec.secrets.0.secretKeyRef.key", CANARY * 20, "spec.secrets[0].secretKeyRef.key: Too long"),
    ("spec.maxLifetimeSeconds", 0, "spec.maxLifetimeSeconds in body should be greater than or equal to 1"),
    ("spec.secrets.0.value", CANARY, 'unknown field "spec.secrets[0].value"'),
    (
        "spec.secrets.0.secretKeyRef.namespace",
        CANARY,
        'unknown field "spec.secrets[0].secretKeyRef.namespace"',
    ),
]
BAD_REVEALS: list[tuple[str, Any, str]] = [
    ("spec.binding", f"{CANARY}\n", f"spec.binding: Forbidden: {OBJECT_NAME}"),
    ("spec.publicKey", CANARY, f"spec.publicKey: Forbidden: {PUBLIC_KEY}"),
    ("spec.personal", True, f"spec: Forbidden: {EITHER_REVEAL}"),
    ("spec.entry", "", "spec.entry in body should be at least 1 chars long"),
    ("spec.value", CANARY, 'unknown field "spec.value"'),
]
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


def changed(example: Object, path: str, value: Any) -> Object:
    """Return a copy of the example with one field set, or removed for None."""
    made = copy.deepcopy(example)
    place: Any = made
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return made


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


@pytest.mark.parametrize("example", [RUN, BINDING, REVEAL], ids=["run", "binding", "reveal"])
def test_a_good_example_is_accepted_and_gets_its_defaults(
    cluster: Cluster, client: KubeClient, namespace: str, example: Object
) -> None:
    cluster.kubectl("-n", namespace, "create", "-f", "-", input=json.dumps(example))

    plural = f"{example['kind'].lower()}s"
    stored = client.get(plural, "good", namespace)
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
    covered = [message for *_, message in (*BAD_RUNS, *BAD_BINDINGS, *BAD_CHANGES)]
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
    both = cluster.kubectl("-n", namespace, "get", "runkeys", "-o", "name").split()
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
