"""What one process remembers of a run, and the fold: how the answer to an action changes that.

Pure. The operator, local runs and the tests' model of the world all use these functions, so that the random histories
of the tests test the operator's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from runkeys.planning.refusal import Reason, Refusal


@dataclass(frozen=True, slots=True)
class SecretMemory:
    """What this process knows of one attempt's Secret beyond what the status says.

    :ivar made_at: when the server confirmed that it exists.
    :ivar estimated: a request to create it was never answered, in this process or an earlier one. So it may have
        been created before ``made_at``, and that request may still arrive.
    :ivar gone_at: when the server confirmed its deletion.
    :ivar held_by: finalizers that keep it although it was deleted.
    :ivar last_delete: when its deletion was last requested.
    :ivar absent_at: when it was looked for and not there.
    :ivar void: it arrived so late that its lease had been revoked by then.
    """

    made_at: datetime | None = None
    estimated: bool = False
    gone_at: datetime | None = None
    held_by: tuple[str, ...] = ()
    last_delete: datetime | None = None
    absent_at: datetime | None = None
    void: bool = False


@dataclass(frozen=True, slots=True)
class LeaseMemory:
    """What this process knows of one lease beyond what the status says.

    :ivar tried_at: when its revocation was last requested. :ivar why: what was in the way, in words.
    :ivar revoked_at: when the store was seen not to have it any more.
    """

    tried_at: datetime | None = None
    why: str = ""
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a request and its time, so that the request is not repeated at once."""

    at: datetime
    refusal: Refusal | None


UNANSWERED_FOR = timedelta(seconds=10)
"""A request that fails for this long is reported. Until then it is retried: short trouble is not worth reporting."""

_STALE_AFTER = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Failing:
    """A request that keeps failing with an error that may be temporary.

    :ivar since: when it was first sent. :ivar last: when it last failed. :ivar refusal: the first error.
    """

    since: datetime
    last: datetime
    refusal: Refusal

    def again(self, since: datetime, now: datetime, refusal: Refusal) -> Failing:
        """Record one more failure. The refusal stays the first one, so that it is reported once."""
        if self.last + _STALE_AFTER <= since:
            return Failing(since, now, refusal)
        return replace(self, last=now)

    def told(self, now: datetime) -> Refusal | None:
        """Return the refusal to report; None if it is too early or too old."""
        long = self.since + UNANSWERED_FOR <= now
        return self.refusal if long and now < self.last + _STALE_AFTER else None


@dataclass(frozen=True, slots=True)
class TaskMemory:
    """What was found about one task.

    :ivar sources: why its values could not be read when its Secret was due.
    :ivar refused: why the server refused to create its Job or Secret.
    :ivar waiting: why its Job has no pod with a node.
    :ivar failing: the request for its Job, or for the sources of its secrets, keeps failing.
    """

    sources: Finding | None = None
    refused: Finding | None = None
    waiting: Finding | None = None
    failing: Failing | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process remembers of a run. If a crash loses it, times are less exact, nothing else.

    :ivar jobs_made: uids of Jobs whose creation the server confirmed to this process.
    :ivar secrets: by uid of the Job.
    :ivar sources: the last check, before anything starts, whether the values of all tasks can be read.
    :ivar tasks: by name of the task.
    :ivar stale_since: since when the stored status differs from the one that is due; None: it does not.
    :ivar leases: by store and accessor.
    """

    jobs_made: frozenset[str] = frozenset()
    secrets: Mapping[str, SecretMemory] = field(default_factory=dict)
    sources: Finding | None = None
    tasks: Mapping[str, TaskMemory] = field(default_factory=dict)
    stale_since: datetime | None = None
    leases: Mapping[tuple[str, str], LeaseMemory] = field(default_factory=dict)

    def of(self, job_uid: str) -> SecretMemory:
        """Return what is known of the Secret of the Job with this uid."""
        return self.secrets.get(job_uid, SecretMemory())

    def lease(self, store: str, accessor: str) -> LeaseMemory:
        """Return what is known of the lease that was created with this login."""
        return self.leases.get((store, accessor), LeaseMemory())

    def about(self, task: str) -> TaskMemory:
        """Return what was found about the task of this name."""
        return self.tasks.get(task, TaskMemory())


# the fold


def sources_checked(memory: Memory, at: datetime, refusal: Refusal | None) -> Memory:
    """The values of all tasks were checked before anything starts. ``refusal``: why one cannot be read, or None."""
    return replace(memory, sources=Finding(at, refusal))


def job_created(memory: Memory, task: str, job_uid: str) -> Memory:
    """The server confirmed that it created this Job for the task."""
    return _with_task(
        replace(memory, jobs_made=memory.jobs_made | {job_uid}),
        task,
        replace(memory.about(task), refused=None),
    )


def creation_refused(memory: Memory, task: str, at: datetime, refusal: Refusal) -> Memory:
    """The server refused to create the task's Job or Secret."""
    return _with_task(memory, task, replace(memory.about(task), refused=Finding(at, refusal)))


