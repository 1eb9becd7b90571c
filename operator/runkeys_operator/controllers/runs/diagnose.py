"""Diagnoses why a Job has no pod with a node, for the run's status. It sends LISTs, so it is not for every pass."""

from __future__ import annotations

from runkeys.planning.refusal import Reason, Refusal
from runkeys_operator.kube import EVENTS, PODS, Kube

_JOB_NAME = "batch.kubernetes.io/job-name"


async def why_no_pod(kube: Kube, namespace: str, job_name: str, job_uid: str) -> Refusal | None:
    """Return why the pod was not created (quota, Pod Security, service account) or has no node.

    :return: None if neither the pod's conditions nor an Event say why.
    :raises ApiError: a LIST failed.
    """
    for pod in await kube.list(PODS, namespace, label_selector=f"{_JOB_NAME}={job_name}"):
        for condition in (pod.get("status") or {}).get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return Refusal(
                    Reason.UNSCHEDULABLE,
                    f"pod {pod['metadata']['name']}",
                    f"has no node yet: {condition.get('message') or condition.get('reason', '')}",
                    permanent=False,
                )
        return None
    events = await kube.list(
        EVENTS, namespace, field_selector=f"involvedObject.uid={job_uid},reason=FailedCreate"
    )
    if not events:
        return None
    latest = max(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return Refusal(
        Reason.POD_NOT_CREATED,
        f"Job {job_name}",
        f"its pod cannot be created: {latest.get('message', '')}; the Job controller tries again",
        permanent=False,
    )
