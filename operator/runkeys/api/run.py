"""WorkflowRun: tasks to run once, the secrets each of them needs, and what became of them."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from runkeys.api.binding import DELIVERY, RELEASE_POLICY, SEALED_TEXT
from runkeys.api.common import (
    API_VERSION,
    OBJECT_NAME,
    ApiModel,
    Condition,
    CrdInfo,
    Document,
    DocumentObject,
    MicroTime,
    ObjectMeta,
    PrinterColumn,
    StatusMessage,
    StatusModel,
    StatusReason,
    Time,
    cel,
    list_map,
)
from runkeys.documents import MAX_DEPTH, compact, is_too_deep

_ENV_NAME = cel(
    (
        "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
        "a variable name may hold letters, digits and underscores, and may not begin with a digit",
    ),
    (
        "self != 'PATH' && !self.startsWith('LD_') && !self.startsWith('KUBERNETES_')"
        " && !self.startsWith('PYTHON')",
        "PATH, LD_*, KUBERNETES_* and PYTHON* change what a program runs and cannot be set; choose another name",
    ),
)


MAX_SEALED_INPUT = 90_000
"""Characters of the longest sealed input: a value of 64 KiB. What is longer belongs into a binding."""


MOST_GROUPS = 4096
"""So many groups can whoever makes a run be in; an identity provider's token with more hardly fits into a request."""


class Requester(ApiModel):
    """Who made a run."""

    username: str = Field(description="User name, as the API server knows it.", min_length=1, max_length=512)
    groups: list[Annotated[str, Field(max_length=512)]] = Field(
        default_factory=list, description="Groups of the user, when the run was made.", max_length=MOST_GROUPS
    )


class BindingReference(ApiModel):
    """A SecretBinding of the run's namespace."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.name) != (has(self.personal) && self.personal)",
                "a binding is either named (name) or the requester's own (personal: true): give one of the two",
            )
        )
    )

    name: str | None = Field(
        default=None,
        description="Name of the SecretBinding.",
        min_length=1,
        max_length=253,
        json_schema_extra=OBJECT_NAME,
    )
    personal: bool | None = Field(
        default=None,
        description="The personal binding of whoever makes the run, instead of one by its name.",
    )


class TaskSecret(ApiModel):
    """A secret that a task asks for, and the variable or file that carries it."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.env) || !has(self.file)",
                "a secret is delivered either as a variable (env) or as a file: give one of the two, or none for"
                " SECRET_*",
            ),
            (
                "has(self.secret) != has(self.input)",
                "a secret comes either from a binding (secret) or from the run's sealedInput (input): give one of the"
                " two",
            ),
        )
    )

    name: str = Field(
        description="Parameter name. The variable is SECRET_ and this name in upper case with underscores"
        " (api_token and apiToken give SECRET_API_TOKEN), unless env says otherwise.",
        min_length=1,
        max_length=253,
    )
    secret: str | None = Field(
        default=None,
        description="Name of the entry in one of the run's bindings.",
        min_length=1,
        max_length=253,
    )
    input: str | None = Field(
        default=None,
        description="Name of the field of the run's sealedInput, instead of an entry of a binding.",
        min_length=1,
        max_length=253,
    )
    env: str | None = Field(
        default=None,
        description="Exact name of the variable, instead of SECRET_*.",
        min_length=1,
        max_length=253,
        json_schema_extra=_ENV_NAME,
    )
    file: str | None = Field(
        default=None,
        description="Name of a file in /var/runtime/secrets that carries the value instead of a variable: for"
        " values of several lines, or that are no text. It is kept in memory only.",
        min_length=1,
        max_length=200,
        json_schema_extra=cel(
            (
                "self.matches('^[A-Za-z0-9_][-._A-Za-z0-9]*$')",
                "a file name may hold letters, digits, '-', '_' and '.', and begins with none of '-' and '.'",
            )
        ),
    )


