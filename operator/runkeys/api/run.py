"""WorkflowRun: tasks to run once, the secrets that each task needs, and the results."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from runkeys._text.documents import MAX_DEPTH, compact, is_too_deep
from runkeys.api.binding import DELIVERY, RELEASE_POLICY, SEALED_TEXT
from runkeys.api.common import (
    API_VERSION,
    OBJECT_NAME,
    ApiModel,
    CrdInfo,
    DocumentObject,
    ObjectMeta,
    PrinterColumn,
    cel,
    list_map,
)
from runkeys.api.run_status import WorkflowRunStatus

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
"""Maximum length of a sealed input in characters: a value of 64 KiB. Put longer values into a binding."""


MOST_GROUPS = 4096
"""Maximum number of groups of a requester. An identity provider's token with more groups hardly fits into a request."""


class Requester(ApiModel):
    """The user who created the object."""

    username: str = Field(description="User name, as the API server knows it.", min_length=1, max_length=512)
    groups: list[Annotated[str, Field(max_length=512)]] = Field(
        default_factory=list,
        description="Groups of the user when the object was created.",
        max_length=MOST_GROUPS,
    )


class BindingReference(ApiModel):
    """A SecretBinding in the run's namespace."""

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
        description="True selects the personal binding of the user who creates the run. Use it instead of name.",
    )


class TaskSecret(ApiModel):
    """A secret for the task, and the variable or file that holds its value."""

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
        description="Parameter name. The variable's name is SECRET_ followed by this name in upper case with"
        " underscores: api_token and apiToken give SECRET_API_TOKEN. To choose another name, set env.",
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
        description="Name of a field in the run's sealedInput. Use it instead of secret.",
        min_length=1,
        max_length=253,
    )
    env: str | None = Field(
        default=None,
        description="Exact name of the variable, in place of SECRET_*.",
        min_length=1,
        max_length=253,
        json_schema_extra=_ENV_NAME,
    )
    file: str | None = Field(
        default=None,
        description="Name of a file in /var/runtime/secrets that holds the value. No variable is set. Use a file"
        " for binary values and for values of several lines. The file is kept in memory only.",
        min_length=1,
        max_length=200,
        json_schema_extra=cel(
            (
                "self.matches('^[A-Za-z0-9_][-._A-Za-z0-9]*$')",
                "a file name may hold letters, digits, '-', '_' and '.', and may not begin with '-' or '.'",
            )
        ),
    )


