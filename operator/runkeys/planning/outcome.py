"""Outcome of an attempt whose Job has finished: from its pods, exit codes and output. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from runkeys._text import documents
from runkeys.api import Task
from runkeys.planning.observation import ContainerView, JobState, JobView, PodView, Role
from runkeys.planning.refusal import Reason, shortened
from runkeys.planning.status import Outcome

_MOST_SAID = 400
"""Limit on what is repeated of a container runtime's message."""

MAX_OUTPUT_BYTES = 4095
"""The kubelet cuts a termination message at 4096 bytes, and those of all containers of a pod at 12 KiB."""


@dataclass(frozen=True)
class Ended:
    """How an attempt ended, and what it wrote if that is wanted."""

    outcome: Outcome
    reason: str = ""
    message: str = ""
    output: Any = None


def outcome_of(task: Task, job: JobView, pods: list[PodView]) -> Ended:
    """Outcome of the attempt whose ``job`` has finished. Pods that are gone count as they were last seen."""
    if job.state is JobState.SUCCEEDED:
        return _output(task, pods) if task.record_output else Ended(Outcome.SUCCEEDED)
    return _failed(task, job, pods)


def _failed(task: Task, job: JobView, pods: list[PodView]) -> Ended:
    off = next((pod for pod in pods if pod.disrupted), None)
    if off is not None or job.reason == "PodFailurePolicy":
        why = off.disruption if off is not None else ""
        return Ended(
            Outcome.DISRUPTED, Reason.DISRUPTED, f"the pod was taken off its node: {why or job.message}"
        )
    if any(pod.reason == "DeadlineExceeded" for pod in pods):
        message = "the pod was active for longer than its activeDeadlineSeconds"
        return Ended(Outcome.FAILED, Reason.DEADLINE_EXCEEDED, message)
    refused = next((pod for pod in pods if pod.phase == "Failed" and pod.reason not in ("", _EVICTED)), None)
    if refused is not None:
        message = f"node {refused.node} did not take pod {refused.name}, or gave it up: {_said_of(refused)}"
        return Ended(Outcome.DISRUPTED, Reason.DISRUPTED, message)
    ended = _ended_badly(pods)
    known = [item for item in ended if item.reason != _UNKNOWN]
    deleted = next((pod for pod in pods if pod.deleted_at is not None and not _ended_before(pod)), None)
    if ended and not known and deleted is None:
        what = f"container {ended[0].name} ended, and its node does not know how ({_UNKNOWN})"
        return Ended(Outcome.DISRUPTED, Reason.DISRUPTED, what)
    told = "; ".join(_how(item) for item in ended) or _unseen(job, pods)
    if deleted is not None:
        told = f"pod {deleted.name} was deleted while it ran (kubectl delete pod, or another client): {told}"
    evicted = next((pod for pod in pods if pod.reason == _EVICTED), None)
    if evicted is not None:
        told = f"pod {evicted.name} exceeded its limits: {_said_of(evicted)}"
    match _policy_says(task, pods, known):
        case "FailJob":
            message = f"{told}, and by podFailurePolicy there is no further attempt"
            return Ended(Outcome.FAILED, Reason.FAILED_FOR_GOOD, message)
        case "Ignore":
            return Ended(Outcome.DISRUPTED, Reason.JOB_FAILED, told)
    return Ended(Outcome.FAILED, Reason.JOB_FAILED, told)


def named_after(job: JobView, of_job: Iterable[PodView]) -> list[PodView]:
    """Pods with a name as the Job controller generates it. Other pods of the Job get nothing."""
    return [pod for pod in of_job if pod.name.startswith(f"{job.name}-")]


def of_replaced(name: str, uid: str, seen: Iterable[PodView]) -> list[PodView]:
    """Pods of other Jobs that had this name. Until they are gone they read the same Secret."""
    return [
        pod
        for pod in seen
        if pod.name.startswith(f"{name}-") and pod.job_uid not in ("", uid) and not pod.over
    ]


def own_pods(seen: Iterable[PodView], of_job: list[PodView], uid: str) -> list[PodView]:
    """The pod of the attempt, whatever it says of its Job by now; of one that is not on record all of the Job."""
    return [pod for pod in seen if pod.uid == uid] if uid else of_job


NOT_GIVEN = (
    "its Job is reported as succeeded, but its pod never got the secrets that it needs; check who may write"
    " pods and Jobs in this namespace"
)
"""Why the success of an attempt does not count: it needs secrets and had none."""


