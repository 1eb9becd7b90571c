"""What both kinds share: the base model, metadata, conditions, label selectors, CRD facts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from runkeys.documents import shallow
from runkeys.group import API_VERSION, GROUP, VERSION

__all__ = ["API_VERSION", "GROUP", "VERSION"]


def cel(*rules: tuple[str, str]) -> dict[str, Any]:
    """JSON schema extra that carries CEL rules.

    :param rules: pairs of a CEL expression and the fixed message that a user sees. The message must
        not contain the value: API servers repeat it in answers and in the audit log.
    """
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


OBJECT_NAME = cel(
    (
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
        "it must be the name of an object: lower-case letters, digits, '-' and '.', with a letter or digit at the ends",
    )
)
"""For references by name. What no object can be called stands in no message, and in no command that one tells."""


def list_map(*keys: str) -> dict[str, Any]:
    """JSON schema extra for a list whose items are identified by ``keys`` (server-side apply merges by them)."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def _micro(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _seconds(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


MicroTime = Annotated[datetime, PlainSerializer(_micro, return_type=str, when_used="json")]
"""A moment in UTC with microseconds, as Kubernetes' MicroTime."""

Time = Annotated[datetime, PlainSerializer(_seconds, return_type=str, when_used="json")]
"""A moment in UTC with whole seconds, as Kubernetes' Time."""


Document = Annotated[Any, BeforeValidator(shallow)]
"""Any JSON. What is too deep is cut, and has to be refused by whoever would use it."""

DocumentObject = Annotated[dict[str, Any], BeforeValidator(shallow)]
"""The same, of an object."""


class ApiModel(BaseModel):
    """Base of every modelled object: camelCase on the wire, unknown fields are errors."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    def to_wire(self) -> dict[str, Any]:
        """As JSON for the API server: camelCase, times as strings, fields without a value left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(ApiModel):
    """Base of all that the operator finds and writes down, which another version of it reads.

    In an upgrade, and after one that was taken back, an operator meets what a later version wrote. What it does not
    know there says nothing that it could get wrong; in what is wanted of it, it does. What it writes anew is without
    the fields that it does not know, but for those of the status itself, which a merge patch leaves alone.
    """

    model_config = ConfigDict(extra="ignore")


def _cut(most: int, text: Any) -> Any:
    return f"{text[: most - 1]}…" if isinstance(text, str) and len(text) > most else text


StatusReason = Annotated[str, BeforeValidator(partial(_cut, 1024))]
"""Text of a status for programs, cut to what its schema allows, whoever it is from.

One that is too long would have the API server refuse the whole status, again and again.
"""

StatusMessage = Annotated[str, BeforeValidator(partial(_cut, 4096))]
"""The same for people."""


class ObjectMeta(BaseModel):
    """The part of ``metadata`` that Runkeys reads."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class LabelSelectorRequirement(ApiModel):
    """One expression of a label selector."""

    key: str = Field(description="Label key that the expression is about.", min_length=1, max_length=317)
    operator: str = Field(
        description="In, NotIn, Exists or DoesNotExist.",
        json_schema_extra=cel(
            (
                "self in ['In', 'NotIn', 'Exists', 'DoesNotExist']",
                "operator must be In, NotIn, Exists or DoesNotExist",
            )
        ),
    )
    values: list[Annotated[str, Field(max_length=63)]] = Field(
        default_factory=list, description="Values for In and NotIn; empty for the others.", max_length=32
    )


class LabelSelector(ApiModel):
    """Which labels an object must have. Every part must match; an empty selector matches everything."""

    match_labels: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict,
        description="Labels that must be there with exactly these values.",
        max_length=32,
    )
    match_expressions: list[LabelSelectorRequirement] = Field(
        default_factory=list, description="Further expressions; all of them must hold.", max_length=16
    )

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether ``labels`` satisfy every part of this selector."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            _holds(requirement, labels) for requirement in self.match_expressions
        )


def _holds(requirement: LabelSelectorRequirement, labels: dict[str, str]) -> bool:
    match requirement.operator:
        case "In":
            return labels.get(requirement.key) in requirement.values
        case "NotIn":
            return labels.get(requirement.key) not in requirement.values
        case "Exists":
            return requirement.key in labels
        case "DoesNotExist":
            return requirement.key not in labels
        case _:  # an operator of a newer API version: nobody is admitted by what we do not understand
            return False


class Condition(StatusModel):
    """A condition as in metav1: one aspect of the state with a reason for programs and a message for people."""

    type: str = Field(description="What the condition is about, e.g. SecretsReleased.", max_length=316)
    status: str = Field(description="True, False or Unknown.", max_length=16)
    reason: StatusReason = Field(description="One word for programs, e.g. BindingNotFound.", max_length=1024)
    message: StatusMessage = Field(
        default="", description="What was found and what to do, for people. Never a value.", max_length=32768
    )
    last_transition_time: Time = Field(description="When status last changed.")
    observed_generation: int | None = Field(
        default=None, description="metadata.generation that this condition was computed from."
    )


@dataclass(frozen=True)
class PrinterColumn:
    """A column of ``kubectl get``."""

    name: str
    json_path: str
    type: str = "string"
    description: str = ""
    priority: int = 0


@dataclass(frozen=True)
class CrdInfo:
    """What a CustomResourceDefinition says besides its schema."""

    plural: str
    singular: str
    short_names: tuple[str, ...]
    columns: tuple[PrinterColumn, ...]
    categories: tuple[str, ...] = ("runkeys",)
    selectable: tuple[str, ...] = ()
    """JSON paths that a field selector may name."""
    root_rules: tuple[tuple[str, str], ...] = field(default=())
    """CEL rules on the root object (they see ``self.metadata.name``): expression and message."""
