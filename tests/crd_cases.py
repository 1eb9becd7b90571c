"""What the kinds refuse when an object is created: for an API server (e2e) and for the check without one (unit).

Where a good example is changed, to what, and what the answer must say.
"""

from __future__ import annotations

import copy
import secrets
from typing import Any

from testing.cluster.client import Object

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
            {"name": "api", "value": {"store": "bao", "role": "a", "path": "kv/data/a", "field": "token"}},
            {
                "name": "db",
                "lease": {"store": "bao", "role": "a", "path": "database/creds/ro", "field": "user"},
            },
            {"name": "url", "template": 'x://{{ token | url }}@db/{"a":{"b":1}}{{ "{{" }}'},
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
            {
                "pods": {
                    "selector": {"matchLabels": {"app": "nightly"}},
                    "createdBy": ["system:serviceaccount:argo:argo"],
                    "ownedBy": [{"apiGroup": "argoproj.io", "kind": "Workflow"}],
                }
            },
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

STORE: Object = {
    "apiVersion": "runkeys.dev/v1alpha1",
    "kind": "SecretStore",
    "metadata": {"name": "good"},
    "spec": {
        "vault": {
            "address": "https://bao.example:8200",
            "caBundle": "-----BEGIN CERTIFICATE-----",
            "namespace": "teams/a",
            "auth": {"method": "jwt", "mount": "jwt/one", "audience": "bao"},
            "revoker": {"role": "runkeys-revoker"},
        },
        "namespaces": {"matchLabels": {"bao": "yes"}},
    },
}