def values_refused(memory: Memory, task: str, at: datetime, refusal: Refusal) -> Memory:
    """The task's values could not be read when a pod waited for them."""
    return _with_task(memory, task, replace(memory.about(task), sources=Finding(at, refusal)))


def diagnosed(memory: Memory, task: str, at: datetime, refusal: Refusal | None) -> Memory:
    """The operator diagnosed why the task's Job has no pod with a node. None: no reason was found."""
    return _with_task(memory, task, replace(memory.about(task), waiting=Finding(at, refusal)))


def request_failed(memory: Memory, task: str, asked: datetime, now: datetime, refusal: Refusal) -> Memory:
    """A request for the task, sent at ``asked``, failed with an error that may be temporary."""
    before = memory.about(task).failing or Failing(asked, now, refusal)
    return _with_task(memory, task, replace(memory.about(task), failing=before.again(asked, now, refusal)))


def request_answered(memory: Memory, task: str) -> Memory:
    """A request for the task was answered, by success or refusal: it no longer fails."""
    found = memory.about(task)
    return memory if found.failing is None else _with_task(memory, task, replace(found, failing=None))


def secret_created(memory: Memory, job_uid: str, asked: datetime, *, certain: bool) -> Memory:
    """The server confirmed that the Secret of this Job exists.

    :param asked: when the request was sent.
    :param certain: this request created it. Otherwise an earlier one that was never answered may have.
    """
    return _with_secret(memory, job_uid, replace(memory.of(job_uid), made_at=asked, estimated=not certain))


def secret_gone(memory: Memory, job_uid: str, at: datetime) -> Memory:
    """The server confirmed that the Secret of this Job does not exist. The time of the first confirmation counts."""
    secret = memory.of(job_uid)
    gone = replace(secret, gone_at=secret.gone_at or at, held_by=(), last_delete=at)
    return _with_secret(memory, job_uid, gone)


def secret_held(memory: Memory, job_uid: str, at: datetime, finalizers: tuple[str, ...]) -> Memory:
    """The Secret of this Job was deleted, but these finalizers keep it."""
    held = replace(memory.of(job_uid), gone_at=None, held_by=finalizers, last_delete=at)
    return _with_secret(memory, job_uid, held)


def secret_absent(memory: Memory, job_uid: str, at: datetime) -> Memory:
    """The server had no Secret of this Job when it was asked."""
    return _with_secret(memory, job_uid, replace(memory.of(job_uid), absent_at=at))


def secret_void(memory: Memory, job_uid: str) -> Memory:
    """The Secret of this Job holds a credential that was revoked before it arrived."""
    return _with_secret(memory, job_uid, replace(memory.of(job_uid), void=True))


def lease_revoked(memory: Memory, store: str, accessor: str, at: datetime) -> Memory:
    """The store was seen to have nothing of this lease any more."""
    return _with_lease(memory, (store, accessor), LeaseMemory(tried_at=at, revoked_at=at))


def lease_pending(memory: Memory, store: str, accessor: str, at: datetime, why: str) -> Memory:
    """The lease was to be revoked, and may still be open."""
    return _with_lease(memory, (store, accessor), LeaseMemory(tried_at=at, why=why))


def note_staleness(memory: Memory, now: datetime, *, stale: bool) -> Memory:
    """Note whether the stored status differs from the one that is due. The first time of a difference stays."""
    since = (memory.stale_since or now) if stale else None
    return memory if since == memory.stale_since else replace(memory, stale_since=since)


def was_refused(memory: Memory, reason: Reason) -> bool:
    """Whether the last attempt to create or read something for a task was refused for this reason."""
    findings = (finding for task in memory.tasks.values() for finding in (task.sources, task.refused))
    return any(
        item is not None and item.refusal is not None and item.refusal.reason is reason for item in findings
    )


def _with_task(memory: Memory, task: str, found: TaskMemory) -> Memory:
    return replace(memory, tasks={**memory.tasks, task: found})


def _with_secret(memory: Memory, job_uid: str, secret: SecretMemory) -> Memory:
    return replace(memory, secrets={**memory.secrets, job_uid: secret})


def _with_lease(memory: Memory, key: tuple[str, str], lease: LeaseMemory) -> Memory:
    return replace(memory, leases={**memory.leases, key: lease})
