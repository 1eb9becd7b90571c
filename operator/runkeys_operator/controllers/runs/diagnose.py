"""Diagnoses why a Job has no pod with a node, for the run's status. It sends LISTs, so it is not for every pass."""

from __future__ import annotations

from runkeys.names import UNSEALER
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import SealedSupport
from runkeys_operator.kube import EVENTS, PODS, Kube

_ABOUT_RESOURCES = ("quota", " per Container ", " per Pod ")
_JOB_NAME = "batch.kubernetes.io/job-name"


async def why_no_pod(
    kube: Kube, namespace: str, job_name: str, job_uid: str, unsealer: SealedSupport | None = None
) -> Refusal | None:
    """Return why the pod was not created (quota, Pod Security, service account) or has no node.

    :param unsealer: if the pod has the unseal container, whose resources neither run nor binding names.
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
    told = str(latest.get("message", ""))
    return Refusal(
        Reason.POD_NOT_CREATED,
        f"Job {job_name}",
        f"its pod cannot be created: {told};{_about(unsealer, told)} the Job controller tries again",
        permanent=False,
    )


def _about(unsealer: SealedSupport | None, told: str) -> str:
    """What the unseal container asks for, if the pod was refused for its resources: a LimitRange names no container."""
    if unsealer is None or not any(word in told for word in _ABOUT_RESOURCES):
        return ""
    amounts = (
        f"{kind}.{resource} {amount}"
        for kind, of_kind in unsealer.resources.items()
        for resource, amount in of_kind.items()
    )
    asks = ", ".join(amounts) or "nothing"
    return (
        f" its init container {UNSEALER}, which unseals the values, asks for {asks} (sealedDelivery.resources of the"
        " operator's chart; a run that is created after a change asks for what is set then);"
    )
