"""A verdict about a run -> its status: phase, conditions, attempts, exposure. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from runkeys.api import AttemptStatus, Condition, TaskStatus, WorkflowRun, WorkflowRunStatus
from runkeys.refusal import Reason, Refusal


class State(StrEnum):
    """State of a task; of a run with one task also its phase, where Waiting shows as Pending."""

    PENDING = "Pending"
    WAITING = "Waiting"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class Verdict:
    """Where a task stands and why.

    :ivar refusal: what keeps it from going on, or what it failed for.
    :ivar held_by: finalizers that keep a Secret which should be gone.
    """

    state: State
    reason: str = ""
    message: str = ""
    refusal: Refusal | None = None
    held_by: tuple[str, ...] = ()


_ABOUT_SOURCES = frozenset(
    {
        Reason.SOURCE_NOT_FOUND,
        Reason.SOURCE_FORBIDDEN,
        Reason.SOURCE_KEY_MISSING,
        Reason.SOURCE_UNAVAILABLE,
        Reason.VALUE_NOT_TEXT,
        Reason.VALUE_TOO_LARGE,
    }
)


FINAL_PHASES = tuple(state.value for state in State if state.final)


def finished(status: WorkflowRunStatus) -> bool:
    """Whether this status is one that nothing follows."""
    return status.phase in FINAL_PHASES


def build_status(
    run: WorkflowRun, verdict: Verdict, attempts: list[AttemptStatus], now: datetime
) -> WorkflowRunStatus:
    """The status of ``run``, whose one task stands as ``verdict`` says."""
    old, state = run.status, verdict.state
    moment = now.replace(microsecond=0)  # as the API server keeps it, so that equal statuses compare equal
    task = run.spec.tasks[0]
    live = sum(1 for attempt in attempts for exposure in attempt.exposures if exposure.deleted is None)
    return WorkflowRunStatus(
        observed_generation=run.metadata.generation,
        phase=(State.PENDING if state is State.WAITING else state).value,
        tasks_done=f"{int(state is State.SUCCEEDED)}/{len(run.spec.tasks)}",
        live=live,
        exposed=_exposed(attempts),
        start_time=old.start_time or moment,
        completion_time=(old.completion_time or moment) if state.final else None,
        conditions=[
            _carry_over(old.conditions, condition, now)
            for condition in _conditions(run, verdict, attempts, live, now)
        ],
        tasks=[
            TaskStatus(
                name=task.name,
                state=state.value,
                reason=verdict.reason,
                message=verdict.message,
                attempts=attempts,
            )
        ],
    )


def _exposed(attempts: list[AttemptStatus]) -> str | None:
    closed = [
        (exposure.deleted - exposure.created).total_seconds()
        for attempt in attempts
        for exposure in attempt.exposures
        if exposure.deleted is not None
    ]
    return f"{max(0.0, sum(closed)):.1f}s" if closed else None


def _conditions(
    run: WorkflowRun, verdict: Verdict, attempts: list[AttemptStatus], live: int, now: datetime
) -> list[Condition]:
    state, refusal = verdict.state, verdict.refusal

    def condition(kind: str, status: bool | None, reason: str, message: str = "") -> Condition:
        return Condition(
            type=kind,
            status={True: "True", False: "False", None: "Unknown"}[status],
            reason=reason,
            message=message,
            last_transition_time=now,
            observed_generation=run.metadata.generation,
        )

    needs_secrets = bool(run.spec.tasks[0].secrets)
    started = bool(attempts)
    why = refusal.reason.value if refusal else ""
    text = str(refusal) if refusal else verdict.message

    if refusal and refusal.reason is Reason.ACCESS_DENIED:
        authorized = condition("Authorized", False, why, text)
    elif not needs_secrets:
        authorized = condition("Authorized", True, "NoSecrets")
    elif started or (refusal and refusal.reason in _ABOUT_SOURCES):
        authorized = condition("Authorized", True, "Admitted")
    else:
        authorized = condition("Authorized", None, why or "NotChecked", text)

    if refusal and refusal.reason in _ABOUT_SOURCES:
        ready = condition("SecretsReady", False, why, text)
    elif not needs_secrets:
        ready = condition("SecretsReady", True, "NoSecrets")
    elif started:
        ready = condition("SecretsReady", True, "Resolved")
    else:
        ready = condition("SecretsReady", None, why or "NotChecked", text)

    if verdict.held_by:
        released = condition(
            "SecretsReleased",
            False,
            Reason.HELD_BY_FINALIZER.value,
            f"the Secret was deleted, but finalizers of others keep it: {', '.join(verdict.held_by)};"
            " remove them from the Secret",
        )
    elif live:
        released = condition("SecretsReleased", False, "Live", "a Secret of this run may exist")
    elif state.final:
        made = any(attempt.exposures for attempt in attempts)
        released = condition("SecretsReleased", True, "Released" if made else "NeverMade")
    else:
        released = condition("SecretsReleased", False, "NotFinished", "no Secret exists now; the run goes on")

    failed = state in (State.FAILED, State.CANCELLED)
    stuck = refusal is not None and not state.final
    return [
        authorized,
        ready,
        released,
        condition("Complete", state is State.SUCCEEDED, verdict.reason or state.value, ""),
        condition("Failed", failed, verdict.reason or state.value, text if failed else ""),
        condition("Reconciling", not state.final and not stuck, verdict.reason or state.value),
        condition(
            "Stalled",
            stuck or state is State.FAILED,
            why or verdict.reason or state.value,
            text if stuck or failed else "",
        ),
    ]


def _carry_over(old: list[Condition], new: Condition, now: datetime) -> Condition:
    """``new`` with the time at which its status last changed, whole seconds as the API server keeps it."""
    before = next((item for item in old if item.type == new.type), None)
    since = before.last_transition_time if before and before.status == new.status else now
    return new.model_copy(update={"last_transition_time": since.replace(microsecond=0)})
