"""Actions -> Kubernetes objects. Pure: the Secret is built without its values, which only the operator adds."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from runkeys._text.documents import compact
from runkeys.api import API_VERSION, GROUP, Task, WorkflowRun
from runkeys.api.binding import SEALED
from runkeys.names import (
    ENVIRONMENT_VOLUME,
    RECIPIENT_VOLUME,
    RUNTIME,
    SECRET_TYPE,
    SECRETS_VARIABLE,
    SIGNER,
    TASK_VARIABLE,
    UNSEALER,
    attempt_name,
    object_labels,
)
from runkeys.planning.kubelet import OURS, OUTPUT, SECRETS_VOLUME
from runkeys.planning.pod_template import CONTAINER_FIELDS
from runkeys.planning.requirements import (
    NO_SUPPORT,
    SealedSupport,
    SecretReference,
    TaskRequirements,
    variable_of,
)
from runkeys.sealing import unseal

_INPUT = f"{GROUP}/input"
_CERTIFICATE_SECONDS = 8 * 24 * 3600
_INPUTS, _OUTPUT, _POOL = f"{OURS}input", f"{OURS}output", f"{OURS}pool-"


def job(
    run: WorkflowRun,
    index: int,
    attempt: int,
    requirements: TaskRequirements,
    inputs: Mapping[str, Any] | None = None,
    support: SealedSupport = NO_SUPPORT,
) -> dict[str, Any]:
    """The Job of attempt ``attempt`` of task ``index``: one pod, started once, owned by the run.

    Variables and files refer to a Secret of the Job's own name that does not exist yet. The references are
    required, so that the kubelet starts no container before it does.

    :param inputs: JSON values by parameter.
    :param support: image and resources of the unseal container, for sealed delivery.
    """
    task = run.spec.tasks[index]
    name = attempt_name(run.metadata.name, run.metadata.uid, task.name, attempt)
    labels = dict(object_labels(run.metadata.name, run.metadata.uid, task.name))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": run.metadata.namespace,
            "labels": labels,
            # Without blockOwnerDeletion: it would need rights on finalizers where
            # OwnerReferencesPermissionEnforcement is on, and nothing here has to wait for the deletion.
            "ownerReferences": [_controller(API_VERSION, "WorkflowRun", run.metadata.name, run.metadata.uid)],
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            # For the logs of its pod; its Secret is long gone. Also the bound within which Kubernetes removes
            # the Secret by itself if no operator is there to do it.
            "ttlSecondsAfterFinished": run.spec.job_ttl_seconds_after_finished,
            # Puts on record, in the Job itself, that a node was drained and not the task at fault.
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
                ]
            },
            "template": _pod_template(run, task, name, labels, requirements, inputs or {}, support),
        },
    }


def secret(namespace: str, name: str, job_uid: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """The Secret of an attempt, without ``data``: immutable, owned by the Job of the same name."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": SECRET_TYPE,
        "immutable": True,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": dict(labels),
            "ownerReferences": [_controller("batch/v1", "Job", name, job_uid)],
        },
    }


def _controller(api_version: str, kind: str, name: str, uid: str) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": True}


