"""SecretBinding: the secrets of a namespace, their sources, and the runs that may use them."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from runkeys._text.templates import LONGEST
from runkeys.api.common import (
    API_VERSION,
    OBJECT_NAME,
    ApiModel,
    CrdInfo,
    LabelSelector,
    ObjectMeta,
    PrinterColumn,
    StatusMessage,
    StatusModel,
    StatusReason,
    cel,
    list_map,
)
from runkeys.api.conditions import Condition
from runkeys.api.store import STORE_PATH, STORE_ROLE
from runkeys.api.structural import VALIDATIONS

ON_COMPLETION = "OnCompletion"
ON_START = "OnStart"

RELEASE_POLICY = cel(
    ("self in ['OnCompletion', 'OnStart']", "releasePolicy must be OnCompletion or OnStart"),
)


SECRET, SEALED = "Secret", "Sealed"

DELIVERY = cel(("self in ['Secret', 'Sealed']", "delivery must be Secret or Sealed"))


class SecretKeySelector(ApiModel):
    """One key of an existing Secret in the binding's namespace."""

    name: str = Field(
        description="Name of the Secret. Its namespace must grant the operator `get` on this Secret by name.",
        min_length=1,
        max_length=253,
        json_schema_extra=OBJECT_NAME,
    )
    key: str = Field(description="Key in the Secret's data.", min_length=1, max_length=253)


_ENGINE_PATH: dict[str, Any] = {
    VALIDATIONS: [
        *STORE_PATH[VALIDATIONS],
        *cel(
            (
                "!self.matches('^(auth|sys|identity|cubbyhole|v1)(/|$)')",
                "path must be one of a secrets engine, without /v1/ before it: auth, sys, identity and cubbyhole hold"
                " none for pods",
            )
        )[VALIDATIONS],
    ]
}


class StoreFieldSelector(ApiModel):
    """One field of what a SecretStore answers for a path."""

    store: str = Field(
        description="Name of the SecretStore. The user who writes this entry must have the right to use the store.",
        min_length=1,
        max_length=253,
        json_schema_extra=OBJECT_NAME,
    )
    role: str | None = Field(
        default=None,
        description="Role in the store. The pod's service account logs in with it. Required for Vault and OpenBao. For"
        " a cloud's store it is what stands for {{ role }} in the store's parameters, if they have it.",
        min_length=1,
        max_length=128,
        json_schema_extra=STORE_ROLE,
    )
    path: str = Field(
        description="Path that is read, as the store's HTTP API spells it without /v1/. In a KV engine of version 2 it"
        " has data/ after the mount, e.g. kv/data/team-a/api. In a cloud's store it is the name of the object.",
        min_length=1,
        max_length=512,
        json_schema_extra=_ENGINE_PATH,
    )
    field: str | None = Field(
        default=None,
        description="Field of the answer's data, e.g. password. Required for Vault and OpenBao. For a cloud's store it"
        " is a key of the object's content, which must be JSON then; unset, the value is the whole content.",
        min_length=1,
        max_length=253,
    )


SEALED_TEXT = cel(
    (
        "self.startsWith('rk1.')",
        "a sealed value begins with rk1.; this one does not, and may be a secret in the clear: seal it with"
        " runkeys seal",
    )
)
"""Refuses values that are not sealed, without repeating them. Only the operator can tell whether a value opens."""

MAX_SEALED = 701_000
"""Maximum length of a sealed value in characters."""

MAX_ENTRIES = 512
"""More would not fit into an object anyway: each sealed entry has at least 1,600 characters."""

TEMPLATE = cel(
    (
        "self.contains('{{')",
        "a template refers to other entries, as in {{ db-password }}; this one refers to none, and may be a secret in"
        " the clear",
    ),
    (
        "self.matches('^([^{]|[{][^{]|[{][{][^}]+[}][}])*[{]?$')",
        'each {{ of a template needs a name and }}; write {{ "{{" }} for a literal {{',
    ),
)
"""Cheap enough for every entry of the longest binding. :mod:`runkeys._text.templates` is exact."""

