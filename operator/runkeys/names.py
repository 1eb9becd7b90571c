"""Names: parameter -> variable, and the names and labels of the objects that the operator creates.

Operator, SDK and command line share these functions, so that a service finds its variables under
the same names wherever it runs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

GROUP = "runkeys.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

LABEL_RUN = f"{GROUP}/run"
LABEL_RUN_UID = f"{GROUP}/run-uid"
LABEL_TASK = f"{GROUP}/task"
LABEL_STORE = f"{GROUP}/store"
FINALIZER = f"{GROUP}/leases"
"""Finalizer of a run with an open lease: its status says which, and has to be there until the lease has ended."""

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "runkeys"
OBJECT_PREFIX = "rk-"
TASK_VARIABLE = "RUNKEYS_TASK"
"""Variable of a task's containers: its name."""

ASK = f"{GROUP}/secrets"
"""Label of a pod of any engine that asks for secrets, with the value ``ask``; and the annotation that says which."""

ASK_VALUE = "ask"
ASK_CONTAINERS = f"{GROUP}/containers"
"""Annotation of such a pod: the containers that get the secrets, separated by commas."""

ASK_SEALED = f"{GROUP}/sealed"
"""Annotation of such a pod: sealed parameters, ``VARIABLE=rk1.…`` or ``@file=rk1.…``, separated by commas."""

STAMP_ASKED, STAMP_SEALED, STAMP_CONTAINERS, STAMP_CREATED_BY = (
    f"{GROUP}/asked",
    f"{GROUP}/sealed",
    f"{GROUP}/containers",
    f"{GROUP}/created-by",
)
"""Keys of ``userAnnotations`` of its certificate source: what it asked for, and who created it, as admission saw it."""

SECRETS_VARIABLE = "RUNKEYS_SECRETS"
"""Variable of a task's containers: by name of a secret what carries it, as JSON. Never a value."""

SIGNER = f"{GROUP}/recipient"
"""The signer that pods ask for the certificate which carries their values."""

UNSEALER = "runkeys-open"
"""Name of the init container that unseals values."""

RECIPIENT_VOLUME = "runkeys-recipient"
"""Volume with the pod's key and the sealed values: only the unseal container mounts it."""

ENVIRONMENT_VOLUME = "runkeys-env"
"""Volume with the variables that were delivered sealed."""

OPERATOR_NAMESPACE = "runkeys-system"
"""The operator's namespace, if nothing says another one."""

SECRET_TYPE = f"{GROUP}/run-secret"
SEALING_KEYS = "runkeys-sealing-keys"
"""The Secret with the private sealing keys, in the operator's namespace."""

PUBLIC_KEYS = "runkeys-public-keys"
"""The ConfigMap with the public keys, in the same namespace."""

RUNTIME = "/var/runtime"
"""The folder of a task's inputs and output; the same as in the qhub runtime."""

RUNTIME_VARIABLE = "RUNKEYS_RUNTIME_DIR"
"""Variable that moves this folder, as in a local run."""

FOLDER_VARIABLES = {
    "input": "INPUT_DIRECTORY",
    "output": "OUTPUT_DIRECTORY",
    "datapool": "DATAPOOL_DIRECTORY",
}
"""Variables that move one folder each; the same as in the qhub runtime, so that one setting serves both."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which `kubectl apply` keeps a copy of what it sent."""

SERVICE_ACCOUNT = "system:serviceaccount:"

KEY_VALUES = "runkeys-kv"
"""ConfigMap of the key-value store of a namespace."""
"""Prefix of service accounts' usernames; namespace and name follow."""

# A Job's pods are named after it with 6 more characters, and Kubernetes cuts what does not fit into 63.
_MAX_NAME = 57
_HASH_LENGTH = 10
_ATTEMPT = re.compile(rf"{OBJECT_PREFIX}.*-([0-9]{{1,9}})-[0-9a-f]{{{_HASH_LENGTH}}}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_INNER_CAPITAL = re.compile(r"(?<=.)(?=[A-Z])", re.DOTALL)
_NOT_IN_VARIABLE = re.compile(r"[^A-Za-z0-9_]")
_RESERVED_NAMES = frozenset({"PATH"})
_RESERVED_PREFIXES = ("LD_", "KUBERNETES_", "PYTHON")


SECRET_PREFIX = "SECRET_"
"""Prefix of the variables with secrets that have no ``env``."""


def secret_variable(parameter: str) -> str:
    """Name of the environment variable that carries the secret parameter ``parameter``.

    ``api_token`` and ``apiToken`` give ``SECRET_API_TOKEN``; a name without lower-case letters is kept
    (``API_KEY`` gives ``SECRET_API_KEY``); every character that no variable can have becomes ``_``
    (``ibmq-token`` gives ``SECRET_IBMQ_TOKEN``).
    """
    plain = _NOT_IN_VARIABLE.sub("_", parameter)
    if plain != plain.upper():
        plain = _INNER_CAPITAL.sub("_", plain).upper()
    return f"{SECRET_PREFIX}{plain}"


def is_variable_name(name: str) -> bool:
    """Whether every shell and runtime takes ``name`` for an environment variable."""
    return _VARIABLE.match(name) is not None


def is_reserved_variable(name: str) -> bool:
    """Whether ``name`` changes which program runs or how it is loaded, so that no task may set it."""
    return name in _RESERVED_NAMES or name.startswith(_RESERVED_PREFIXES)


def attempt_name(run_name: str, run_uid: str, task: str, attempt: int) -> str:
    """Name of the Job of one attempt, and of its Secret: at most 57 characters.

    ``rk-<run>-<task>-<attempt>-<hash>``: the hash of run uid, task and attempt makes it unique, so that a
    run of the same name made later never meets the objects of this one. The readable part is cut to fit.
    """
    digest = hashlib.sha256(f"{run_uid}/{task}/{attempt}".encode()).hexdigest()[:_HASH_LENGTH]
    readable = f"{run_name}-{task}".replace(".", "-")
    tail = f"-{attempt}-{digest}"
    readable = readable[: _MAX_NAME - len(OBJECT_PREFIX) - len(tail)].rstrip("-")
    return f"{OBJECT_PREFIX}{readable}{tail}"


def run_uid_of(metadata: Mapping[str, Any]) -> str:
    """The uid of the run that a Job was made for; empty if its name and its labels do not say the same.

    Labels can be put on the Job of somebody else. A name cannot be changed, and no other Job has one that its labels
    come to.
    """
    name, labels = metadata["name"], metadata.get("labels") or {}
    run, uid, task = (str(labels.get(label, "")) for label in (LABEL_RUN, LABEL_RUN_UID, LABEL_TASK))
    found = _ATTEMPT.match(name)
    return uid if found and attempt_name(run, uid, task, int(found[1])) == name else ""


def object_labels(run_name: str, run_uid: str, task: str) -> Mapping[str, str]:
    """Labels of every object that the operator creates for a task of a run."""
    return {
        LABEL_RUN: run_name,
        LABEL_RUN_UID: run_uid,
        LABEL_TASK: task,
        LABEL_MANAGED_BY: MANAGED_BY,
    }
