"""PodCertificateRequests for sealed delivery: which to answer, deny or delete. Pure.

The kubelet creates a request for each pod whose volume asks for Runkeys' certificate. An attempt is answered once. A
request that repeats, comes too late or is from no pod of an attempt is denied for good. Used requests are deleted.
"""

from __future__ import annotations

from runkeys.api import AttemptStatus, SealedDelivery
from runkeys.names import UNSEALER
from runkeys.planning.actions import Action, DeleteRequest, DenyRequest
from runkeys.planning.observation import Observation, PodView, RequestView

_AGAIN = "this pod already had its answer, and each attempt gets only one; only a new attempt gets another"
_OPENED = (
    "this pod has already opened its values, and each attempt gets only one answer; a restarted kubelet asks"
    " again, which is harmless"
)
_OVER = "the attempt that this pod belongs to has finished"
_ANOTHER = "another pod of this attempt had the answer, and each attempt gets only one; the next attempt gets another"
_NEWER = "the kubelet has created a newer request for this pod, which is answered instead"
_NOT_SEALED = "this pod gets its secrets by a Secret; set delivery: Sealed in the run"


def pending_of(obs: Observation, pod: PodView) -> list[RequestView]:
    """The unanswered requests of a pod, oldest first."""
    found = [item for item in obs.requests if item.pod_uid == pod.uid and not item.state and not item.gone]
    return sorted(found, key=lambda item: (item.created, int(item.version)))


def due(obs: Observation, pod: PodView, attempt: AttemptStatus | None) -> RequestView | None:
    """The request of a pod to answer now; None if there is none, or all are refused."""
    newest = _newest(obs, pod)
    return newest if newest is not None and not _why_not(obs, pod, attempt) else None


def _newest(obs: Observation, pod: PodView) -> RequestView | None:
    """The last one that waits and is as the pod's own kubelet would make it."""
    fitting = [item for item in pending_of(obs, pod) if not _differs(item, pod)]
    return fitting[-1] if fitting else None


def followed(attempt: AttemptStatus, obs: Observation, pods: list[PodView]) -> AttemptStatus:
    """``attempt`` with the progress of its delivery, as far as it is visible."""
    sealed = attempt.sealed
    if sealed is None or sealed.opened is not None:
        return attempt
    issued = next(
        (item for item in obs.requests if item.uid == sealed.request and item.state == "Issued"), None
    )
    opened = next(
        (
            item.ended_at
            for pod in pods
            for item in pod.containers
            if item.name == UNSEALER and item.exit_code == 0
        ),
        None,
    )
    delivered = sealed.delivered or (issued.at if issued is not None else None) or opened
    changes = {"delivered": delivered, "opened": opened}
    return attempt.model_copy(update={"sealed": sealed.model_copy(update=changes)})


def intended(attempt: AttemptStatus, request: RequestView) -> AttemptStatus:
    """``attempt`` with the request that is about to be answered on record."""
    return attempt.model_copy(update={"sealed": SealedDelivery(request=request.uid)})


def clean_up_requests(obs: Observation) -> tuple[Action, ...]:
    """Deny requests that get no answer, and delete used ones."""
    actions: list[Action] = []
    recorded = {item.job_uid: item for task in obs.run.status.tasks for item in task.attempts}
    jobs = {job.uid: job for job in obs.jobs.values()}
    for pod in obs.pods:
        mine = [item for item in obs.requests if item.pod_uid == pod.uid and not item.gone]
        if not mine:
            continue
        attempt, job = recorded.get(pod.job_uid), jobs.get(pod.job_uid)
        why = _why_not(obs, pod, attempt)
        if not why and job is not None and not job.sealed:
            why = _NOT_SEALED
        newest = _newest(obs, pod)
        for request in pending_of(obs, pod):
            told = why or _differs(request, pod) or ("" if request is newest else _NEWER)
            if told:
                actions.append(DenyRequest(request, told))
        if _opened(pod) or _is_over(obs, pod, attempt):
            actions += [DeleteRequest(item) for item in mine if item.state]
    return tuple(actions)


def refused(obs: Observation) -> str:
    """Which requests were refused, for the run's condition; empty if none were."""
    found = sorted(
        f"PodCertificateRequest {item.name} of pod {item.pod_name}: {item.message}"
        for item in obs.requests
        if item.state == "Denied" and item.message != _NEWER
    )
    return "; ".join(found)


def _why_not(obs: Observation, pod: PodView, attempt: AttemptStatus | None) -> str:
    """Why no request of the pod is answered (any more); empty if one may be."""
    if _is_over(obs, pod, attempt):
        return _OVER
    if attempt is not None and attempt.sealed is not None and attempt.pod_uid not in (None, pod.uid):
        return _ANOTHER
    there = [item for item in obs.requests if item.pod_uid == pod.uid]
    if _opened(pod):
        return _OPENED
    if any(item.state == "Issued" for item in there):
        return _AGAIN
    sealed = attempt.sealed if attempt is not None else None
    if sealed is None:
        return ""
    # The request on record may have been answered unnoticed, unless it is seen unanswered.
    open_still = any(item.uid == sealed.request and item.state != "Issued" for item in there)
    return "" if sealed.delivered is None and open_still else _AGAIN


def _is_over(obs: Observation, pod: PodView, attempt: AttemptStatus | None) -> bool:
    return pod.over or obs.run.status.finished or (attempt is not None and bool(attempt.outcome))


def _opened(pod: PodView) -> bool:
    return any(item.name == UNSEALER and item.ended for item in pod.containers)


def _differs(request: RequestView, pod: PodView) -> str:
    """How the request disagrees with its pod; empty if it matches."""
    if request.node != pod.node:
        return f"it names node {request.node}, but the pod is bound to {pod.node or 'none'}"
    if request.service_account != pod.service_account:
        return (
            f"it names service account {request.service_account}, but the pod runs as {pod.service_account}"
        )
    return (
        f"it names pod {request.pod_name}, but the pod is {pod.name}" if request.pod_name != pod.name else ""
    )