def _pod_template(
    run: WorkflowRun,
    task: Task,
    name: str,
    labels: Mapping[str, str],
    requirements: TaskRequirements,
    inputs: Mapping[str, Any],
    support: SealedSupport,
) -> dict[str, Any]:
    template = copy.deepcopy(task.template)
    metadata = template.setdefault("metadata", None) or {}
    template["metadata"] = {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}
    if inputs:
        annotations = {f"{_INPUT}.{parameter}": compact(value) for parameter, value in inputs.items()}
        template["metadata"]["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    spec = template["spec"]
    spec["restartPolicy"] = "Never"
    spec["serviceAccountName"] = run.spec.service_account_name
    spec.pop("serviceAccount", None)
    spec.setdefault("automountServiceAccountToken", False)
    if requirements.deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = requirements.deadline_seconds
    variables = [*_about(task), *({"name": item.name, "value": item.value} for item in task.env)] + [
        {
            "name": reference.variable,
            "valueFrom": _origin(name, reference, sealed=requirements.delivery == SEALED),
        }
        for reference in requirements.references
        if reference.variable
    ]
    volumes = _volumes(task, name, requirements, inputs)
    if volumes:
        spec["volumes"] = [*(spec.get("volumes") or []), *(volume for volume, _ in volumes)]
    mounts = [mount for _, mount in volumes]
    wanted = task.secret_containers
    for field in CONTAINER_FIELDS:
        for container in spec.get(field) or []:
            if container.get("name") not in wanted:
                continue
            for part, added in (("env", variables), ("volumeMounts", mounts)):
                if added:
                    container[part] = [*(container.get(part) or []), *added]
            if task.record_output and container.get("name") == wanted[0]:
                container["terminationMessagePath"] = OUTPUT
                container["terminationMessagePolicy"] = "File"
    if requirements.delivery == SEALED:
        _open_first(spec, requirements, support)
    return template


def _origin(name: str, reference: SecretReference, *, sealed: bool) -> dict[str, Any]:
    """Where the kubelet finds the value of a variable."""
    if not sealed:
        return {"secretKeyRef": {"name": name, "key": reference.key, "optional": False}}
    path = unseal.ENVIRONMENT.rpartition("/")[2]
    return {
        "fileKeyRef": {
            "volumeName": ENVIRONMENT_VOLUME,
            "path": path,
            "key": reference.key,
            "optional": False,
        }
    }


def _open_first(spec: dict[str, Any], requirements: TaskRequirements, support: SealedSupport) -> None:
    """Add the unseal container, which runs before all others and opens what was sealed to the pod's key.

    Only this container mounts the key and the file of variables, which are in memory. The kubelet reads that file when
    it creates the containers that refer to it. The other containers see their own files only.
    """
    spec["volumes"] = [
        *(spec.get("volumes") or []),
        {"name": RECIPIENT_VOLUME, "projected": {"sources": [{"podCertificate": certificate_source()}]}},
        {"name": ENVIRONMENT_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]
    ours = unseal_container(support, files=any(item.file for item in requirements.references))
    if (spec.get("securityContext") or {}).get("runAsUser") == 0:
        ours["securityContext"]["runAsUser"] = 65532
    spec["initContainers"] = [ours, *(spec.get("initContainers") or [])]


def certificate_source() -> dict[str, Any]:
    """The ``podCertificate`` source by which a pod asks for its values."""
    return {
        "signerName": SIGNER,
        "keyType": "ECDSAP256",
        "maxExpirationSeconds": _CERTIFICATE_SECONDS,
        "credentialBundlePath": unseal.BUNDLE.rpartition("/")[2],
    }


def unseal_container(support: SealedSupport, *, files: bool) -> dict[str, Any]:
    """The init container that unseals the values of a pod. :param files: whether some of them are files."""
    places = {unseal.BUNDLE: RECIPIENT_VOLUME, unseal.ENVIRONMENT: ENVIRONMENT_VOLUME}
    mounts = [
        {"name": volume, "mountPath": place.rpartition("/")[0], "readOnly": volume == RECIPIENT_VOLUME}
        for place, volume in places.items()
    ]
    if files:
        mounts.append({"name": SECRETS_VOLUME, "mountPath": unseal.FILES})
    fields = {"RUNKEYS_NAMESPACE": "metadata.namespace", "RUNKEYS_POD_UID": "metadata.uid"}
    return {
        "name": UNSEALER,
        "image": support.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-I", "-S", "/app/runkeys/sealing/unseal.py"],
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()
        ],
        "volumeMounts": mounts,
        "resources": {kind: dict(amounts) for kind, amounts in support.resources.items()},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _about(task: Task) -> list[dict[str, Any]]:
    """What tells the SDK in the pod which task it is in, and under which names it has which secrets."""
    carried = {item.name: f"file:{item.file}" if item.file else variable_of(item) for item in task.secrets}
    for item in task.secrets:
        # Also by the name that it has in its binding or the input, for code that asks for that one.
        carried.setdefault(item.secret or item.input or item.name, carried[item.name])
    found = [{"name": TASK_VARIABLE, "value": task.name}]
    if carried:
        # $ would begin a reference to a variable.
        text = json.dumps(carried, separators=(",", ":")).replace("$", "\\u0024")
        found.append({"name": SECRETS_VARIABLE, "value": text})
    return found


def _volumes(
    task: Task, name: str, requirements: TaskRequirements, inputs: Mapping[str, Any]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Volumes of the pod, each with its mount in the containers that get secrets."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    files = [{"key": item.key, "path": item.file} for item in requirements.references if item.file]
    if files:
        # A volume of a Secret is a tmpfs.
        source: dict[str, Any] = {
            "secret": {"secretName": name, "items": files, "defaultMode": 0o444, "optional": False}
        }
        if requirements.delivery == SEALED:
            source = {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
        found.append(
            (
                {"name": SECRETS_VOLUME, **source},
                {"name": SECRETS_VOLUME, "mountPath": f"{RUNTIME}/secrets", "readOnly": True},
            )
        )
    if inputs:
        items = [
            {
                "path": f"{parameter}.json",
                "fieldRef": {"fieldPath": f"metadata.annotations['{_INPUT}.{parameter}']"},
            }
            for parameter in inputs
        ]
        found.append(
            (
                {"name": _INPUTS, "downwardAPI": {"items": items}},
                {"name": _INPUTS, "mountPath": f"{RUNTIME}/input", "readOnly": True},
            )
        )
    if task.record_output:
        found.append(({"name": _OUTPUT, "emptyDir": {}}, {"name": _OUTPUT, "mountPath": f"{RUNTIME}/output"}))
    for number, pool in enumerate(task.data_pools):
        volume = f"{_POOL}{number}"
        claim = {"claimName": pool.persistent_volume_claim, "readOnly": pool.read_only}
        place = {"mountPath": f"{RUNTIME}/datapool/{pool.name}", "readOnly": pool.read_only}
        found.append(({"name": volume, "persistentVolumeClaim": claim}, {"name": volume, **place}))
    return found