CSI_STORE: Object = {
    "apiVersion": "runkeys.dev/v1alpha1",
    "kind": "SecretStore",
    "metadata": {"name": "good"},
    "spec": {
        "csi": {
            "provider": "aws",
            "audience": "sts.amazonaws.com",
            "parameters": {
                "region": "eu-central-1",
                "objects": '- objectName: "{{ path }}"\n  objectType: secretsmanager\n  a: {b: {c: "{{role}}"}}\n',
            },
        },
        "namespaces": {},
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
ONE_SOURCE = "an entry has exactly one source: give secretKeyRef, sealed, value, lease or template"
NO_REFERENCE = "a template refers to other entries, as in {{ db-password }}; this one refers to none"
UNCLOSED = "each {{ of a template needs a name and }}"
OWNER = "owner is immutable once a binding exists: create a new binding"
SCOPE_ALONE = "scope applies only to a sealed value: give sealed, or leave scope out"
OPERATOR = "operator must be In, NotIn, Exists or DoesNotExist"
STARS = "an image pattern may hold at most 16 stars; write several patterns"
RUNS_OR_PODS = (
    "an access rule is for runs or for pods: give runSelector or pods, and write two rules for both"
)
ACCESS = "an access rule must give runSelector, serviceAccountNames or images"
STORE_PATH = "a path has no '/' at either end, no '//', no segment '.' or '..', and none of"
ENGINE_PATH = "path must be one of a secrets engine, without /v1/ before it"
STORE_ROLE = "a role has letters, digits, '_', '-' and '.', with a letter, digit or '_' at the ends"
ADDRESS = "address must be https:// with a host and perhaps a port, and no path or user"
AUDIENCE = "an audience has letters, digits and - . _ ~ : /"
OWN_AUDIENCE = "this is an audience of the API server itself, and the store could then act as the pod"
PEM = "caBundle must be PEM text with at least one -----BEGIN CERTIFICATE-----"
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
    ("spec.access.1.pods", {}, f"spec.access[1]: Forbidden: {RUNS_OR_PODS}"),
    ("spec.access.0.images", [], "spec.access[0].images in body should have at least 1 items"),
    ("spec.access.0.images", ["*a" * 17], f"spec.access[0].images[0]: Forbidden: {STARS}"),
    ("spec.secrets", [], "spec.secrets in body should have at least 1 items"),
    ("spec.secrets.0.secretKeyRef", None, f"spec.secrets[0]: Forbidden: {ONE_SOURCE}"),
    ("spec.secrets.0.sealed", f"rk1.{CANARY}", f"spec.secrets[0]: Forbidden: {ONE_SOURCE}"),
    ("spec.secrets.0.scope", "Strict", f"spec.secrets[0]: Forbidden: {SCOPE_ALONE}"),
    ("spec.secrets.1.scope", CANARY, "spec.secrets[1].scope: Forbidden: scope must be Strict or Namespace"),
    ("spec.secrets.1.sealed", CANARY, f"spec.secrets[1].sealed: Forbidden: {SEALED}"),
    ("spec.secrets.1.template", f"{{{{ {CANARY} }}}}", f"spec.secrets[1]: Forbidden: {ONE_SOURCE}"),
    ("spec.secrets.4.scope", "Strict", f"spec.secrets[4]: Forbidden: {SCOPE_ALONE}"),
    ("spec.secrets.4.template", CANARY, f"spec.secrets[4].template: Forbidden: {NO_REFERENCE}"),
    ("spec.secrets.4.template", f"{{{{ {CANARY}", f"spec.secrets[4].template: Forbidden: {UNCLOSED}"),
    ("spec.secrets.4.template", f"{{{{}}}}{CANARY}", f"spec.secrets[4].template: Forbidden: {UNCLOSED}"),
    ("spec.secrets.4.template", "{{ a }}" + CANARY * 260, "spec.secrets[4].template: Too long"),
    (
        "spec.owner",
        {"username": "alice"},
        "spec: Forbidden: scope: Namespace is for shared bindings; a value of",
    ),
    ("spec.owner", {"username": ""}, "spec.owner.username in body should be at least 1 chars long"),
    ("spec.secrets.0.secretKeyRef.key", CANARY * 20, "spec.secrets[0].secretKeyRef.key: Too long"),
    ("spec.maxLifetimeSeconds", 0, "spec.maxLifetimeSeconds in body should be greater than or equal to 1"),
    # What people who know other tools write first: it must not be stored, nor repeated.
    ("spec.secrets.0.value", CANARY, "spec.secrets[0].value in body must be of type object"),
    ("spec.secrets.2.value.store", f"{CANARY}/", f"spec.secrets[2].value.store: Forbidden: {OBJECT_NAME}"),
    ("spec.secrets.2.value.role", f"{CANARY}/", f"spec.secrets[2].value.role: Forbidden: {STORE_ROLE}"),
    ("spec.secrets.2.value.path", f"/{CANARY}", f"spec.secrets[2].value.path: Forbidden: {STORE_PATH}"),
    ("spec.secrets.2.value.path", f"kv/{CANARY}?x", f"spec.secrets[2].value.path: Forbidden: {STORE_PATH}"),
    ("spec.secrets.2.value.path", f"kv/../{CANARY}", f"spec.secrets[2].value.path: Forbidden: {STORE_PATH}"),
    ("spec.secrets.2.value.path", f"kv//{CANARY}", f"spec.secrets[2].value.path: Forbidden: {STORE_PATH}"),
    ("spec.secrets.2.value.path", f"sys/{CANARY}", f"spec.secrets[2].value.path: Forbidden: {ENGINE_PATH}"),
    ("spec.secrets.2.value.field", "", "spec.secrets[2].value.field in body should be at least 1 chars long"),
    ("spec.secrets.3.lease.path", f"auth/{CANARY}", f"spec.secrets[3].lease.path: Forbidden: {ENGINE_PATH}"),
    ("spec.secrets.2.value.key", CANARY, 'unknown field "spec.secrets[2].value.key"'),
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


ONE_KIND = "a SecretStore has exactly one kind: give vault or csi"
PROVIDER = "a provider's name has lower-case letters, digits and '-', with a letter or digit at the ends"
PLACES = "parameters can only have {{ path }} and {{ role }}"
NO_PLACE = "one of the parameters must have {{ path }}, or all entries would read the same"
POD_PARAMETERS = "parameters of csi.storage.k8s.io/ say for which pod the provider reads"


def _csi(**changed: Any) -> Object:
    """The spec of a store that a provider reads, changed."""
    csi = {**CSI_STORE["spec"]["csi"], **changed}
    return {"csi": {key: value for key, value in csi.items() if value is not None}, "namespaces": {}}


_KEY_IN_BUNDLE = f"-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n{CANARY}"
BAD_STORES: list[tuple[str, Any, str]] = [
    ("spec.vault.address", f"http://{CANARY}", f"spec.vault.address: Forbidden: {ADDRESS}"),
    ("spec.vault.address", f"https://{CANARY}@bao", f"spec.vault.address: Forbidden: {ADDRESS}"),
    ("spec.vault.address", f"https://bao/{CANARY}", f"spec.vault.address: Forbidden: {ADDRESS}"),
    ("spec.vault.caBundle", CANARY, f"spec.vault.caBundle: Forbidden: {PEM}"),
    ("spec.vault.caBundle", _KEY_IN_BUNDLE, "spec.vault.caBundle: Forbidden: caBundle holds a private key"),
    ("spec.vault.namespace", f"{CANARY}/", f"spec.vault.namespace: Forbidden: {STORE_PATH}"),
    ("spec.vault.auth.method", CANARY, "spec.vault.auth.method: Forbidden: method must be jwt or kubernetes"),
    ("spec.vault.auth.mount", f"../{CANARY}", f"spec.vault.auth.mount: Forbidden: {STORE_PATH}"),
    ("spec.vault.auth.audience", f"{CANARY} x", f"spec.vault.auth.audience: Forbidden: {AUDIENCE}"),
    (
        "spec.vault.auth.audience",
        "https://kubernetes.default.svc",
        f"spec.vault.auth.audience: Forbidden: {OWN_AUDIENCE}",
    ),
    ("spec.vault.revoker.role", f"{CANARY}/", f"spec.vault.revoker.role: Forbidden: {STORE_ROLE}"),
    ("spec.namespaces", None, "spec.namespaces: Required value"),
    ("spec.vault.token", CANARY, 'unknown field "spec.vault.token"'),
    ("spec.csi", CSI_STORE["spec"]["csi"], f"spec: Forbidden: {ONE_KIND}"),
    ("spec", {"namespaces": {}}, f"spec: Forbidden: {ONE_KIND}"),
    ("spec", _csi(provider=f"{CANARY}/.."), f"spec.csi.provider: Forbidden: {PROVIDER}"),
    ("spec", _csi(audience=f"{CANARY} x"), f"spec.csi.audience: Forbidden: {AUDIENCE}"),
    ("spec", _csi(audience="kubernetes.default.svc"), f"spec.csi.audience: Forbidden: {OWN_AUDIENCE}"),
    ("spec", _csi(audience=None), "spec.csi.audience: Required value"),
    (
        "spec",
        _csi(parameters={"objects": f"{CANARY} {{{{ pth }}}}"}),
        f"spec.csi.parameters: Forbidden: {PLACES}",
    ),
    ("spec", _csi(parameters={"objects": CANARY}), f"spec.csi.parameters: Forbidden: {NO_PLACE}"),
    (
        "spec",
        _csi(parameters={"objects": "{{ path }}", "csi.storage.k8s.io/pod.name": CANARY}),
        f"spec.csi.parameters: Forbidden: {POD_PARAMETERS}",
    ),
]


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
