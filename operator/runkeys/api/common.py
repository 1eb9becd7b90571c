"""Shared by all kinds: the base model, metadata, conditions, label selectors and CRD settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic.alias_generators import to_camel

from runkeys._text.documents import shallow
from runkeys._text.times import to_microseconds, to_seconds
from runkeys.names import API_VERSION, GROUP, VERSION

__all__ = ["API_VERSION", "GROUP", "VERSION"]


def cel(*rules: tuple[str, str]) -> dict[str, Any]:
    """Return the JSON schema extra with these CEL rules.

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
"""For references by name. A text that cannot be an object's name must not get into a message or a suggested command."""


def list_map(*keys: str) -> dict[str, Any]:
    """Return the JSON schema extra for a list whose items ``keys`` identify. Server-side apply merges by them."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


MicroTime = Annotated[datetime, PlainSerializer(to_microseconds, return_type=str, when_used="json")]
"""A moment in UTC with microseconds, as Kubernetes' MicroTime."""

Time = Annotated[datetime, PlainSerializer(to_seconds, return_type=str, when_used="json")]
"""A moment in UTC with whole seconds, as Kubernetes' Time."""


Document = Annotated[Any, BeforeValidator(shallow)]
"""Any JSON. Parts that are nested too deeply are cut, and the code that uses the document must refuse it."""

DocumentObject = Annotated[dict[str, Any], BeforeValidator(shallow)]
"""The same for a JSON object."""


class ApiModel(BaseModel):
    """Base of every model: camelCase on the wire, and unknown fields are errors."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    def to_wire(self) -> dict[str, Any]:
        """Return JSON for the API server: camelCase, times as strings, no fields without a value."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(ApiModel):
    """Base of every status model. It ignores unknown fields.

    During an upgrade, and after a rollback, an operator reads a status that a later version wrote. Ignoring an unknown
    field of a status is safe; ignoring one of a spec would not be. When the operator writes the status again, the
    unknown fields are lost, except those at the top level of the status: a merge patch leaves these alone.
    """

    model_config = ConfigDict(extra="ignore")


def _cut(most: int, text: Any) -> Any:
    return f"{text[: most - 1]}…" if isinstance(text, str) and len(text) > most else text


StatusReason = Annotated[str, BeforeValidator(partial(_cut, 1024))]
"""A status reason for programs, cut to the maximum length of its schema, whatever its origin.

If it were too long, the API server would refuse the whole status again and again.
"""

StatusMessage = Annotated[str, BeforeValidator(partial(_cut, 4096))]
"""The same for messages for people."""


class ObjectMeta(BaseModel):
    """The fields of ``metadata`` that Runkeys reads."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class LabelSelectorRequirement(ApiModel):
    """One expression of a label selector."""

    key: str = Field(description="Label key that the expression applies to.", min_length=1, max_length=317)
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
    """Labels that an object must have. All parts must match. An empty selector matches everything."""

    match_labels: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict,
        description="Labels that the object must have with exactly these values.",
        max_length=32,
    )
    match_expressions: list[LabelSelectorRequirement] = Field(
        default_factory=list, description="Further expressions. All of them must match.", max_length=16
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
    """Settings of a CustomResourceDefinition besides its schema."""

    plural: str
    singular: str
    short_names: tuple[str, ...]
    columns: tuple[PrinterColumn, ...]
    categories: tuple[str, ...] = ("runkeys",)
    selectable: tuple[str, ...] = ()
    """JSON paths that field selectors can use."""
    root_rules: tuple[tuple[str, str], ...] = field(default=())
    """CEL rules on the root object, which can read ``self.metadata.name``: expression and message."""
    namespaced: bool = True


def describe_invalid(error: ValidationError) -> str:
    """Return which fields are invalid and why, without their values."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
        for item in error.errors(include_input=False, include_url=False, include_context=False)[:5]
    )
