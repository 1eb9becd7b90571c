"""SecretReveal: a request for one value, and the answer, which only the requester can open."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from runkeys.api.binding import MAX_SEALED
from runkeys.api.common import (
    API_VERSION,
    OBJECT_NAME,
    ApiModel,
    CrdInfo,
    ObjectMeta,
    PrinterColumn,
    StatusMessage,
    StatusModel,
    StatusReason,
    Time,
    cel,
)
from runkeys.api.run import Requester


class SecretRevealSpec(ApiModel):
    """The requested value, and the key that the answer is sealed with. It cannot be changed."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self == oldSelf", "a SecretReveal cannot be changed: create a new one"),
            (
                "has(self.binding) != (has(self.personal) && self.personal)",
                "a binding is either named (binding) or the requester's own (personal: true): give one of the two",
            ),
        )
    )

    binding: str | None = Field(
        default=None,
        description="Name of the SecretBinding.",
        min_length=1,
        max_length=253,
        json_schema_extra=OBJECT_NAME,
    )
    personal: bool | None = Field(
        default=None,
        description="True selects the personal binding of the requester. Use it instead of binding.",
    )
    entry: str = Field(description="Name of the entry in the binding.", min_length=1, max_length=253)
    public_key: str = Field(
        description="A public key for this request only (see runkeys.sealing). The answer is sealed with it, so other"
        " users who read this object cannot open the value.",
        max_length=2000,
        json_schema_extra=cel(
            (
                "self.startsWith('rkpub1.')",
                "publicKey must be a public key of Runkeys, which begins with rkpub1.",
            )
        ),
    )
    requester: Requester | None = Field(
        default=None,
        description="The user who asks for the value. It is filled in and checked when the object is created. This user"
        " must have the right to reveal the binding.",
    )


class SecretRevealStatus(StatusModel):
    """The answer."""

    answered_time: Time | None = Field(
        default=None,
        description="When the request was answered, with a value or without. There is only one answer.",
    )
    sealed: str | None = Field(
        default=None,
        description="The value, sealed with spec.publicKey for this object.",
        max_length=MAX_SEALED,
    )
    reason: StatusReason = Field(
        default="", description="If there is no value: the reason, for programs.", max_length=1024
    )
    message: StatusMessage = Field(
        default="",
        description="If there is no value: the reason and what to do, for people.",
        max_length=4096,
    )


class SecretReveal(ApiModel):
    """A request for the value of one entry of a binding. It is answered once, and deleted after a minute."""

    CRD: ClassVar[CrdInfo] = CrdInfo(
        plural="secretreveals",
        singular="secretreveal",
        short_names=("rkr",),
        columns=(
            PrinterColumn("Entry", ".spec.entry"),
            PrinterColumn("Binding", ".spec.binding"),
            PrinterColumn("Requester", ".spec.requester.username"),
            PrinterColumn("Answered", ".status.answeredTime", type="date"),
            PrinterColumn("Reason", ".status.reason", priority=1),
        ),
    )

    api_version: str = API_VERSION
    kind: str = "SecretReveal"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: SecretRevealSpec = Field(description="The request.")
    status: SecretRevealStatus = Field(
        default_factory=SecretRevealStatus, description="The answer, written by the operator."
    )

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> SecretReveal:
        """Read an object as the API server sends it."""
        return cls.model_validate(raw)
