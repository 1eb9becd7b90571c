"""PodCertificateRequests for sealed delivery: what answers each, and which are deleted. Pure.

The kubelet creates a request for each pod whose volume asks for Runkeys' certificate. It keeps no state of them: after
a restart it asks again for every pod of its node, and does nothing more for a pod before the answer is there. So a pod
that needs no values any more is answered with a certificate that holds nothing. An attempt is given its values once.
Denied is only what is not of the pod's own kubelet, or of a pod that gets nothing. Requests with values are deleted
once they were used.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum

from runkeys.api import AttemptStatus, SealedDelivery
from runkeys.names import UNSEALER
from runkeys.planning.actions import Action, AnswerEmpty, DeleteRequest, DenyRequest
from runkeys.planning.observation import NOTHING_LEFT, Observation, PodView, RequestView
from runkeys.planning.refusal import listed

_OTHER_POD = (
    "another pod of this attempt has got the values, and each attempt gets them once; see the next attempt"
)
_NEWER = "the kubelet has created a newer request for this pod, which is answered instead"
_NOT_SEALED = "this pod gets its secrets by a Secret; set delivery: Sealed in the run"

KEY_LOST_AFTER = timedelta(seconds=30)
"""How long a kubelet that asks again has to report that the unseal container has started all the same. It reports that
before anything else, so this is long: to be wrong would end a task that runs."""


class _Answer(Enum):
    """What answers a pod's request: its values, a certificate without any, or nothing for now."""

    VALUES = "values"
    EMPTY = "empty"
    LATER = "later"


def pending_of(obs: Observation, pod: PodView) -> list[RequestView]:
    """The unanswered requests of a pod, oldest first."""
    found = [item for item in obs.requests if item.pod_uid == pod.uid and not item.state and not item.gone]
    return sorted(found, key=lambda item: (item.created, int(item.version)))


def due(obs: Observation, pod: PodView, attempt: AttemptStatus | None) -> RequestView | None:
    """The request of a pod to answer with its values; None if there is none, or none gets them."""
    return _newest(obs, pod) if _answer(obs, pod, attempt) is _Answer.VALUES else None


def asks_again(obs: Observation, pod: PodView, attempt: AttemptStatus) -> RequestView | None:
    """The request that shows that the kubelet has lost the key to which the pod's values were sealed; None: none does.

    An unseal container that has started has read its certificate, or will: its end is waited for.
    """
    started = any(item.name == UNSEALER and item.started for item in pod.containers)
    if attempt.sealed is None or started or _answer(obs, pod, attempt) is not _Answer.LATER:
        return None
    newest = _newest(obs, pod)
    return newest if newest is not None and newest.uid != attempt.sealed.request else None


def _newest(obs: Observation, pod: PodView) -> RequestView | None:
    """The last one that waits and is as the pod's own kubelet would make it."""
    fitting = [item for item in pending_of(obs, pod) if not differs(item, pod)]
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
    """Answer requests of pods that need no values any more, deny those that get no answer, and delete used ones."""
    actions: list[Action] = []
    recorded = {item.job_uid: item for task in obs.run.status.tasks for item in task.attempts}
    jobs = {job.uid: job for job in obs.jobs.values()}
    for pod in obs.pods:
        mine = [item for item in obs.requests if item.pod_uid == pod.uid and not item.gone]
        if not mine:
            continue
        attempt, job = recorded.get(pod.job_uid), jobs.get(pod.job_uid)
        answer = _answer(obs, pod, attempt)
        if answer is _Answer.VALUES and job is not None and not job.sealed:
            answer = _NOT_SEALED
        newest = _newest(obs, pod)
        for request in pending_of(obs, pod):
            wrong = differs(request, pod)
            if not wrong and answer is _Answer.EMPTY:
                actions.append(AnswerEmpty(request))
                continue
            wrong = wrong or (answer if isinstance(answer, str) else "")
            told = wrong or ("" if request is newest else _NEWER)
            if told:
                actions.append(DenyRequest(request, told))
        if answer is _Answer.EMPTY:
            # What holds nothing stays until the kubelet has read it; Kubernetes deletes it.
            actions += [DeleteRequest(item) for item in mine if item.state and item.reason != NOTHING_LEFT]
    return tuple(actions)


def refused(obs: Observation) -> str:
    """Which requests were refused, for the run's condition, each reason once; empty if none were."""
    found: dict[tuple[str, str], list[str]] = {}
    for item in obs.requests:
        if item.state == "Denied" and item.message != _NEWER:
            found.setdefault((item.pod_name, item.message), []).append(item.name)
    return "; ".join(
        f"PodCertificateRequest {listed(sorted(names))} of pod {pod}: {message}"
        for (pod, message), names in sorted(found.items())
    )


def _answer(obs: Observation, pod: PodView, attempt: AttemptStatus | None) -> _Answer | str:
    """What answers the requests of the pod; a text: why they are denied."""
    if _is_over(obs, pod, attempt) or _unsealer_ended(pod):
        return _Answer.EMPTY
    there = [item for item in obs.requests if item.pod_uid == pod.uid]
    sealed = attempt.sealed if attempt is not None else None
    if not any(item.state == "Issued" for item in there):
        if sealed is None:
            return _Answer.VALUES
        # The request on record may have been answered unnoticed, unless it is seen unanswered.
        if sealed.delivered is None and any(item.uid == sealed.request for item in there):
            return _Answer.VALUES
    return _Answer.LATER if attempt is None or attempt.pod_uid in (None, pod.uid) else _OTHER_POD


def _is_over(obs: Observation, pod: PodView, attempt: AttemptStatus | None) -> bool:
    return pod.over or obs.run.status.finished or (attempt is not None and bool(attempt.outcome))


def _unsealer_ended(pod: PodView) -> bool:
    return any(item.name == UNSEALER and item.ended for item in pod.containers)


def differs(request: RequestView, pod: PodView) -> str:
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