def counted_instead(own: list[PodView], of_job: list[PodView]) -> str:
    """Return why the success of a Job is not that of its own pod; empty if it is.

    If its own pod was never seen, or its end was not seen, the Job's result counts, unless another pod may have
    produced it.
    """
    lacking = [pod for pod in own if pod.phase != "Succeeded"]
    if own and not lacking:
        return ""
    others = [pod.name for pod in of_job if pod.phase == "Succeeded"]
    if not others and all(pod.phase == "Unknown" for pod in lacking):
        return ""
    told = f", and pod {others[0]} was counted instead" if others else ""
    return (
        f"its Job is reported as succeeded, but its own pod has not succeeded{told}; check who may write pods and"
        " Jobs in this namespace"
    )


_EVICTED = "Evicted"
"""Reason of a pod that took more than its own limits allow, unless it bears the mark of a disruption."""

_UNKNOWN = "ContainerStatusUnknown"
"""Reason of a container that the kubelet has lost sight of: exit code 137 is the kubelet's, not the container's."""

_NEVER_RAN = ("StartError", "ContainerCannotRun")
"""Reasons of a container whose program never ran, so that its message is the runtime's. Of all others the task may
have written the message, with anything in it."""


def _ended_badly(pods: list[PodView]) -> list[ContainerView]:
    """Containers whose exit code is the failure of their pod, the task's own if there are any.

    Sidecars are none: the kubelet ends them when the pod is over, and their exit codes decide nothing in Kubernetes.
    """
    failed = [
        item
        for pod in pods
        for item in pod.containers
        if item.exit_code and item.role in (Role.INIT, Role.MAIN)
    ]
    return [item for item in failed if item.reason != _UNKNOWN] or failed


def _ended_before(pod: PodView) -> bool:
    """Whether a container of a pod had failed by itself before somebody deleted the pod."""
    return any(
        pod.deleted_at is not None and item.ended_at is not None and item.ended_at < pod.deleted_at
        for item in _ended_badly([pod])
    )


def _unseen(job: JobView, pods: list[PodView]) -> str:
    """What can be said of a failure without any container that failed."""
    if all(pod.gone for pod in pods):
        return f"its pod is gone, and how it ended is not known: {job.message}"
    return job.message


def _said_of(pod: PodView) -> str:
    return ": ".join(text for text in (pod.reason, pod.message) if text)


def _how(container: ContainerView) -> str:
    """How a container ended, without anything that the task wrote."""
    name, code, reason = container.name, container.exit_code, container.reason
    if reason in _NEVER_RAN:
        return f"container {name} did not start ({reason}): {shortened(container.output, _MOST_SAID)}"
    if reason in ("", "Error", "Completed"):
        return f"container {name} exited with code {code}"
    return f"container {name} exited with code {code} ({reason})"


def _policy_says(task: Task, pods: list[PodView], ended: list[ContainerView]) -> str:
    """The action of the first rule that matches the exit codes.

    A rule that names no container looks at those that the task is about, if one of them failed.
    """
    own = [item for item in ended if item.name in task.secret_containers]
    everything = [
        item for pod in pods for item in pod.containers if item.exit_code and item.reason != _UNKNOWN
    ]
    policy = task.pod_failure_policy
    for rule in policy.rules if policy is not None else ():
        wanted = rule.on_exit_codes
        named = [item for item in everything if item.name == wanted.container_name]
        for item in named if wanted.container_name is not None else own or ended:
            if (item.exit_code in wanted.values) == (wanted.operator == "In"):
                return rule.action
    return ""


def _output(task: Task, pods: list[PodView]) -> Ended:
    where = "/var/runtime/output/output.json"
    there = [pod for pod in pods if pod.over and not pod.gone]
    if not there:
        message = "its pod was deleted before its output could be read"
        return Ended(Outcome.LOST, Reason.OUTPUT_MISSING, message)
    containers = [item for pod in there for item in pod.containers]
    text = next((item.output for item in containers if item.name == task.secret_containers[0]), "")
    limit = min(MAX_OUTPUT_BYTES, 12 * 1024 // max(1, len(containers)) - 1)
    if len(text.encode()) > limit:
        return Ended(
            Outcome.FAILED,
            Reason.OUTPUT_TOO_LARGE,
            f"{where} has more than the {limit} bytes that can be kept; write larger output to a data pool",
        )
    if not text.strip():
        return Ended(Outcome.SUCCEEDED)
    try:
        return Ended(Outcome.SUCCEEDED, output=documents.output(text))
    except ValueError as error:
        return Ended(
            Outcome.FAILED,
            Reason.OUTPUT_INVALID,
            f"{where} {error}; write one JSON document, in place (a file that is renamed to it is not seen)",
        )


def at_fault(pods: list[PodView], reason: Reason, message: str) -> tuple[Outcome, str, str]:
    """How an attempt ends whose pod did not keep a time limit: not by its own fault if its node was lost meanwhile."""
    if any(pod.disrupted for pod in pods):
        return (
            Outcome.DISRUPTED,
            Reason.DISRUPTED,
            f"the pod had to leave its node, and the node never confirmed that it has stopped: {message}",
        )
    return Outcome.FAILED, reason, message
