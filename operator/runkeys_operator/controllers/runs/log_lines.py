"""Log lines about a run and its tasks, with fields that name task, attempt and Job."""

from __future__ import annotations

import logging
from typing import Any

from runkeys.api import AttemptStatus, WorkflowRunStatus
from runkeys.planning.observation import Observation

log = logging.getLogger(__name__)


def attempt_of(obs: Observation, job: str) -> AttemptStatus | None:
    """Return the attempt with the Job of this name; None if it is not in the status."""
    attempts = (attempt for task in obs.run.status.tasks for attempt in task.attempts)
    return next((attempt for attempt in attempts if attempt.job == job), None)


def about(obs: Observation, job: str, task: str = "") -> dict[str, Any]:
    """Return the log fields run, task, attempt and job.

    :param job: name of the Job.
    :param task: name of its task, for a Job that was just created and is not in the status yet.
    """
    about: dict[str, Any] = {"run": obs.run.key, "job": job}
    for status in obs.run.status.tasks:
        numbers = {attempt.job: attempt.number for attempt in status.attempts}
        if job in numbers:
            return {**about, "task": status.name, "attempt": numbers[job]}
        if status.name == task:
            about["attempt"] = len(numbers) + 1
    return {**about, "attempt": about.get("attempt", 1), "task": task} if task else about


def log_tasks(obs: Observation, status: WorkflowRunStatus) -> None:
    """Log one line for each task whose state or reason has changed."""
    before = {task.name: (task.state, task.reason) for task in obs.run.status.tasks}
    for task in status.tasks:
        if before.get(task.name) != (task.state, task.reason):
            attempt = task.attempts[-1].number if task.attempts else None
            fields = {
                "run": obs.run.key,
                "task": task.name,
                "attempt": attempt,
                "reason": task.reason or None,
            }
            log.info("task %s", task.state, extra=fields)


def is_missed(obs: Observation, job_uid: str) -> bool:
    """Whether the kubelet could not create a container of the pod, because its Secret did not exist yet."""
    pods = (pod for pod in obs.pods if pod.job_uid == job_uid)
    return any(item.waiting == "CreateContainerConfigError" for pod in pods for item in pod.containers)


def reason_of(status: WorkflowRunStatus) -> str | None:
    """Return the reason of the first task that has one; None if no task has."""
    return next((task.reason for task in status.tasks if task.reason), None)
