"""SecretReveal: a question for one value, and the answer, which only whoever asked can open."""

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
    """Which value is asked for, and the key that the answer is sealed with. Fixed."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self == oldSelf", "a SecretReveal cannot be changed: make a new one"),
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
        default=None, description="The personal binding of whoever asks, instead of one by its name."
    )
    entry: str = Field(description="Name of the entry in the binding.", min_length=1, max_length=253)
    public_key: str = Field(
        description="A key that was made for this question alone (runkeys.sealing). The answer is sealed with it, so"
        " that nobody else who reads this object can open it.",
        max_length=2000,
        json_schema_extra=cel(
            ("self.startsWith('rkpub1.')", "publicKey is a public key of Runkeys: rkpub1. and what follows")
        ),
    )
    requester: Requester | None = Field(
        default=None,
        description="Who asks: filled in, and checked, when the object is made. It must have the right to reveal the"
        " binding.",
    )


class SecretRevealStatus(StatusModel):
    """The answer."""

    answered_time: Time | None = Field(
        default=None, description="When it was answered, in whatever way. There is one answer only."
    )
    sealed: str | None = Field(
        default=None,
        description="The value, sealed with spec.publicKey for this object.",
        max_length=MAX_SEALED,
    )
    reason: StatusReason = Field(
        default="", description="Why there is no value, for programs.", max_length=1024
    )
    message: StatusMessage = Field(
        default="", description="Why there is none and what to do, for people.", max_length=4096
    )


class SecretReveal(ApiModel):
    """A question for the value of one entry of a binding. It is answered once, and goes after a minute."""

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
    spec: SecretRevealSpec = Field(description="What is asked.")
    status: SecretRevealStatus = Field(
        default_factory=SecretRevealStatus, description="The answer; written by the operator."
    )

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> SecretReveal:
        """Read an object as the API server sends it."""
        return cls.model_validate(raw)
