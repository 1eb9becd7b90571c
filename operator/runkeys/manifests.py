"""Actions -> Kubernetes objects. Pure: the Secret is built without its values, which only the operator adds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from runkeys.api import API_VERSION, Task, WorkflowRun
from runkeys.naming import SECRET_TYPE, attempt_name, object_labels
from runkeys.needs import TaskNeeds
from runkeys.template import CONTAINER_FIELDS, carriers

JOB_TTL_SECONDS = 900
"""How long a finished Job stays, for its logs; its Secret is long gone. Also the bound within which
Kubernetes removes the Secret by itself if no operator is there to do it."""


def job(run: WorkflowRun, index: int, attempt: int, needs: TaskNeeds) -> dict[str, Any]:
    """The Job of attempt ``attempt`` of task ``index``: one pod, started once, owned by the run.

    Variables refer to a Secret of the Job's own name that does not exist yet. The references are
    required, so that the kubelet starts no container before it does.
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
            "ttlSecondsAfterFinished": JOB_TTL_SECONDS,
            # Puts on record, in the Job itself, that a node was drained and not the task at fault.
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
                ]
            },
            "template": _pod_template(run, task, name, labels, needs),
        },
    }


def secret(namespace: str, name: str, job_uid: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """The Secret of an attempt without its ``data``: immutable, owned by the Job of the same name."""
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
    run: WorkflowRun, task: Task, name: str, labels: Mapping[str, str], needs: TaskNeeds
) -> dict[str, Any]:
    template = copy.deepcopy(task.template)
    metadata = template.setdefault("metadata", None) or {}
    template["metadata"] = {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}
    spec = template["spec"]
    spec["restartPolicy"] = "Never"
    spec["serviceAccountName"] = run.spec.service_account_name
    spec.pop("serviceAccount", None)
    spec.setdefault("automountServiceAccountToken", False)
    if needs.deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = needs.deadline_seconds
    variables = [{"name": item.name, "value": item.value} for item in task.env] + [
        {
            "name": reference.variable,
            "valueFrom": {"secretKeyRef": {"name": name, "key": reference.variable, "optional": False}},
        }
        for reference in needs.references
    ]
    wanted = set(carriers(task))
    for field in CONTAINER_FIELDS:
        for container in spec.get(field) or []:
            if container.get("name") in wanted and variables:
                container["env"] = [*(container.get("env") or []), *variables]
    return template