class TaskInput(ApiModel):
    """A JSON document that a task finds in /var/runtime/input."""

    name: str = Field(
        description="Name of the parameter: the task finds it as /var/runtime/input/<name>.json.",
        min_length=1,
        max_length=57,
        json_schema_extra=cel(
            (
                "self.matches('^[A-Za-z_][-_A-Za-z0-9]*$')",
                "a parameter name may hold letters, digits, '-' and '_', and begins with a letter or '_'",
            )
        ),
    )
    source: str = Field(
        alias="from",
        description="Where it comes from: input.<key> is a key of the run's input, tasks.<task>.output what an"
        " earlier task wrote.",
        min_length=1,
        max_length=320,
        json_schema_extra=cel(
            (
                "self.startsWith('input.') || (self.startsWith('tasks.') && self.endsWith('.output'))",
                "from must be input.<key> or tasks.<task>.output",
            )
        ),
    )


class DataPool(ApiModel):
    """A volume with data that a task finds in /var/runtime/datapool."""

    name: str = Field(
        description="Name of the parameter: the task finds it as /var/runtime/datapool/<name>.",
        min_length=1,
        max_length=40,
        json_schema_extra=cel(
            (
                "self.matches('^[A-Za-z0-9_][-_A-Za-z0-9]*$')",
                "a data pool's name may hold letters, digits, '-' and '_', and does not begin with '-'",
            )
        ),
    )
    persistent_volume_claim: str = Field(
        description="Name of a PersistentVolumeClaim in the run's namespace.",
        min_length=1,
        max_length=253,
        json_schema_extra=OBJECT_NAME,
    )
    read_only: bool = Field(default=False, description="Whether the task may only read it.")


class ExitCodes(ApiModel):
    """Which exit codes a rule is about, as in batch/v1."""

    container_name: str | None = Field(
        default=None,
        description="Only of the container of this name. Unset: of any container.",
        min_length=1,
        max_length=63,
    )
    operator: str = Field(
        description="In: one of values. NotIn: none of values, and not 0.",
        json_schema_extra=cel(("self in ['In', 'NotIn']", "operator must be In or NotIn")),
    )
    values: list[Annotated[int, Field(ge=1, le=255)]] = Field(
        description="Exit codes.", min_length=1, max_length=255
    )


class FailureRule(ApiModel):
    """What an attempt that failed with certain exit codes means."""

    action: str = Field(
        description="FailJob: the task fails, without a further attempt. Ignore: it does not count for backoffLimit,"
        " up to ten times. Count: it counts, as without a rule.",
        json_schema_extra=cel(
            ("self in ['FailJob', 'Ignore', 'Count']", "action must be FailJob, Ignore or Count")
        ),
    )
    on_exit_codes: ExitCodes = Field(description="Which exit codes the rule is about.")


class FailurePolicy(ApiModel):
    """What exit codes mean; the part of batch/v1 podFailurePolicy that is about them."""

    rules: list[FailureRule] = Field(
        description="The first rule that matches counts.", min_length=1, max_length=20
    )


class TaskEnvVar(ApiModel):
    """A plain variable, not secret."""

    name: str = Field(
        description="Name of the variable.", min_length=1, max_length=253, json_schema_extra=_ENV_NAME
    )
    value: str = Field(default="", description="Its value. Not for secrets.", max_length=32768)


