"""Verdicts about a run's tasks -> its status: phase, conditions, attempts, exposure. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from runkeys.api import AttemptStatus, Condition, TaskStatus, WorkflowRun, WorkflowRunStatus
from runkeys.api.conditions import next_condition
from runkeys.api.run_status import FINAL_PHASES
from runkeys.planning import leases
from runkeys.planning.refusal import Reason, Refusal

PATIENCE = timedelta(seconds=2)
"""How long a status write may be delayed when nobody depends on it: most runs need no write in between."""

ENDING = timedelta(seconds=10)
"""The same between the end of the containers and the end of their Job, which the kubelet and the Job
controller take some seconds over: a write in between says only that good news is on its way."""


class State(StrEnum):
    """State of a task; those that a run can have too are its phase."""

    PENDING = "Pending"
    WAITING = "Waiting"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    CANCELLED = "Cancelled"

    @classmethod
    def _missing_(cls, value: object) -> State:  # noqa: ARG003
        """A state that a later version wrote: the attempts on record show how far the task is."""
        return cls.PENDING

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self in (State.SUCCEEDED, State.FAILED, State.SKIPPED, State.CANCELLED)


SUSPENDED = "Suspended"
"""The phase of a run that starts nothing because of ``spec.suspend``."""


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    LOST = "Lost"
    DISRUPTED = "Disrupted"
    SUSPENDED = "Suspended"
    CANCELLED = "Cancelled"

    @classmethod
    def _missing_(cls, value: object) -> Outcome:  # noqa: ARG003
        """An outcome that a later version wrote: the attempt has finished, and how is unknown."""
        return cls.LOST

    @property
    def counts(self) -> bool:
        """Whether it is a failure of the task's own, as ``backoffLimit`` counts them."""
        return self in (Outcome.FAILED, Outcome.LOST)


@dataclass(frozen=True)
class Verdict:
    """Where a task stands and why.

    :ivar refusal: what keeps it from going on, or what it failed for.
    """

    state: State
    reason: str = ""
    message: str = ""
    refusal: Refusal | None = None


@dataclass(frozen=True)
class TaskResult:
    """What is known of a task: its part of the status.

    :ivar held_by: finalizers that keep a Secret of it which should be gone.
    :ivar unrevoked: leases of it that should be revoked and are not, with why.
    """

    name: str
    verdict: Verdict
    attempts: tuple[AttemptStatus, ...] = ()
    output: Any = None
    held_by: tuple[str, ...] = ()
    unrevoked: tuple[str, ...] = ()


_ABOUT_SOURCES = frozenset(
    {
        Reason.SOURCE_NOT_FOUND,
        Reason.SOURCE_FORBIDDEN,
        Reason.SOURCE_KEY_MISSING,
        Reason.SOURCE_UNAVAILABLE,
        Reason.STORE_NOT_FOUND,
        Reason.STORE_LOGIN_REFUSED,
        Reason.STORES_UNAVAILABLE,
        Reason.LEASES_UNAVAILABLE,
        Reason.LEASE_TOO_SHORT,
        Reason.UNKNOWN_KEY,
        Reason.SEAL_CONTEXT_MISMATCH,
        Reason.SEALED_INVALID,
        Reason.VALUE_NOT_TEXT,
        Reason.VALUE_TOO_LARGE,
    }
)


REQUESTS_REFUSED = "RequestsRefused"
"""Condition of a run: a pod's request for sealed delivery was refused."""