STRICT, NAMESPACE = "Strict", "Namespace"

PERSONAL_SCOPE = (
    "scope: Namespace is for shared bindings; a value of a personal binding is for its owner, whatever the binding's"
    " name: leave scope out"
)


class BindingEntry(ApiModel):
    """One secret of the binding, under the name that tasks use."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "[has(self.secretKeyRef), has(self.sealed), has(self.value), has(self.lease), has(self.template)]"
                ".exists_one(s, s)",
                "an entry has exactly one source: give secretKeyRef, sealed, value, lease or template",
            ),
            (
                "!has(self.scope) || has(self.sealed)",
                "scope applies only to a sealed value: give sealed, or leave scope out",
            ),
        )
    )

    name: str = Field(
        description="Name that tasks use for this secret. It can be any text and need not be a Kubernetes name.",
        min_length=1,
        max_length=253,
    )
    secret_key_ref: SecretKeySelector | None = Field(
        default=None,
        description="Takes the value from a key of an existing Secret in this namespace. It is read when a pod needs"
        " it.",
    )
    sealed: str | None = Field(
        default=None,
        description="The value, sealed with this cluster's public key by `runkeys seal`. It is safe in Git: it opens"
        " only in this cluster, and only where scope says.",
        max_length=MAX_SEALED,
        json_schema_extra=SEALED_TEXT,
    )
    value: StoreFieldSelector | None = Field(
        default=None,
        description="Takes the value from a SecretStore. It is read for each pod, as the pod's service account, when"
        " the pod has a node.",
    )
    lease: StoreFieldSelector | None = Field(
        default=None,
        description="Takes the value from a credential that a SecretStore creates for this pod alone, such as a user of"
        " a database. It is revoked when the pod's containers have terminated. Entries with the same store, role and"
        " path share one credential.",
    )
    template: str | None = Field(
        default=None,
        description="Makes the value from other entries of this binding, e.g."
        " postgresql://{{ db-user | url }}:{{ db-password | url }}@db/app. {{ name }} stands for the value of an entry,"
        " {{ name | url }}, {{ name | json }} and {{ name | base64 }} for the value in that encoding; json includes the"
        " quotes. {{ a:b | base64 }} joins two values with a colon, as basic authentication does. An entry that is a"
        ' template itself cannot be referred to. {{ "{{" }} is a literal {{. The text of the template is not secret.',
        max_length=LONGEST,
        json_schema_extra=TEMPLATE,
    )
    scope: str | None = Field(
        default=None,
        description="What the sealed value is bound to. It must be the scope that the value was sealed with. Strict, or"
        " unset: the namespace, this binding and the entry's name. Namespace: the namespace and the entry's name, for"
        " tools that rename bindings; a user who writes such an entry must have the right to use all bindings of the"
        " namespace. In a personal binding, a value is always bound to the namespace, the owner and the entry's name.",
        json_schema_extra=cel(("self in ['Strict', 'Namespace']", "scope must be Strict or Namespace")),
    )

    @property
    def source(self) -> str:
        """Name of the field that says where the value comes from."""
        if self.secret_key_ref is not None:
            return "secretKeyRef"
        if self.value is not None:
            return "value"
        if self.template is not None:
            return "template"
        return "lease" if self.lease is not None else "sealed"


_STARS = cel(
    (
        "self.matches('^([^*]*[*]){0,16}[^*]*$')",
        "an image pattern may hold at most 16 stars; write several patterns",
    )
)


class PodOwner(ApiModel):
    """A kind whose objects control pods."""

    api_group: str = Field(
        description="API group of the kind, e.g. argoproj.io or batch. Empty: the core group.", max_length=253
    )
    kind: str = Field(description="The kind, e.g. Workflow or Job.", min_length=1, max_length=63)


class PodAccess(ApiModel):
    """Selects pods that ask for secrets themselves, whatever created them."""

    selector: LabelSelector | None = Field(
        default=None,
        description="Selects pods by their labels. Unset or empty: every pod. Anyone who creates a pod chooses its"
        " labels.",
    )
    created_by: list[Annotated[str, Field(min_length=1, max_length=253)]] | None = Field(
        default=None,
        description="User names as the API server knows them. One of them must have created the pod, e.g."
        " system:serviceaccount:argo:argo. The pods of Jobs, Deployments and other workloads are created by a"
        " controller of Kubernetes, e.g. system:serviceaccount:kube-system:job-controller. Unset: anyone.",
        min_length=1,
        max_length=64,
    )
    owned_by: list[PodOwner] | None = Field(
        default=None,
        description="Kinds. An object of one of them must control the pod. Anyone who creates a pod can claim an owner,"
        " so use it with createdBy. Unset: any owner, or none.",
        min_length=1,
        max_length=16,
    )


class AccessRule(ApiModel):
    """A rule that admits runs, or pods. It admits one if every field that is set in the rule matches."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.runSelector) || has(self.serviceAccountNames) || has(self.images) || has(self.pods)",
                "an access rule must give runSelector, serviceAccountNames or images;"
                " `runSelector: {}` admits every run of the namespace",
            ),
            (
                "!(has(self.runSelector) && has(self.pods))",
                "an access rule is for runs or for pods: give runSelector or pods, and write two rules for both",
            ),
        )
    )

    run_selector: LabelSelector | None = Field(
        default=None,
        description="Selects runs by the labels of the WorkflowRun. An empty selector matches every run.",
    )
    pods: PodAccess | None = Field(
        default=None,
        description="Makes this a rule for pods that ask for secrets themselves, by the label runkeys.dev/secrets. A"
        " rule with pods admits no run, and a rule without it admits no such pod. `pods: {}` selects every such pod.",
    )
    service_account_names: list[Annotated[str, Field(min_length=1, max_length=253)]] | None = Field(
        default=None,
        description="Names of service accounts. The pod must run as one of them.",
        min_length=1,
        max_length=64,
    )
    images: list[Annotated[str, Field(min_length=1, max_length=512, json_schema_extra=_STARS)]] | None = (
        Field(
            default=None,
            description="Image patterns. Every container image of the pod, and every image that the pod mounts as a"
            " volume, must match one of them. `*` matches any text within a path part, `**` also across path parts. A"
            " pattern with a digest must be equal to the image. A pattern may have at most 16 stars, and all patterns"
            " of a binding together at most 16,384 characters.",
            min_length=1,
            max_length=64,
        )
    )


