"""When values of a run were in the cluster, from its status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runkeys.api import WorkflowRun


@dataclass(frozen=True)
class Exposure:
    """A period in which the values of one attempt of a task were in the cluster.

    :ivar secrets: parameter names of the task's secrets.
    :ivar deleted: end of the period; None: the values may still be in the cluster.
    """

    task: str
    attempt: int
    secrets: tuple[str, ...]
    created: datetime
    deleted: datetime | None

    @property
    def seconds(self) -> float | None:
        """Length of the period in seconds; None if it has not ended."""
        return None if self.deleted is None else max(0.0, (self.deleted - self.created).total_seconds())


def exposures_of(run: WorkflowRun) -> list[Exposure]:
    """Return all exposures of a run, in the order of its tasks and attempts."""
    asked = {task.name: tuple(item.name for item in task.secrets) for task in run.spec.tasks}
    return [
        Exposure(task.name, attempt.number, asked.get(task.name, ()), item.created, item.deleted)
        for task in run.status.tasks
        for attempt in task.attempts
        for item in attempt.exposures
    ]


def released(run: WorkflowRun) -> bool:
    """Return whether no Secret of the run exists, and none will be created."""
    return any(item.type == "SecretsReleased" and item.status == "True" for item in run.status.conditions)