def build_status(
    run: WorkflowRun, tasks: Sequence[TaskResult], now: datetime, refused: str = ""
) -> WorkflowRunStatus:
    """The status of ``run``, given its tasks' results in the order of the spec.

    :param refused: which requests for a sealed delivery were refused, and why.
    """
    old, phase = run.status, _phase(run, tasks)
    final = phase in FINAL_PHASES
    moment = now.replace(microsecond=0)  # as the API server keeps it, so that equal statuses compare equal
    exposures = [item for task in tasks for attempt in task.attempts for item in attempt.exposures]
    attempts = [attempt for task in tasks for attempt in task.attempts]
    leased = sum(len(attempt.open_leases) for attempt in attempts)
    live = sum(1 for exposure in exposures if exposure.deleted is None) + leased
    sealed = any(attempt.sealed and attempt.sealed.delivered for task in tasks for attempt in task.attempts)
    closed = [(item.deleted - item.created).total_seconds() for item in exposures if item.deleted is not None]
    return WorkflowRunStatus(
        observed_generation=run.metadata.generation,
        phase=phase,
        tasks_done=f"{sum(task.verdict.state is State.SUCCEEDED for task in tasks)}/{len(tasks)}",
        live=live,
        exposed=f"{max(0.0, sum(closed)):.1f}s" if closed or sealed else None,
        start_time=old.start_time or moment,
        completion_time=(old.completion_time or moment) if final else None,
        conditions=_conditions(run, tasks, phase, live, moment, refused),
        tasks=[
            TaskStatus(
                name=task.name,
                state=task.verdict.state.value,
                reason=task.verdict.reason,
                message=task.verdict.message,
                attempts=list(task.attempts),
                output=task.output,
            )
            for task in tasks
        ],
    )


def purging(status: WorkflowRunStatus, run: WorkflowRun) -> WorkflowRunStatus:
    """Return the final ``status`` of a run without its end, because its sealed input must be removed first."""
    before = {item.type: item for item in run.status.conditions}
    reconciling = next(item for item in status.conditions if item.type == "Reconciling")
    open_still = {
        "Complete": "False",
        "Failed": "False",
        "Stalled": "False",
        "Reconciling": "True",
    }

    def held(item: Condition) -> Condition:
        word = open_still.get(item.type)
        if word is None:
            return item
        old = before.get(item.type)
        since = (
            old.last_transition_time
            if old is not None and old.status == word
            else reconciling.last_transition_time
        )
        changes = {"status": word, "reason": "Purging", "message": "", "last_transition_time": since}
        return item.model_copy(update=changes)

    phase = run.status.phase if run.status.phase not in (None, *FINAL_PHASES) else State.RUNNING.value
    return status.model_copy(
        update={
            "phase": phase,
            "completion_time": None,
            "conditions": [held(item) for item in status.conditions],
        }
    )


def _phase(run: WorkflowRun, tasks: Sequence[TaskResult]) -> str:
    states = [task.verdict.state for task in tasks]
    if all(state.final for state in states):
        if State.CANCELLED in states:
            return State.CANCELLED.value
        if State.FAILED in states or State.SKIPPED in states:
            return State.FAILED.value
        return State.SUCCEEDED.value
    if State.RUNNING in states:
        return State.RUNNING.value
    open_attempt = any(task.attempts and not task.attempts[-1].outcome for task in tasks)
    if run.spec.suspend and not open_attempt:
        return SUSPENDED
    return State.RUNNING.value if State.SUCCEEDED in states else State.PENDING.value


