"""Outcome of an attempt whose Job has finished: from its pods, exit codes and output. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from runkeys._text import documents
from runkeys.api import Task
from runkeys.planning.observation import JobState, JobView, PodView
from runkeys.planning.refusal import Reason
from runkeys.planning.status import Outcome

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
    if any(pod.disrupted for pod in pods) or job.reason == "PodFailurePolicy":
        return Ended(Outcome.DISRUPTED, Reason.DISRUPTED, f"the pod was taken off its node: {job.message}")
    if any(pod.reason == "DeadlineExceeded" for pod in pods):
        message = "the pod was active for longer than its activeDeadlineSeconds"
        return Ended(Outcome.FAILED, Reason.DEADLINE_EXCEEDED, message)
    codes = exit_codes(pods)
    told = "; ".join(f"container {name} exited with code {code}" for name, code in codes) or job.message
    match _policy_says(task, codes):
        case "FailJob":
            message = f"{told}, and by podFailurePolicy there is no further attempt"
            return Ended(Outcome.FAILED, Reason.FAILED_FOR_GOOD, message)
        case "Ignore":
            return Ended(Outcome.DISRUPTED, Reason.JOB_FAILED, told)
    return Ended(Outcome.FAILED, Reason.JOB_FAILED, told)


def named_after(job: JobView, of_job: Iterable[PodView]) -> list[PodView]:
    """Pods with a name as the Job controller generates it. Other pods of the Job get nothing."""
    return [pod for pod in of_job if pod.name.startswith(f"{job.name}-")]


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


def exit_codes(pods: list[PodView]) -> list[tuple[str, int]]:
    """Containers that ended with an exit code other than 0."""
    return [
        (container.name, container.exit_code)
        for pod in pods
        for container in pod.containers
        if container.exit_code
    ]


def _policy_says(task: Task, codes: list[tuple[str, int]]) -> str:
    """The action of the first rule that matches the exit codes."""
    policy = task.pod_failure_policy
    for rule in policy.rules if policy is not None else ():
        wanted = rule.on_exit_codes
        for name, code in codes:
            listed = code in wanted.values
            if wanted.container_name in (None, name) and listed == (wanted.operator == "In"):
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
