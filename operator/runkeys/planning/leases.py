"""Leases of attempts: which are open, which have to be revoked now, and what is said of them. Pure, a part of the plan.

The order that crashes need: a login is in the status before anything is created with it, so whoever reads the status
can revoke it. What it created is in the status before a pod is given any of it, so that the store can be asked whether
it is gone. A login of which no pod is known to have been given anything is revoked, and the attempt logs in anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from runkeys._text.times import to_seconds
from runkeys.api import AttemptStatus, Condition, LeaseStatus, WorkflowRunStatus
from runkeys.api.conditions import next_condition
from runkeys.api.run_status import MOST_LEASES
from runkeys.names import FINALIZER
from runkeys.planning.actions import Action, DropFinalizer, RevokeLeases
from runkeys.planning.memory import Memory
from runkeys.planning.observation import Observation
from runkeys.planning.refusal import Reason, Refusal, listed
from runkeys.planning.requirements import SecretReference, StoreValue, read_by

OPEN = "a lease of this run is open"
"""What a condition says while no Secret exists."""

REVOKE_AGAIN = timedelta(seconds=30)
"""Interval between two requests to revoke the same lease."""


@dataclass(frozen=True)
class Revocations:
    """What is due for the open leases of an attempt.

    :ivar attempt: with what is known of their end.
    :ivar due: when to try again.
    """

    attempt: AttemptStatus
    actions: tuple[RevokeLeases, ...]
    due: tuple[datetime, ...]


def leased(references: Iterable[SecretReference]) -> list[tuple[SecretReference, StoreValue]]:
    """Those that need a lease, and parts of templates that do."""
    return [
        (part, part.source)
        for part in read_by(references)
        if isinstance(part.source, StoreValue) and part.source.leased
    ]


def limit_refusal(references: Iterable[SecretReference]) -> Refusal | None:
    """Why a task cannot have all the leases that it asks for, or None."""
    found = leased(references)
    logins: dict[tuple[str, str], set[str]] = {}
    for _, source in found:
        logins.setdefault((source.store, source.role), set()).add(source.path)
    if len(logins) <= MOST_LEASES // 2 and all(len(paths) <= MOST_LEASES for paths in logins.values()):
        return None
    return Refusal(
        Reason.LEASES_UNAVAILABLE,
        found[0][0].field.rpartition("[")[0],
        f"the task needs leases of more than {MOST_LEASES // 2} roles, or of more than {MOST_LEASES} paths with one"
        " role; split the task",
        permanent=False,
    )


def followed(memory: Memory, attempt: AttemptStatus) -> AttemptStatus:
    """``attempt`` with what this process knows of the end of its leases."""
    if not attempt.open_leases:
        return attempt
    return attempt.model_copy(update={"leases": [_followed(memory, lease) for lease in attempt.leases or ()]})


def _followed(memory: Memory, lease: LeaseStatus) -> LeaseStatus:
    known = memory.lease(lease.store, lease.accessor)
    if not lease.open:
        return lease
    if known.revoked_at is not None:
        return lease.model_copy(update={"revoked": known.revoked_at.replace(microsecond=0)})
    if known.tried_at is not None and known.tried_at >= lease.expires:
        return lease.model_copy(update={"expired": True})
    return lease


def revocations(memory: Memory, attempt: AttemptStatus, now: datetime) -> Revocations:
    """The leases of an attempt that is over, and what is due for them."""
    attempt = followed(memory, attempt)
    when = {lease.accessor: _next_try(memory, lease, now) for lease in attempt.open_leases}
    due = tuple(lease for lease in attempt.open_leases if when[lease.accessor] <= now)
    later = tuple(moment for moment in when.values() if moment > now)
    return Revocations(attempt, (RevokeLeases(attempt.job, attempt.job_uid, due),) if due else (), later)


def _next_try(memory: Memory, lease: LeaseStatus, now: datetime) -> datetime:
    tried = memory.lease(lease.store, lease.accessor).tried_at
    if tried is None:
        return now
    # The last time is when the store has ended it by itself.
    return min(tried + REVOKE_AGAIN, max(lease.expires, tried + timedelta(seconds=1)))


def unused(memory: Memory, attempt: AttemptStatus) -> tuple[LeaseStatus, ...]:
    """Open leases of an attempt whose pod waits for its values: they are of an earlier try.

    Each is to be revoked once before the next try. If that does not succeed, it goes on at the end of the attempt.
    """
    found = followed(memory, attempt).open_leases
    return tuple(lease for lease in found if memory.lease(lease.store, lease.accessor).tried_at is None)


def too_many(attempt: AttemptStatus) -> Refusal | None:
    """Why an attempt gets no further leases: those that it had are not revoked, and all are kept on record."""
    left = len(attempt.open_leases)
    if left <= MOST_LEASES // 2:
        return None
    message = f"{left} leases of earlier tries are not revoked yet; see to the store, or cancel the run"
    return Refusal(Reason.REVOCATION_PENDING, f"Job {attempt.job}", message, permanent=False)


def with_leases(status: WorkflowRunStatus, job_uid: str, leases: Sequence[LeaseStatus]) -> WorkflowRunStatus:
    """``status`` with these logins of the attempt that has this Job, besides those that it tells of already.

    Of those that have ended without a pod having been given anything only the fact is of interest, and it is left out.
    """
    new = {lease.accessor for lease in leases}

    def changed(attempt: AttemptStatus) -> AttemptStatus:
        if attempt.job_uid != job_uid:
            return attempt
        before = [lease for lease in attempt.leases or () if lease.accessor not in new]
        ended = [lease for lease in before if not lease.open and lease.ids is not None]
        still_open = [lease for lease in before if lease.open]
        room = MOST_LEASES - len(still_open) - len(leases)
        return attempt.model_copy(update={"leases": [*ended[:room], *still_open, *leases]})

    tasks = [
        task.model_copy(update={"attempts": [changed(attempt) for attempt in task.attempts]})
        for task in status.tasks
    ]
    found = status.model_copy(update={"tasks": tasks})
    return found.model_copy(
        update={
            "live": status.live - status.leased + found.leased,
            "conditions": [_with_open(item) for item in status.conditions]
            if found.leased
            else status.conditions,
        }
    )


def _with_open(condition: Condition) -> Condition:
    if (condition.type, condition.reason) != ("SecretsReleased", "NotFinished"):
        return condition
    return condition.model_copy(update={"reason": "Live", "message": OPEN})


def told(memory: Memory, attempts: Iterable[AttemptStatus]) -> tuple[str, ...]:
    """Of each open lease that was to be revoked and is not: what is in the way."""
    return tuple(
        f"{_named(lease)}: {why}; it is tried again, and the store ends it by {to_seconds(lease.expires)}"
        for attempt in attempts
        for lease in attempt.open_leases
        if (why := memory.lease(lease.store, lease.accessor).why)
    )


def pending(obs: Observation) -> int:
    """How many open leases were to be revoked and are not."""
    attempts = (followed(obs.memory, item) for task in obs.run.status.tasks for item in task.attempts)
    found = (lease for attempt in attempts for lease in attempt.open_leases)
    return sum(bool(obs.memory.lease(lease.store, lease.accessor).why) for lease in found)


def lost(attempts: Iterable[AttemptStatus]) -> str:
    """Which leases have expired without the store having confirmed their end, in words; empty if none has."""
    found = [_named(lease) for attempt in attempts for lease in attempt.leases or () if lease.expired]
    return listed(found)


def in_deletion(obs: Observation, attempts: Iterable[AttemptStatus], now: datetime) -> WorkflowRunStatus:
    """The status of a run that is deleted and kept by a lease, with what is in the way of its revocation."""
    status, by_uid = obs.run.status, {attempt.job_uid: attempt for attempt in attempts}
    pending = told(obs.memory, by_uid.values())
    if not pending:
        return status
    condition = next_condition(
        status.conditions,
        "SecretsReleased",
        False,
        Reason.REVOCATION_PENDING.value,
        pending_message(pending),
        generation=obs.run.metadata.generation,
        now=now.replace(microsecond=0),
    )
    tasks = [
        task.model_copy(
            update={
                "attempts": [
                    item.model_copy(update={"leases": by_uid[item.job_uid].leases}) for item in task.attempts
                ]
            }
        )
        for task in status.tasks
    ]
    others = [item for item in status.conditions if item.type != condition.type]
    return status.model_copy(update={"tasks": tasks, "conditions": [*others, condition]})


def pending_message(pending: Sequence[str]) -> str:
    """What a condition says of leases that are not revoked."""
    return f"a lease is not revoked yet: {'; '.join(pending)}"


def _named(lease: LeaseStatus) -> str:
    return f"{', '.join(lease.ids or lease.paths)} of SecretStore {lease.store}"


def drop_finalizer(obs: Observation, attempts: Iterable[AttemptStatus]) -> tuple[Action, ...]:
    """The finalizer goes with the last open lease: it keeps the run only while its status is needed to revoke one."""
    if FINALIZER not in obs.run.metadata.finalizers or any(item.open_leases for item in attempts):
        return ()
    return (DropFinalizer(),)
