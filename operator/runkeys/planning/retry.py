"""Whether and when to retry a task, and its verdict from its finished attempts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from runkeys.api import AttemptStatus, Task
from runkeys.planning.memory import Finding, TaskMemory
from runkeys.planning.refusal import Reason
from runkeys.planning.status import Outcome, State, Verdict

RETRY_AFTER = timedelta(seconds=30)
"""Interval between retries of a missing source or a refused object."""

FIRST_BACKOFF, LONGEST_BACKOFF = timedelta(seconds=10), timedelta(minutes=6)
"""Delay before the next attempt, doubled with each failure, as for the pods of a batch/v1 Job."""

MOST_UNCOUNTED = 10
"""Disruptions, and failures that the podFailurePolicy ignores: so many of each. Kubernetes has no limit for these; here
each attempt stays in the status."""

MOST_ATTEMPTS = 100
"""Only those that are ended by suspend do not count otherwise. A status can tell of 128."""


def next_start(attempts: Sequence[AttemptStatus]) -> datetime | None:
    """When the next attempt may start, after the back-off of those that failed; None: at once.

    As for a Job's pods, those that do not count wait, too. Only after its first disruption a task goes on at once.
    """
    last = attempts[-1] if attempts else None
    if last is None or last.end_time is None:
        return None
    failures = _alike(attempts) - (_is_disruption(last))
    if Outcome(last.outcome) in _NO_FAILURE or failures < 1:
        return None
    pause: timedelta = FIRST_BACKOFF * 2 ** min(failures - 1, 16)
    return last.end_time + min(LONGEST_BACKOFF, pause)


_NO_FAILURE = (Outcome.SUCCEEDED, Outcome.SUSPENDED, Outcome.CANCELLED)


def _is_disruption(attempt: AttemptStatus) -> bool:
    """Whether the cluster ended it. Of a failure that the podFailurePolicy ignores the reason says so."""
    return attempt.outcome == Outcome.DISRUPTED and attempt.reason != Reason.JOB_FAILED


def _alike(attempts: Sequence[AttemptStatus]) -> int:
    """How many attempts ended like the last one: disrupted, with a failure that is ignored, or with one that counts."""
    last = attempts[-1]
    if Outcome(last.outcome).counts:
        return sum(Outcome(item.outcome).counts for item in attempts)
    return sum(
        item.outcome == last.outcome and _is_disruption(item) == _is_disruption(last) for item in attempts
    )


def verdict_of(task: Task, attempts: Sequence[AttemptStatus], message: str) -> Verdict | None:
    """The task's verdict from its finished attempts; None if it may be retried.

    :param message: why the last attempt ended, for people.
    """
    if not attempts:
        return None
    last = attempts[-1]
    outcome = Outcome(last.outcome)
    if outcome is Outcome.SUCCEEDED:
        return Verdict(State.SUCCEEDED)
    if outcome is Outcome.CANCELLED:
        return Verdict(State.CANCELLED, last.reason, message)
    failures = sum(Outcome(item.outcome).counts for item in attempts)
    if (
        last.reason in (Reason.RUN_DEADLINE_EXCEEDED, Reason.FAILED_FOR_GOOD)
        or (outcome.counts and failures > task.backoff_limit)
        or (outcome is Outcome.DISRUPTED and _alike(attempts) > MOST_UNCOUNTED)
    ):
        return Verdict(State.FAILED, last.reason, message)
    if len(attempts) >= MOST_ATTEMPTS:
        told = f"was tried {len(attempts)} times, and a run cannot record more attempts; create a new run"
        return Verdict(State.FAILED, Reason.TOO_MANY_ATTEMPTS, told)
    return None


def refused_lately(memory: TaskMemory, now: datetime, *, policies_in_force: bool) -> Finding | None:
    """Why values or objects of the task were refused, if that is so recent that they are not tried again yet."""
    for finding in (memory.sources, memory.refused):
        if finding is None or finding.refusal is None or finding.at + RETRY_AFTER <= now:
            continue
        if finding.refusal.reason is Reason.POLICIES_MISSING and policies_in_force:
            continue
        return finding
    return None
