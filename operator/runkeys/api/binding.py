"""SecretBinding: which secrets exist in a namespace, where they come from and which runs may use them."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from runkeys.api.common import (
    API_VERSION,
    OBJECT_NAME,
    ApiModel,
    Condition,
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

ON_COMPLETION = "OnCompletion"
ON_START = "OnStart"

RELEASE_POLICY = cel(
    ("self in ['OnCompletion', 'OnStart']", "releasePolicy must be OnCompletion or OnStart"),
)


SECRET, SEALED = "Secret", "Sealed"

DELIVERY = cel(("self in ['Secret', 'Sealed']", "delivery must be Secret or Sealed"))


class SecretKeySelector(ApiModel):
    """One key of an existing Secret in the binding's own namespace."""

    name: str = Field(
        description="Name of the Secret. Its namespace must grant the operator `get` on it by name.",
        min_length=1,
        max_length=253,
        json_schema_extra=OBJECT_NAME,
    )
    key: str = Field(description="Key in the Secret's data.", min_length=1, max_length=253)


SEALED_TEXT = cel(
    (
        "self.startsWith('rk1.')",
        "a sealed value begins with rk1.; this is none, and may be a secret in the clear: seal it with runkeys seal",
    )
)
"""Refuses what is not sealed, without repeating it. Whether it opens is for the operator to say."""

MAX_SEALED = 701_000
"""Characters of the longest sealed value."""

MAX_ENTRIES = 512
"""More would not fit into an object anyway: sealed, each has at least 1,600 characters."""

STRICT, NAMESPACE = "Strict", "Namespace"

PERSONAL_SCOPE = (
    "scope: Namespace is for shared bindings; a value of a personal binding is for its owner, whatever the binding's"
    " name: leave scope out"
)


class BindingEntry(ApiModel):
    """One secret under the name by which tasks ask for it."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.secretKeyRef) != has(self.sealed)",
                "an entry has exactly one source: give secretKeyRef or sealed",
            ),
            (
                "!has(self.scope) || has(self.sealed)",
                "scope is about a sealed value: give sealed, or leave scope out",
            ),
        )
    )

    name: str = Field(
        description="Name by which tasks ask for this secret. Any text; it need not be a Kubernetes name.",
        min_length=1,
        max_length=253,
    )
    secret_key_ref: SecretKeySelector | None = Field(
        default=None,
        description="The value is a key of an existing Secret in this namespace, read when a pod needs it.",
    )
    sealed: str | None = Field(
        default=None,
        description="The value, sealed with the public key of this cluster (runkeys seal). Safe in Git: it opens in"
        " this cluster only, and only where scope says.",
        max_length=MAX_SEALED,
        json_schema_extra=SEALED_TEXT,
    )
    scope: str | None = Field(
        default=None,
        description="What a sealed value is bound to, as it was when it was sealed. Strict, and unset: the namespace,"
        " this binding and the entry's name. Namespace: the namespace and the entry's name, for tools that give"
        " bindings other names; who writes such an entry must be allowed to use all bindings of the namespace. In a"
        " personal binding a value is always bound to the namespace, the owner and the entry's name.",
        json_schema_extra=cel(("self in ['Strict', 'Namespace']", "scope must be Strict or Namespace")),
    )


_STARS = cel(
    (
        "self.matches('^([^*]*[*]){0,16}[^*]*$')",
        "an image pattern may hold at most 16 stars; write several patterns",
    )
)


class AccessRule(ApiModel):
    """A run is admitted by a rule when every part that the rule gives matches."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.runSelector) || has(self.serviceAccountNames) || has(self.images)",
                "an access rule must give runSelector, serviceAccountNames or images;"
                " `runSelector: {}` admits every run of the namespace",
            )
        )
    )

    run_selector: LabelSelector | None = Field(
        default=None, description="Labels of the WorkflowRun. An empty selector matches every run."
    )
    service_account_names: list[Annotated[str, Field(min_length=1, max_length=253)]] | None = Field(
        default=None,
        description="Names of service accounts; the pod must run as one of them.",
        min_length=1,
        max_length=64,
    )
    images: list[Annotated[str, Field(min_length=1, max_length=512, json_schema_extra=_STARS)]] | None = (
        Field(
            default=None,
            description="Image patterns; every container of the pod, and every image that it mounts as a volume,"
            " must match one. `*` stands for any text within a path part, `**` also across them; a pattern with a"
            " digest must be equal to the image. At most 16 stars in each, and 16,384 characters in all patterns of a"
            " binding.",
            min_length=1,
            max_length=64,
        )
    )