class Owner(ApiModel):
    """The user who owns a personal binding."""

    username: str = Field(
        description="User name as the API server knows it, e.g. alice or system:serviceaccount:team-a:runner.",
        min_length=1,
        max_length=253,
    )


class SecretBindingSpec(ApiModel):
    """Specification of a SecretBinding."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.owner) == has(oldSelf.owner) && (!has(self.owner) || self.owner == oldSelf.owner)",
                "owner is immutable once a binding exists: create a new binding",
            ),
            (
                "!has(self.owner) || self.secrets.all(e, !has(e.scope) || e.scope != 'Namespace')",
                PERSONAL_SCOPE,
            ),
        )
    )

    owner: Owner | None = Field(
        default=None,
        description="Makes this a personal binding. Only this user may write it. Only runs of this user may use it,"
        " with `bindings: [{personal: true}]`. A user can have at most one personal binding in a namespace.",
    )

    secrets: list[BindingEntry] = Field(
        description="The secrets, each under the name that tasks use.",
        min_length=1,
        max_length=MAX_ENTRIES,
        json_schema_extra=list_map("name"),
    )
    access: list[AccessRule] = Field(
        default_factory=list,
        description="Which runs and pods may use these secrets. A run or pod needs at least one rule that admits it."
        " Empty: nothing may use them, or, in a personal binding, all runs of its owner may.",
        max_length=32,
    )
    release_policy: str = Field(
        default=ON_COMPLETION,
        description="When the Secret that was created for a task is deleted. OnCompletion: when every container that"
        " refers to it has terminated. OnStart: when every such container has started, because the kubelet reads the"
        " values when it creates a container. A task can also choose OnStart itself.",
        json_schema_extra=RELEASE_POLICY,
    )
    delivery: str = Field(
        default=SECRET,
        description="How the values reach a pod. Secret: in a Secret, which exists for as long as releasePolicy says."
        " Sealed: in a certificate, sealed to a key of that pod, so that no Secret is created for the run. Sealed"
        " requires Kubernetes 1.37 and sealedDelivery.enabled in the chart; without them the run waits. A task can also"
        " choose Sealed itself.",
        json_schema_extra=DELIVERY,
    )
    max_lifetime_seconds: int = Field(
        default=3600,
        description="Maximum time in seconds that a value may be in the cluster for one attempt of a task.",
        ge=1,
        le=604800,
    )

    @cached_property
    def by_name(self) -> dict[str, BindingEntry]:
        """The entries by name."""
        return {entry.name: entry for entry in self.secrets}


class EntryStatus(StatusModel):
    """Observed state of one entry."""

    name: str = Field(description="Name of the entry.", max_length=253)
    ready: bool = Field(description="Whether the value can be read now.")
    reason: StatusReason = Field(
        default="", description="If not ready: the reason, for programs.", max_length=1024
    )
    message: StatusMessage = Field(
        default="", description="If not ready: the reason and what to do, for people.", max_length=4096
    )
    key_id: str = Field(
        default="",
        description="For a sealed entry: ID of the key that it is sealed with.",
        alias="keyID",
        max_length=64,
    )


class SecretBindingStatus(StatusModel):
    """Observed state of a SecretBinding."""

    observed_generation: int | None = Field(
        default=None, description="metadata.generation that this status was computed from."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Condition types: Ready and Stalled.",
        max_length=16,
        json_schema_extra=list_map("type"),
    )
    secrets: str | None = Field(
        default=None,
        description="Number of entries that can be read now, and of all entries, e.g. 2/3.",
        max_length=32,
    )
    entries: list[EntryStatus] = Field(
        default_factory=list,
        description="Observed state of each entry.",
        max_length=MAX_ENTRIES,
        json_schema_extra=list_map("name"),
    )
    last_used: datetime | None = Field(
        default=None,
        description="When a pod that asks for secrets itself was last given a value of this binding, to the minute. Of"
        " runs, the status of the run tells.",
    )


class SecretBinding(ApiModel):
    """Named secrets of a namespace, their sources, and the runs that may use them."""

    CRD: ClassVar[CrdInfo] = CrdInfo(
        plural="secretbindings",
        singular="secretbinding",
        short_names=("rkb",),
        columns=(
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Secrets", ".status.secrets", description="Readable entries, and all entries"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].reason", priority=1),
            PrinterColumn(
                "Owner", ".spec.owner.username", description="Owner of a personal binding", priority=1
            ),
            PrinterColumn(
                "Last used",
                ".status.lastUsed",
                type="date",
                description="By a pod that asks itself",
                priority=1,
            ),
            PrinterColumn("Age", ".metadata.creationTimestamp", type="date"),
        ),
        selectable=(".spec.owner.username",),
    )

    api_version: str = API_VERSION
    kind: str = "SecretBinding"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: SecretBindingSpec = Field(description="Desired state.")
    status: SecretBindingStatus = Field(
        default_factory=SecretBindingStatus,
        description="Observed state, written by the operator.",
        json_schema_extra={"default": {"observedGeneration": -1}},
    )

    def entry(self, name: str) -> BindingEntry | None:
        """Return the entry with this name, or None."""
        return self.spec.by_name.get(name)

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> SecretBinding:
        """Read an object as the API server sends it."""
        return cls.model_validate(raw)
