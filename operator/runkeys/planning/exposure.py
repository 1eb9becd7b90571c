"""The Secrets of attempts: whether one may exist, when it existed, and that it stays deleted. Pure.

And what is left to do for finished attempts, their leases too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from runkeys.api import AttemptStatus, Exposure
from runkeys.planning import leases
from runkeys.planning.actions import Action, DeleteJob, DeleteSecret
from runkeys.planning.memory import SecretMemory
from runkeys.planning.observation import JobState, JobView, Observation

DELETE_AGAIN_AFTER = timedelta(seconds=30)
"""Delay before the Secret of a finished attempt is deleted once more, doubled each time."""


@dataclass(frozen=True)
class CleanUp:
    """Finished attempts, with the cleanup that is left."""

    attempts: tuple[AttemptStatus, ...]
    actions: tuple[Action, ...]
    due: tuple[datetime, ...]
    held_by: tuple[str, ...]


def may_exist(attempt: AttemptStatus | None, secret: SecretMemory) -> bool:
    """Whether the Secret of an attempt may be in the cluster."""
    if secret.gone_at is not None:
        return False
    intended = attempt is not None and any(exposure.deleted is None for exposure in attempt.exposures)
    return intended or secret.made_at is not None


def job_of(obs: Observation, attempt: AttemptStatus) -> JobView | None:
    """The Job of an attempt, if it exists; another Job may have its name."""
    job = obs.jobs.get(attempt.job)
    return job if job is not None and job.uid == attempt.job_uid and not job.gone else None


def closed(obs: Observation, attempt: AttemptStatus) -> AttemptStatus:
    """``attempt`` with the end of its exposure, once the server confirmed it, and its exact beginning."""
    secret = obs.memory.of(attempt.job_uid)
    if secret.gone_at is None or not attempt.exposures or attempt.exposures[-1].deleted is not None:
        return attempt
    exact = secret.made_at is not None and not secret.estimated
    created = secret.made_at if secret.made_at is not None and exact else attempt.exposures[-1].created
    ended = Exposure(created=created, deleted=max(secret.gone_at, created), estimated=not exact)
    return attempt.model_copy(update={"exposures": [*attempt.exposures[:-1], ended]})


def clean_up(obs: Observation, attempts: tuple[AttemptStatus, ...], now: datetime) -> CleanUp:
    """Clean up finished attempts: keep their Secrets deleted, and end Jobs that still run."""
    actions: list[Action] = []
    due: list[datetime] = []
    held: list[str] = []
    found: list[AttemptStatus] = []
    for attempt in attempts:
        job, secret = job_of(obs, attempt), obs.memory.of(attempt.job_uid)
        held += secret.held_by
        if any(exposure.deleted is None or exposure.estimated for exposure in attempt.exposures):
            when = _delete_again(obs, attempt, secret, job, now)
            if when is not None and when <= now:
                actions.append(DeleteSecret(attempt.job, attempt.job_uid))
            elif when is not None:
                due.append(when)
        if job is not None and job.state is JobState.ACTIVE and not job.deleting:
            actions.append(DeleteJob(job.name, job.uid))
        left = leases.revocations(obs.memory, closed(obs, attempt), now)
        actions += left.actions
        due += left.due
        found.append(left.attempt)
    return CleanUp(tuple(found), tuple(actions), tuple(due), tuple(held))


def _delete_again(
    obs: Observation, attempt: AttemptStatus, secret: SecretMemory, job: JobView | None, now: datetime
) -> datetime | None:
    """When to delete the Secret of a finished attempt (once more); None: never.

    A create request that was never answered may still be on its way (a proxy, a process that was paused),
    so the deletion is repeated 30, 60, 120… seconds after the end for as long as the Job exists; without
    its Job a Secret is collected by Kubernetes itself.
    """
    last = secret.last_delete
    if any(exposure.deleted is None for exposure in attempt.exposures) and secret.gone_at is None:
        return now if last is None else last + DELETE_AGAIN_AFTER
    ended = attempt.end_time or obs.run.status.completion_time
    if job is None or ended is None:
        return None
    step = DELETE_AGAIN_AFTER
    while last is not None and ended + step <= last:
        step *= 2
    return ended + step