class Owner(ApiModel):
    """Whose personal binding it is."""

    username: str = Field(
        description="User name as the API server knows it, e.g. alice or system:serviceaccount:team-a:runner.",
        min_length=1,
        max_length=253,
    )


class SecretBindingSpec(ApiModel):
    """What is wanted of a SecretBinding."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.owner) == has(oldSelf.owner) && (!has(self.owner) || self.owner == oldSelf.owner)",
                "owner is immutable once a binding exists: make a new binding",
            ),
            (
                "!has(self.owner) || self.secrets.all(e, !has(e.scope) || e.scope != 'Namespace')",
                PERSONAL_SCOPE,
            ),
        )
    )

    owner: Owner | None = Field(
        default=None,
        description="Makes it a personal binding: only this user may write it, and only runs of this user may use it,"
        " by `bindings: [{personal: true}]`. At most one of a user in a namespace.",
    )

    secrets: list[BindingEntry] = Field(
        description="The secrets, each under the name by which tasks ask for it.",
        min_length=1,
        max_length=MAX_ENTRIES,
        json_schema_extra=list_map("name"),
    )
    access: list[AccessRule] = Field(
        default_factory=list,
        description="Which runs may use these secrets: those that at least one rule admits. Empty: none; of a personal"
        " binding all runs of its owner.",
        max_length=32,
    )
    release_policy: str = Field(
        default=ON_COMPLETION,
        description="When the values leave the cluster. OnCompletion: once every container that refers to them"
        " has ended. OnStart: once each of them has started, since the kubelet reads the values when it makes a"
        " container. A task may ask for OnStart by itself.",
        json_schema_extra=RELEASE_POLICY,
    )
    delivery: str = Field(
        default=SECRET,
        description="How the values reach a pod. Secret: by a Secret, which lives as long as releasePolicy says."
        " Sealed: by a certificate that carries them sealed to a key of that pod, so that no Secret is made for a run;"
        " takes Kubernetes 1.37 and sealedDelivery.enabled of the chart. A run waits where that is not there. A task"
        " may ask for Sealed by itself.",
        json_schema_extra=DELIVERY,
    )
    max_lifetime_seconds: int = Field(
        default=3600,
        description="Longest time in seconds that a value may be in the cluster for one attempt of a task.",
        ge=1,
        le=604800,
    )

    @cached_property
    def by_name(self) -> dict[str, BindingEntry]:
        """The entries."""
        return {entry.name: entry for entry in self.secrets}


class EntryStatus(StatusModel):
    """What was found for one entry."""

    name: str = Field(description="Name of the entry.", max_length=253)
    ready: bool = Field(description="Whether the value can be read now.")
    reason: StatusReason = Field(default="", description="Why not, for programs.", max_length=1024)
    message: StatusMessage = Field(
        default="", description="Why not and what to do, for people.", max_length=4096
    )
    key_id: str = Field(
        default="",
        description="Of a sealed entry: the key that it is sealed with.",
        alias="keyID",
        max_length=64,
    )


class SecretBindingStatus(StatusModel):
    """What was found of a SecretBinding."""

    observed_generation: int | None = Field(
        default=None, description="metadata.generation that this status was computed from."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Ready, Stalled.",
        max_length=16,
        json_schema_extra=list_map("type"),
    )
    secrets: str | None = Field(
        default=None, description="How many entries can be read now, of how many, e.g. 2/3.", max_length=32
    )
    entries: list[EntryStatus] = Field(
        default_factory=list,
        description="What was found for each entry.",
        max_length=MAX_ENTRIES,
        json_schema_extra=list_map("name"),
    )


class SecretBinding(ApiModel):
    """Secrets of a namespace under names, with where they come from and which runs may use them."""

    CRD: ClassVar[CrdInfo] = CrdInfo(
        plural="secretbindings",
        singular="secretbinding",
        short_names=("rkb",),
        columns=(
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Secrets", ".status.secrets", description="Entries that can be read, of all"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].reason", priority=1),
            PrinterColumn("Owner", ".spec.owner.username", description="Of a personal binding", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", type="date"),
        ),
        selectable=(".spec.owner.username",),
    )

    api_version: str = API_VERSION
    kind: str = "SecretBinding"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: SecretBindingSpec = Field(description="What is wanted.")
    status: SecretBindingStatus = Field(
        default_factory=SecretBindingStatus,
        description="What was found; written by the operator.",
        json_schema_extra={"default": {"observedGeneration": -1}},
    )

    def entry(self, name: str) -> BindingEntry | None:
        """The entry called ``name``, or None."""
        return self.spec.by_name.get(name)

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> SecretBinding:
        """Read an object as the API server sends it."""
        return cls.model_validate(raw)
