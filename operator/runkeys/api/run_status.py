"""The status of a WorkflowRun: what the operator reports."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from runkeys.api.common import Document, MicroTime, StatusMessage, StatusModel, StatusReason, Time, list_map
from runkeys.api.conditions import Condition

FINAL_PHASES = ("Succeeded", "Failed", "Cancelled")
"""Of a run that has finished."""


class Exposure(StatusModel):
    """A period in which the values of an attempt were in the cluster."""

    created: MicroTime = Field(
        description="When the Secret was created. From then on the values were in the cluster."
    )
    deleted: MicroTime | None = Field(
        default=None,
        description="When the API server confirmed that the Secret is deleted. Unset: it may still exist.",
    )
    estimated: bool = Field(
        default=False,
        description="True if the exact time of creation is not known, so that the real period is shorter than this one:"
        " while the Secret may exist, and afterwards if the answer to a request was lost.",
    )


class SealedDelivery(StatusModel):
    """Progress of an attempt's sealed delivery. Its values are never in a Secret."""

    request: str = Field(
        description="uid of the pod's PodCertificateRequest that gets the values. No other request gets them.",
        max_length=64,
    )
    delivered: Time | None = Field(default=None, description="When the request was answered.")
    opened: Time | None = Field(default=None, description="When the pod had unsealed the values.")


MOST_LEASES = 32
"""Limit on the logins that an attempt has on record, and on the credentials of each."""


class LeaseStatus(StatusModel):
    """A login in a SecretStore that created credentials for an attempt. It never contains a value or a token.

    It is on record before any credential is created, so that it can be revoked whatever happens.
    """

    store: str = Field(description="Name of the SecretStore.", max_length=253)
    role: str = Field(
        description="Role in the store that the pod's service account logged in with.", max_length=128
    )
    accessor: str = Field(
        description="Names the login in the store and its audit log. It opens nothing.", max_length=1024
    )
    paths: list[Annotated[str, Field(max_length=512)]] = Field(
        description="Paths that were read. Each gives a credential of its own.", max_length=MOST_LEASES
    )
    ids: list[Annotated[str, Field(max_length=2048)]] | None = Field(
        default=None,
        description="The store's names of the credentials, once they are created. Unset: no pod was given any.",
        max_length=MOST_LEASES,
    )
    expires: Time = Field(description="When the store ends the credentials at the latest, by itself.")
    revoked: Time | None = Field(
        default=None,
        description="When the store was seen to have none of the credentials any more. Unset: they may still work.",
    )
    expired: bool | None = Field(
        default=None,
        description="True if the store did not confirm the end of the credentials by the time in expires.",
    )

    @property
    def open(self) -> bool:
        """Whether a credential may still work."""
        return self.revoked is None and not self.expired


class AttemptStatus(StatusModel):
    """One attempt of a task: its own Job and, for a task with secrets, a Secret of the same name."""

    number: int = Field(description="1 for the first attempt.", ge=1)
    job: str = Field(description="Name of the Job, and of the Secret while it exists.", max_length=63)
    job_uid: str = Field(
        description="uid of the Job. It identifies the Job's pods.", alias="jobUID", max_length=64
    )
    pod_uid: str | None = Field(
        # No default in the schema: in an upgrade the version before would find a field that it does not know.
        default=None,
        description="uid of the attempt's pod: the pod that got the values, or the first pod seen.",
        alias="podUID",
        max_length=64,
    )
    start_time: Time | None = Field(default=None, description="When the pod was assigned to a node.")
    end_time: Time | None = Field(default=None, description="When the attempt ended.")
    outcome: str = Field(
        default="",
        description="Result of the attempt: Succeeded, Failed, Lost, Disrupted, Suspended or Cancelled. Failed and"
        " Lost count towards backoffLimit.",
        max_length=32,
    )
    reason: StatusReason = Field(
        default="", description="Reason for the outcome, for programs.", max_length=1024
    )
    message: StatusMessage | None = Field(
        default=None,
        description="Reason for the outcome, for people. It never contains a secret's value.",
        max_length=4096,
    )
    release_policy: str = Field(
        default="",
        description="Release policy in effect when the values were delivered.",
        max_length=32,
    )
    unsealer: str | None = Field(
        # No default in the schema, as above.
        default=None,
        description="For sealed delivery only: the image of the init container that the Job was created with.",
        max_length=1024,
    )
    sealed: SealedDelivery | None = Field(
        default=None,
        description="For sealed delivery only: the request that gets the values, and its progress.",
    )
    exposures: list[Exposure] = Field(
        default_factory=list,
        description="Periods in which the attempt's values were in the cluster.",
        max_length=4,
    )
    leases: list[LeaseStatus] | None = Field(
        # No default in the schema, as above.
        default=None,
        description="Logins with which credentials were created for this attempt alone. They are revoked when its"
        " containers have terminated.",
        max_length=MOST_LEASES,
    )

    @property
    def open_leases(self) -> list[LeaseStatus]:
        """Those of which a credential may still work."""
        return [lease for lease in self.leases or () if lease.open]


class TaskStatus(StatusModel):
    """State of a task."""

    name: str = Field(description="Name of the task.", max_length=40)
    state: str = Field(
        description="Pending, Waiting, Running, Succeeded, Failed, Skipped or Cancelled.", max_length=32
    )
    reason: StatusReason = Field(
        default="", description="Reason for the state, for programs.", max_length=1024
    )
    message: StatusMessage = Field(
        default="",
        description="Reason for the state and what to do, for people. It never contains a secret's value.",
        max_length=4096,
    )
    attempts: list[AttemptStatus] = Field(
        default_factory=list,
        description="Attempts of the task, in order.",
        max_length=128,
        json_schema_extra=list_map("number"),
    )
    output: Document = Field(
        default=None,
        description="The JSON document that the task wrote, if recordOutput is true.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )


class WorkflowRunStatus(StatusModel):
    """Observed state of a WorkflowRun."""

    observed_generation: int | None = Field(
        default=None, description="metadata.generation that this status was computed from."
    )
    phase: str | None = Field(
        default=None,
        description="Summary of the conditions for people: Pending, Running, Suspended, Succeeded, Failed or"
        " Cancelled.",
        max_length=32,
    )
    tasks_done: str | None = Field(
        default=None,
        description="Number of tasks that succeeded, and of all tasks, e.g. 2/3.",
        max_length=16,
    )
    live: int = Field(
        default=0,
        description="Number of this run's Secrets that may exist, and of its leases that are open, now.",
    )
    exposed: str | None = Field(
        default=None,
        description="Total time that values were in the cluster, e.g. 41.2s.",
        max_length=32,
    )
    start_time: Time | None = Field(default=None, description="When the operator first acted on the run.")
    completion_time: Time | None = Field(
        default=None, description="When the run finished, whatever its result."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Condition types: Authorized, SecretsReady, SecretsReleased, Complete, Failed, Reconciling and"
        " Stalled. A run with sealedInput also has InputUsed. RequestsRefused is added when a pod's request for sealed"
        " delivery was refused. It is False once the run has succeeded.",
        max_length=16,
        json_schema_extra=list_map("type"),
    )
    tasks: list[TaskStatus] = Field(
        default_factory=list,
        description="State of each task.",
        max_length=64,
        json_schema_extra=list_map("name"),
    )

    @property
    def leased(self) -> int:
        """How many leases are open."""
        return sum(len(attempt.open_leases) for task in self.tasks for attempt in task.attempts)

    @property
    def finished(self) -> bool:
        """Whether nothing follows this status; of a phase that a later version wrote the time tells."""
        return self.phase in FINAL_PHASES or self.completion_time is not None