class Task(ApiModel):
    """One step of a run: a pod, and the secrets that it needs."""

    name: str = Field(
        description="Name of the task, unique in the run.",
        min_length=1,
        max_length=40,
        json_schema_extra=cel(
            (
                "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                "a task name may hold lower-case letters, digits and hyphens, and begins and ends with a letter"
                " or digit",
            )
        ),
    )
    secrets: list[TaskSecret] = Field(
        default_factory=list,
        description="The secrets that this task gets: none unless listed.",
        max_length=64,
        json_schema_extra=list_map("name"),
    )
    depends_on: list[Annotated[str, Field(min_length=1, max_length=40)]] = Field(
        default_factory=list,
        description="Names of tasks further up in the list that have to succeed first.",
        max_length=64,
    )
    runs: str = Field(
        default="OnSuccess",
        description="OnSuccess: once all that it depends on has succeeded, unless a task has failed. Always: once"
        " all that it depends on is over, in whatever way, even if the run failed or was cancelled; without"
        " dependsOn once all tasks that are not Always are over.",
        json_schema_extra=cel(("self in ['OnSuccess', 'Always']", "runs must be OnSuccess or Always")),
    )
    input: list[TaskInput] = Field(
        default_factory=list,
        description="JSON documents that it finds in /var/runtime/input.",
        max_length=32,
        json_schema_extra=list_map("name"),
    )
    data_pools: list[DataPool] = Field(
        default_factory=list,
        description="Volumes with data that it finds in /var/runtime/datapool.",
        max_length=16,
        json_schema_extra=list_map("name"),
    )
    record_output: bool = Field(
        default=False,
        description="Whether the JSON document that its first container with secrets writes to"
        f" /var/runtime/output/output.json, at most 4095 bytes and {MAX_DEPTH} levels deep, is kept in the"
        " run's status, for later tasks.",
    )
    backoff_limit: int = Field(
        default=0,
        description="How often it is tried again after it failed, each time as a new pod with a new Secret. What"
        " the cluster did to it (a drained node, an eviction) does not count, up to ten times.",
        ge=0,
        le=20,
    )
    pod_failure_policy: FailurePolicy | None = Field(
        default=None,
        description="What exit codes mean: which are worth no further attempt, which do not count.",
    )
    release_policy: str | None = Field(
        default=None,
        description="OnStart takes the values away once the containers have started, even if the bindings would"
        " leave them until the end. OnCompletion, and unset: as the bindings say.",
        json_schema_extra=RELEASE_POLICY,
    )
    delivery: str | None = Field(
        default=None,
        description="Sealed asks for the values to be in the pod only and never in a Secret, even if the bindings would"
        " do with one. Secret, and unset: as the bindings say.",
        json_schema_extra=DELIVERY,
    )
    containers: list[Annotated[str, Field(min_length=1, max_length=63)]] = Field(
        default_factory=list,
        description="Names of the containers that get secrets, env, input, output and data pools. Default: the"
        " first container.",
        max_length=16,
    )
    env: list[TaskEnvVar] = Field(
        default_factory=list,
        description="Plain variables for the same containers.",
        max_length=128,
        json_schema_extra=list_map("name"),
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        description="Longest time in seconds that the pod may be active, counted from its start on a node, so"
        " that waiting in a queue does not count. Default and limit for a task with secrets: the shortest"
        " maxLifetimeSeconds of its bindings.",
        ge=1,
        le=604800,
    )
    start_deadline_seconds: int = Field(
        default=900,
        description="A pod that has a node but starts no container within this many seconds fails, and its"
        " secret goes.",
        ge=1,
        le=604800,
    )
    template: DocumentObject = Field(
        description="PodTemplateSpec of the task's pod, as in batch/v1 Job. restartPolicy is Never. At most"
        f" {MAX_DEPTH} levels deep.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )


class WorkflowRunSpec(ApiModel):
    """What is wanted of a WorkflowRun.

    Fixed once the run exists, but for suspend, cancel and ttlSecondsAfterFinished.
    """

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.serviceAccountName) == has(oldSelf.serviceAccountName) &&"
                " (!has(self.serviceAccountName) || self.serviceAccountName == oldSelf.serviceAccountName)",
                "serviceAccountName is immutable once a run exists: make a new run",
            ),
            (
                "has(self.bindings) == has(oldSelf.bindings) &&"
                " (!has(self.bindings) || self.bindings == oldSelf.bindings)",
                "bindings is immutable once a run exists: make a new run",
            ),
            ("self.tasks == oldSelf.tasks", "tasks is immutable once a run exists: make a new run"),
            (
                "has(self.input) == has(oldSelf.input) && (!has(self.input) || self.input == oldSelf.input)",
                "input is immutable once a run exists: make a new run",
            ),
            (
                "!has(self.sealedInput) || (has(oldSelf.sealedInput) && self.sealedInput == oldSelf.sealedInput)",
                "sealedInput is immutable once a run exists, and is taken out when it ends: make a new run",
            ),
            (
                "has(self.requester) == has(oldSelf.requester) &&"
                " (!has(self.requester) || self.requester == oldSelf.requester)",
                "requester is immutable once a run exists",
            ),
            (
                "has(self.activeDeadlineSeconds) == has(oldSelf.activeDeadlineSeconds) &&"
                " (!has(self.activeDeadlineSeconds) || self.activeDeadlineSeconds == oldSelf.activeDeadlineSeconds)",
                "activeDeadlineSeconds is immutable once a run exists: make a new run",
            ),
            (
                "!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",
                "cancel cannot be taken back: make a new run",
            ),
        )
    )

    service_account_name: str = Field(
        default="default",
        description="Service account of the pods.",
        min_length=1,
        max_length=253,
        json_schema_extra=OBJECT_NAME,
    )
    bindings: list[BindingReference] = Field(
        default_factory=list,
        description="The SecretBindings that the tasks' secrets are looked up in.",
        max_length=8,
    )
    input: DocumentObject = Field(
        default_factory=dict,
        description="A JSON document for the tasks, which take parts of it by their own input. Not for secrets. At"
        f" most {MAX_DEPTH} levels deep.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )
    sealed_input: dict[
        str, Annotated[str, Field(max_length=MAX_SEALED_INPUT, json_schema_extra=SEALED_TEXT)]
    ] = Field(
        default_factory=dict,
        description="Values that whoever makes the run brings along, each sealed for the namespace, the user and the"
        " field's name (runkeys run does it). Tasks ask for them by `secrets: [{name, input}]`. Taken out of the run"
        " when it ends.",
        max_length=32,
    )
    requester: Requester | None = Field(
        default=None,
        description="Who made the run: filled in, and checked, when it is made. It must be allowed to use each of the"
        " bindings.",
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        description="The whole run fails when it takes longer than this many seconds. Tasks that run Always still"
        " run then.",
        ge=1,
    )
    job_ttl_seconds_after_finished: int = Field(
        default=900,
        description="How many seconds a finished Job, and with it the logs of its pod, stays. Its Secret is long"
        " gone by then.",
        ge=60,
        le=604800,
    )
    suspend: bool = Field(
        default=False,
        description="Set to true to end what runs and take its secrets away, and to start nothing; what was ended"
        " so does not count as a failure. Set to false to go on with new attempts.",
    )
    cancel: bool = Field(
        default=False,
        description="Set to true to stop the run and take its secrets away. Cannot be taken back.",
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        description="The run is deleted this many seconds after it finished. Unset: it stays. Leave it unset"
        " for runs that GitOps applies, which would make them anew. Changed after the end, it is noticed within"
        " ten minutes.",
        ge=0,
    )
    tasks: list[Task] = Field(
        description="The tasks, each after those that it depends on.",
        min_length=1,
        max_length=64,
        json_schema_extra=list_map("name"),
    )

    @cached_property
    def input_is_too_deep(self) -> bool:
        """Whether ``input`` has been cut."""
        return is_too_deep(self.input)

    @cached_property
    def input_sizes(self) -> dict[str, int]:
        """Characters of the JSON of each part of ``input``. Many tasks may take the same one, and each many times."""
        return {key: len(compact(value)) for key, value in self.input.items()}


class Exposure(StatusModel):
    """A time during which the values of an attempt were in the cluster."""

    created: MicroTime = Field(
        description="When the Secret was made; from then the values were in the cluster."
    )
    deleted: MicroTime | None = Field(
        default=None, description="When the API server confirmed that it is gone. Unset: it may exist now."
    )
    estimated: bool = Field(
        default=False,
        description="True where the answer to a call was lost, so that the real time is shorter than this one.",
    )


class SealedDelivery(StatusModel):
    """How far the sealed delivery of an attempt has come; its values are in no Secret at any time."""

    request: str = Field(
        description="uid of the pod's PodCertificateRequest that is answered; no other one is.", max_length=64
    )
    delivered: Time | None = Field(default=None, description="When it was answered.")
    opened: Time | None = Field(default=None, description="When the pod had opened the answer.")


class AttemptStatus(StatusModel):
    """One attempt of a task: a Job of its own and, for a task with secrets, a Secret of the same name."""

    number: int = Field(description="1 for the first attempt.", ge=1)
    job: str = Field(description="Name of the Job, and of the Secret while it exists.", max_length=63)
    job_uid: str = Field(
        description="uid of the Job, by which its pods are known.", alias="jobUID", max_length=64
    )
    pod_uid: str | None = Field(
        # No default in the schema: in an upgrade the version before would find a field that it does not know.
        default=None,
        description="uid of its pod: the one that was given its values, or was seen first.",
        alias="podUID",
        max_length=64,
    )
    start_time: Time | None = Field(default=None, description="When its pod got a node.")
    end_time: Time | None = Field(default=None, description="When the attempt ended.")
    outcome: str = Field(
        default="",
        description="How it ended: Succeeded, Failed, Lost, Disrupted, Suspended or Cancelled. Failed and Lost count"
        " for backoffLimit.",
        max_length=32,
    )
    reason: StatusReason = Field(default="", description="Why it ended so, for programs.", max_length=1024)
    release_policy: str = Field(
        default="", description="When its values leave the cluster, as it was when they came.", max_length=32
    )
    sealed: SealedDelivery | None = Field(
        default=None, description="Of sealed delivery: which request was answered, and when."
    )
    exposures: list[Exposure] = Field(
        default_factory=list, description="When its values were in the cluster.", max_length=4
    )


class TaskStatus(StatusModel):
    """What became of a task."""

    name: str = Field(description="Name of the task.", max_length=40)
    state: str = Field(
        description="Pending, Waiting, Running, Succeeded, Failed, Skipped or Cancelled.", max_length=32
    )
    reason: StatusReason = Field(default="", description="Why, for programs.", max_length=1024)
    message: StatusMessage = Field(
        default="", description="Why and what to do, for people. Never a value.", max_length=4096
    )
    attempts: list[AttemptStatus] = Field(
        default_factory=list,
        description="Its attempts, in order.",
        max_length=128,
        json_schema_extra=list_map("number"),
    )
    output: Document = Field(
        default=None,
        description="The JSON document that it wrote, if recordOutput asks for it.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )


class WorkflowRunStatus(StatusModel):
    """What was found of a WorkflowRun."""

    observed_generation: int | None = Field(
        default=None, description="metadata.generation that this status was computed from."
    )
    phase: str | None = Field(
        default=None,
        description="Pending, Running, Suspended, Succeeded, Failed or Cancelled: a summary of the conditions for"
        " people.",
        max_length=32,
    )
    tasks_done: str | None = Field(
        default=None, description="Tasks that succeeded, of all, e.g. 2/3.", max_length=16
    )
    live: int = Field(default=0, description="How many Secrets of this run may exist now.")
    exposed: str | None = Field(
        default=None, description="How long values were in the cluster in all, e.g. 41.2s.", max_length=32
    )
    start_time: Time | None = Field(default=None, description="When the run was first acted on.")
    completion_time: Time | None = Field(default=None, description="When the run finished, in whatever way.")
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Authorized, SecretsReady, SecretsReleased, Complete, Failed, Reconciling, Stalled, InputUsed"
        " for a run with sealedInput, and RequestsRefused where a pod asked for a sealed delivery that it did not get.",
        max_length=16,
        json_schema_extra=list_map("type"),
    )
    tasks: list[TaskStatus] = Field(
        default_factory=list,
        description="What became of each task.",
        max_length=64,
        json_schema_extra=list_map("name"),
    )


class WorkflowRun(ApiModel):
    """Tasks to run once, with the secrets that each of them needs, for as long as it needs them."""

    CRD: ClassVar[CrdInfo] = CrdInfo(
        plural="workflowruns",
        singular="workflowrun",
        short_names=("wfr",),
        columns=(
            PrinterColumn("Phase", ".status.phase"),
            PrinterColumn("Tasks", ".status.tasksDone", description="Tasks that succeeded, of all"),
            PrinterColumn("Live", ".status.live", type="integer", description="Secrets that may exist now"),
            PrinterColumn("Exposed", ".status.exposed", description="Time that values were in the cluster"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Stalled')].reason", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", type="date"),
        ),
        # `kubectl get wfr --field-selector status.phase=Failed`; and the operator asks for what is open only.
        selectable=(".status.phase", ".status.live", ".spec.ttlSecondsAfterFinished"),
        root_rules=(
            (
                "size(self.metadata.name) <= 63",
                "metadata.name of a WorkflowRun may have at most 63 characters, since it is the value of a label",
            ),
        ),
    )

    api_version: str = API_VERSION
    kind: str = "WorkflowRun"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: WorkflowRunSpec = Field(description="What is wanted.")
    status: WorkflowRunStatus = Field(
        default_factory=WorkflowRunStatus,
        description="What was found; written by the operator.",
        json_schema_extra={"default": {"observedGeneration": -1}},
    )

    @property
    def key(self) -> str:
        """``namespace/name``, for messages."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> WorkflowRun:
        """Read an object as the API server sends it."""
        return cls.model_validate(raw)
