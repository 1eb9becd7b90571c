"""The actions :func:`runkeys.planning.plan.plan` can return. Plain data; none holds a secret's value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runkeys.api import LeaseStatus, WorkflowRunStatus
from runkeys.planning.observation import RequestView
from runkeys.planning.requirements import PodIdentity, SecretReference


@dataclass(frozen=True)
class Refresh:
    """Read the run, its bindings and its waiting pods by name: what follows must not trust a cache."""


@dataclass(frozen=True)
class CheckSources:
    """Check that every value can be read, before anything starts. Keeps no value."""

    references: tuple[SecretReference, ...]


@dataclass(frozen=True)
class CreateJob:
    """Create the Job of an attempt of a task."""

    task: str
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class DeleteJob:
    """Delete the Job with this uid, and its pods with it."""

    name: str
    uid: str


@dataclass(frozen=True)
class PatchStatus:
    """Write the status, if nobody changed the run since it was read."""

    status: WorkflowRunStatus


@dataclass(frozen=True)
class Leasing:
    """What comes before a value with a lease is read.

    :ivar record: the status to which the logins are added, and which is written before anything is created with them.
    :ivar seconds: how long the credentials have to live.
    """

    job_uid: str
    seconds: int
    record: WorkflowRunStatus | None = None


@dataclass(frozen=True)
class EnsureSecret:
    """Read the values, write the intent, create the Secret, owned by the Job of the same name.

    In this order: if a value cannot be read, no intent is written; no Secret is created without an intent on
    record. It is no error if the Secret exists already.

    :ivar task: name of the task whose attempt gets the Secret.
    :ivar manifest: the Secret without ``data``.
    :ivar intent: the status that says that the Secret may exist; None if the stored one says so already.
    :ivar pod: whose values they are.
    :ivar leasing: None: no value needs a lease.
    """

    task: str
    name: str
    job_uid: str
    manifest: Mapping[str, Any]
    references: tuple[SecretReference, ...]
    intent: WorkflowRunStatus | None
    pod: PodIdentity
    leasing: Leasing | None = None


@dataclass(frozen=True)
class Deliver:
    """Read the values, write the intent, answer the pod's request with the values sealed to its key.

    As with a Secret: without a value there is no intent, and without an intent on record no answer. A request can be
    answered once, which the API server sees to.
    """

    task: str
    job_name: str
    request: RequestView
    references: tuple[SecretReference, ...]
    intent: WorkflowRunStatus | None
    pod: PodIdentity
    leasing: Leasing | None = None


@dataclass(frozen=True)
class LookForSecret:
    """Find out whether the Secret of an attempt exists. Its request may have been carried out and never answered.

    :ivar manifest: the Secret without ``data``.
    """

    name: str
    job_uid: str
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class RevokeLeases:
    """Revoke leases of an attempt, and ask the store whether it has none of them any more."""

    job_name: str
    job_uid: str
    leases: tuple[LeaseStatus, ...]


@dataclass(frozen=True)
class DropFinalizer:
    """Remove the run's finalizer: no lease of it is open."""


@dataclass(frozen=True)
class AnswerEmpty:
    """Answer a pod's request with a certificate that holds nothing, so that its kubelet goes on with the pod."""

    request: RequestView


@dataclass(frozen=True)
class DenyRequest:
    """Deny a request. This is final."""

    request: RequestView
    message: str


@dataclass(frozen=True)
class DeleteRequest:
    """Delete a request that is no longer needed, and with it the sealed values."""

    request: RequestView


@dataclass(frozen=True)
class DeleteSecret:
    """Delete the Secret of an attempt. It is no error if it is absent already."""

    name: str
    job_uid: str


@dataclass(frozen=True)
class Diagnose:
    """Find out why a task's Job has no pod with a node: quota, Pod Security, no room."""

    task: str
    job_name: str
    job_uid: str


@dataclass(frozen=True)
class PurgeInput:
    """Remove the sealed input from a run that starts nothing more."""


@dataclass(frozen=True)
class DeleteRun:
    """Delete the run: its time to live has passed."""

    uid: str


Action = (
    Refresh
    | CheckSources
    | CreateJob
    | DeleteJob
    | PatchStatus
    | EnsureSecret
    | Deliver
    | LookForSecret
    | RevokeLeases
    | DropFinalizer
    | AnswerEmpty
    | DenyRequest
    | DeleteRequest
    | DeleteSecret
    | Diagnose
    | PurgeInput
    | DeleteRun
)


@dataclass(frozen=True)
class Plan:
    """Actions to take now, in this order, and when to look again even if nothing happens.

    After the actions the observation has changed, and the plan is made anew, until there is nothing to do.

    :ivar status: the due status, whether or not it is worth a write yet.
    :ivar stale: the stored status differs from it.
    :ivar look_again: seconds from now; None: only when something happens.
    :ivar settled: the run has ended and nothing that it made needs a look any more, whatever comes; only its
        own time to live may still be waited for.
    """

    actions: tuple[Action, ...]
    status: WorkflowRunStatus | None
    stale: bool = False
    look_again: float | None = None
    settled: bool = False