class TaskInput(ApiModel):
    """A JSON document that the task can read in /var/runtime/input."""

    name: str = Field(
        description="Parameter name. The document is at /var/runtime/input/<name>.json.",
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
        description="Source of the document: input.<key> for a key of the run's input, tasks.<task>.output for the"
        " output of an earlier task.",
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
    """A volume with data, mounted below /var/runtime/datapool."""

    name: str = Field(
        description="Parameter name. The volume is mounted at /var/runtime/datapool/<name>.",
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
    read_only: bool = Field(default=False, description="True mounts the volume read-only.")


class ExitCodes(ApiModel):
    """The exit codes that a rule matches, as in batch/v1."""

    container_name: str | None = Field(
        default=None,
        description="Only exit codes of the container with this name count. Unset: those of the task's own containers"
        " (see containers); if none of these failed, those of others. Native sidecars count only if named.",
        min_length=1,
        max_length=63,
    )
    operator: str = Field(
        description="In: the exit code is one of values. NotIn: the exit code is none of values, and not 0.",
        json_schema_extra=cel(("self in ['In', 'NotIn']", "operator must be In or NotIn")),
    )
    values: list[Annotated[int, Field(ge=1, le=255)]] = Field(
        description="Exit codes.", min_length=1, max_length=255
    )


class FailureRule(ApiModel):
    """How a failed attempt with certain exit codes is counted."""

    action: str = Field(
        description="FailJob: the task fails without another attempt. Ignore: the attempt does not count towards"
        " backoffLimit, up to ten times, and is tried again after the same back-off. Count: the attempt counts, as"
        " without a rule.",
        json_schema_extra=cel(
            ("self in ['FailJob', 'Ignore', 'Count']", "action must be FailJob, Ignore or Count")
        ),
    )
    on_exit_codes: ExitCodes = Field(description="The exit codes that the rule matches.")


class FailurePolicy(ApiModel):
    """How failed attempts are counted by exit code. The exit code part of podFailurePolicy in batch/v1."""

    rules: list[FailureRule] = Field(
        description="Rules in order. The first rule that matches applies.", min_length=1, max_length=20
    )


class TaskEnvVar(ApiModel):
    """A plain environment variable. Not for secrets."""

    name: str = Field(
        description="Name of the variable.", min_length=1, max_length=253, json_schema_extra=_ENV_NAME
    )
    value: str = Field(default="", description="Value of the variable. Not for secrets.", max_length=32768)


class Task(ApiModel):
    """One step of a run: a pod and its secrets."""

    name: str = Field(
        description="Name of the task. It must be unique within the run.",
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
        description="The secrets of this task. A task gets only the secrets that are listed here.",
        max_length=64,
        json_schema_extra=list_map("name"),
    )
    depends_on: list[Annotated[str, Field(min_length=1, max_length=40)]] = Field(
        default_factory=list,
        description="Names of tasks that must succeed first. They must be listed above this task.",
        max_length=64,
    )
    runs: str = Field(
        default="OnSuccess",
        description="When the task starts. OnSuccess: when all tasks in dependsOn have succeeded, unless any task has"
        " failed. Always: when all tasks in dependsOn have finished, whatever their result, even if the run failed or"
        " was cancelled. An Always task without dependsOn starts when all tasks that are not Always have finished.",
        json_schema_extra=cel(("self in ['OnSuccess', 'Always']", "runs must be OnSuccess or Always")),
    )
    input: list[TaskInput] = Field(
        default_factory=list,
        description="JSON documents for the task, in /var/runtime/input.",
        max_length=32,
        json_schema_extra=list_map("name"),
    )
    data_pools: list[DataPool] = Field(
        default_factory=list,
        description="Volumes with data for the task, below /var/runtime/datapool.",
        max_length=16,
        json_schema_extra=list_map("name"),
    )
    record_output: bool = Field(
        default=False,
        description="True keeps the task's output in the run's status, for later tasks. The output is the JSON"
        " document that the task writes to /var/runtime/output/output.json in the first of its containers (see"
        f" containers). It may have at most 4095 bytes and {MAX_DEPTH} levels.",
    )
    backoff_limit: int = Field(
        default=0,
        description="How often the task is retried after a failure. Each attempt has a new pod and a new Secret."
        " Disruptions by the cluster, such as a drained node, an eviction or a pod that its node refuses, do not"
        " count, up to ten times.",
        ge=0,
        le=20,
    )
    pod_failure_policy: FailurePolicy | None = Field(
        default=None,
        description="Which exit codes end the task without another attempt, and which do not count.",
    )
    release_policy: str | None = Field(
        default=None,
        description="OnStart: the task's Secret is deleted once the containers have started, even if the bindings"
        " say OnCompletion. OnCompletion, or unset: as the bindings say.",
        json_schema_extra=RELEASE_POLICY,
    )
    delivery: str | None = Field(
        default=None,
        description="Sealed: the values reach the pod without ever being in a Secret, even if the bindings say Secret."
        " Secret, or unset: as the bindings say.",
        json_schema_extra=DELIVERY,
    )
    containers: list[Annotated[str, Field(min_length=1, max_length=63)]] = Field(
        default_factory=list,
        description="Names of the containers that get the secrets, env, input, output and data pools. Default: the"
        " first container.",
        max_length=16,
    )
    env: list[TaskEnvVar] = Field(
        default_factory=list,
        description="Plain environment variables for these containers.",
        max_length=128,
        json_schema_extra=list_map("name"),
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        description="Maximum time in seconds that the pod may be active. It counts from the pod's start on a node, so"
        " time in a queue does not count. For a task with secrets from bindings, the shortest maxLifetimeSeconds of"
        " these bindings is the default and the maximum.",
        ge=1,
        le=604800,
    )
    start_deadline_seconds: int = Field(
        default=900,
        description="If a container of the task does not start within this many seconds, the attempt fails and its"
        " Secret is deleted. The time counts from when the pod has a node, and again from the end of each init"
        " container. While an init container runs it does not count.",
        ge=1,
        le=604800,
    )
    template: DocumentObject = Field(
        description="PodTemplateSpec of the task's pod, as in a batch/v1 Job. restartPolicy is Never. The template may"
        f" have at most {MAX_DEPTH} levels.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )

    @property
    def secret_containers(self) -> list[str]:
        """Names of the containers that get the task's variables: ``containers``, else the first container."""
        if self.containers:
            return list(dict.fromkeys(self.containers))
        spec = self.template.get("spec")
        main = spec.get("containers") if isinstance(spec, dict) else None
        first = main[0] if isinstance(main, list) and main else None
        return [str(first.get("name", ""))] if isinstance(first, dict) else []


class WorkflowRunSpec(ApiModel):
    """Specification of a WorkflowRun.

    Only suspend, cancel and ttlSecondsAfterFinished can be changed after the run is created.
    """

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.serviceAccountName) == has(oldSelf.serviceAccountName) &&"
                " (!has(self.serviceAccountName) || self.serviceAccountName == oldSelf.serviceAccountName)",
                "serviceAccountName is immutable once a run exists: create a new run",
            ),
            (
                "has(self.bindings) == has(oldSelf.bindings) &&"
                " (!has(self.bindings) || self.bindings == oldSelf.bindings)",
                "bindings is immutable once a run exists: create a new run",
            ),
            ("self.tasks == oldSelf.tasks", "tasks is immutable once a run exists: create a new run"),
            (
                "has(self.input) == has(oldSelf.input) && (!has(self.input) || self.input == oldSelf.input)",
                "input is immutable once a run exists: create a new run",
            ),
            (
                "!has(self.sealedInput) || (has(oldSelf.sealedInput) && self.sealedInput == oldSelf.sealedInput)",
                "sealedInput is immutable once a run exists, and is removed when the run ends: create a new run",
            ),
            (
                "has(self.requester) == has(oldSelf.requester) &&"
                " (!has(self.requester) || self.requester == oldSelf.requester)",
                "requester is immutable once a run exists",
            ),
            (
                "has(self.activeDeadlineSeconds) == has(oldSelf.activeDeadlineSeconds) &&"
                " (!has(self.activeDeadlineSeconds) || self.activeDeadlineSeconds == oldSelf.activeDeadlineSeconds)",
                "activeDeadlineSeconds is immutable once a run exists: create a new run",
            ),
            (
                "!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",
                "cancel cannot be undone: create a new run",
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
        description="The SecretBindings with the tasks' secrets.",
        max_length=8,
    )
    input: DocumentObject = Field(
        default_factory=dict,
        description="A JSON document for the tasks. Each task names the parts it gets in its own input. Not for"
        f" secrets. The document may have at most {MAX_DEPTH} levels.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )
    sealed_input: dict[
        str, Annotated[str, Field(max_length=MAX_SEALED_INPUT, json_schema_extra=SEALED_TEXT)]
    ] = Field(
        default_factory=dict,
        description="Values that the requester provides with the run. Each is sealed for the namespace, the user and"
        " the field's name; `runkeys run` seals them. Tasks name them in `secrets: [{name, input}]`. They are removed"
        " from the run when it finishes.",
        max_length=32,
    )
    requester: Requester | None = Field(
        default=None,
        description="The user who creates the run. It is filled in and checked when the run is created. This user must"
        " have the right to use each of the bindings.",
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        description="If the run takes longer than this many seconds, it fails. Tasks with `runs: Always` still run"
        " then.",
        ge=1,
    )
    job_ttl_seconds_after_finished: int = Field(
        default=900,
        description="How many seconds a finished Job is kept, and with it the logs of its pod. Its Secret is deleted"
        " long before.",
        ge=60,
        le=604800,
    )
    suspend: bool = Field(
        default=False,
        description="True stops the running attempts, deletes the Secrets that were created for them, and starts"
        " nothing new. Stopped attempts do not count as failures. False continues the run with new attempts.",
    )
    cancel: bool = Field(
        default=False,
        description="True stops the tasks, deletes the Secrets that were created for them, and starts nothing new."
        " Tasks with runs: Always are an exception: they still run, with their own secrets. This cannot be undone.",
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        description="The run is deleted this many seconds after it finishes. Unset: the run is kept. Leave it unset"
        " for runs that GitOps applies, because GitOps would create them again. A change after the run has finished"
        " takes effect within ten minutes.",
        ge=0,
    )
    tasks: list[Task] = Field(
        description="The tasks. List each task below those that it depends on.",
        min_length=1,
        max_length=64,
        json_schema_extra=list_map("name"),
    )

    @cached_property
    def input_is_too_deep(self) -> bool:
        """Whether ``input`` was cut because it is nested too deeply."""
        return is_too_deep(self.input)

    @cached_property
    def input_sizes(self) -> dict[str, int]:
        """Length in characters of each key's JSON in ``input``. Cached: many tasks may use the same key many times."""
        return {key: len(compact(value)) for key, value in self.input.items()}


class WorkflowRun(ApiModel):
    """Tasks to run once. Each task has its secrets only for as long as it needs them."""

    CRD: ClassVar[CrdInfo] = CrdInfo(
        plural="workflowruns",
        singular="workflowrun",
        short_names=("wfr",),
        columns=(
            PrinterColumn("Phase", ".status.phase"),
            PrinterColumn("Tasks", ".status.tasksDone", description="Succeeded tasks, and all tasks"),
            PrinterColumn(
                "Live", ".status.live", type="integer", description="Secrets that may exist, and open leases"
            ),
            PrinterColumn("Exposed", ".status.exposed", description="Time that values were in the cluster"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Stalled')].reason", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", type="date"),
        ),
        # `kubectl get wfr --field-selector status.phase=Failed`; and the operator asks for what is open only.
        selectable=(".status.phase", ".status.live", ".spec.ttlSecondsAfterFinished"),
        root_rules=(
            (
                "size(self.metadata.name) <= 63",
                "metadata.name of a WorkflowRun may have at most 63 characters, because it is also the value of"
                " a label",
            ),
        ),
    )

    api_version: str = API_VERSION
    kind: str = "WorkflowRun"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: WorkflowRunSpec = Field(description="Desired state.")
    status: WorkflowRunStatus = Field(
        default_factory=WorkflowRunStatus,
        description="Observed state, written by the operator.",
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