def _conditions(
    run: WorkflowRun, tasks: Sequence[TaskResult], phase: str, live: int, now: datetime, refused: str
) -> list[Condition]:
    final = phase in FINAL_PHASES
    # What people have to know first: why a task failed, else what keeps one from going on.
    leading = (
        next((task for task in tasks if task.verdict.state is State.FAILED), None)
        or next((task for task in tasks if task.verdict.refusal and not task.verdict.state.final), None)
        or next((task for task in tasks if not task.verdict.state.final), None)
        or next((task for task in tasks if task.verdict.state is State.CANCELLED), None)
        or tasks[-1]
    )
    verdict = leading.verdict
    refusal = verdict.refusal
    why = verdict.reason or (phase if final else verdict.state.value)
    text = verdict.message
    if text and len(tasks) > 1:
        text = f"task {leading.name}: {text}"

    def condition(kind: str, status: bool | None, reason: str, message: str = "") -> Condition:
        generation = run.metadata.generation
        return next_condition(
            run.status.conditions, kind, status, reason, message, generation=generation, now=now
        )

    needs_secrets = any(task.secrets for task in run.spec.tasks)
    started = any(task.attempts for task in tasks)

    def checked(kind: str, good: str, *, refused: bool, passed: bool) -> Condition:
        if refused:
            return condition(kind, False, why, text)
        if not needs_secrets:
            return condition(kind, True, "NoSecrets")
        if passed:
            return condition(kind, True, good)
        return condition(kind, None, refusal.reason.value if refusal else "NotChecked", text)

    about_sources = refusal is not None and refusal.reason in _ABOUT_SOURCES
    denied = refusal is not None and refusal.reason in (Reason.ACCESS_DENIED, Reason.USE_DENIED)
    failed = phase in (State.FAILED, State.CANCELLED)
    waits = refusal is not None and not final and not verdict.state.final
    # A queue, an autoscaler or another pod's end brings a node: nobody has to do anything, so nothing is stalled.
    queued = waits and refusal is not None and refusal.reason is Reason.UNSCHEDULABLE
    goes_on = queued or (refusal is None and not final and not verdict.state.final)
    stuck = waits and not queued
    used = _input_used(run)
    before = next((item for item in run.status.conditions if item.type == REQUESTS_REFUSED), None)
    # A refused request is deleted with its pod; what was refused stays on record, and is no trouble after success.
    told = refused or (before.message if before is not None else "")
    troubles = phase != State.SUCCEEDED
    return [
        checked("Authorized", "Admitted", refused=denied, passed=started or about_sources),
        checked("SecretsReady", "Resolved", refused=about_sources, passed=started),
        condition("SecretsReleased", *_released(tasks, live, final=final)),
        condition("Complete", phase == State.SUCCEEDED, why),
        condition("Failed", failed, why, text if failed else ""),
        condition("Reconciling", not final and not stuck, why, text if goes_on else ""),
        condition("Stalled", stuck or phase == State.FAILED, why, text if stuck or failed else ""),
        *([condition("InputUsed", *used)] if used is not None else []),
        *([condition(REQUESTS_REFUSED, troubles, "RequestRefused", told[:4000])] if told else []),
    ]


def _input_used(run: WorkflowRun) -> tuple[bool, str, str] | None:
    """Whether a task asks for each field of the sealed input; None for a run that never had any."""
    if not run.spec.sealed_input:  # taken out already, then what was said of it stays
        old = next((item for item in run.status.conditions if item.type == "InputUsed"), None)
        return (old.status == "True", old.reason, old.message) if old is not None else None
    asked = {item.input for task in run.spec.tasks for item in task.secrets}
    unused = sorted(set(run.spec.sealed_input) - asked)
    if not unused:
        return True, "AllUsed", ""
    return (
        False,
        "InputUnused",
        f"no task asks for {', '.join(unused)} of spec.sealedInput; remove it, or list it under a task's secrets with"
        " input",
    )


def _released(tasks: Sequence[TaskResult], live: int, *, final: bool) -> tuple[bool, str, str]:
    held = [name for task in tasks for name in task.held_by]
    if held:
        return (
            False,
            Reason.HELD_BY_FINALIZER.value,
            f"the Secret was deleted, but other finalizers keep it: {', '.join(held)};"
            " remove them from the Secret",
        )
    attempts = [attempt for task in tasks for attempt in task.attempts]
    unrevoked = [text for task in tasks for text in task.unrevoked]
    if unrevoked:
        return False, Reason.REVOCATION_PENDING.value, leases.pending_message(unrevoked)
    leased = sum(len(attempt.open_leases) for attempt in attempts)
    if leased and leased == live and any(item.outcome for item in attempts if item.open_leases):
        return False, Reason.REVOCATION_PENDING.value, "a lease of an attempt that has ended is to be revoked"
    if live:
        of_this = "a Secret of this run may exist" if leased < live else leases.OPEN
        return False, "Live", of_this
    expired = leases.lost(attempts)
    if expired:
        message = (
            f"the store did not confirm that a lease was revoked before it expired: {expired}; the store ends it by"
            " itself, see there whether it has"
        )
        return False, Reason.LEASE_EXPIRED.value, message
    if final:
        made = any(attempt.exposures for attempt in attempts)
        return True, "Released" if made else "NeverMade", ""
    return False, "NotFinished", "no Secret exists now; the run has not finished"
