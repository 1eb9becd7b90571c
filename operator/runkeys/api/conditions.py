"""Conditions as in metav1, and how one follows from what was reported before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import Field

from runkeys.api.common import StatusMessage, StatusModel, StatusReason, Time


class Condition(StatusModel):
    """A condition as in metav1: one aspect of the state, with a reason for programs and a message for people."""

    type: str = Field(description="Type of the condition, e.g. SecretsReleased.", max_length=316)
    status: str = Field(description="True, False or Unknown.", max_length=16)
    reason: StatusReason = Field(description="One word for programs, e.g. BindingNotFound.", max_length=1024)
    message: StatusMessage = Field(
        default="",
        description="What was found and what to do, for people. It never contains a secret's value.",
        max_length=32768,
    )
    last_transition_time: Time = Field(description="When status last changed.")
    observed_generation: int | None = Field(
        default=None, description="metadata.generation that this condition was computed from."
    )


def next_condition(
    before: Sequence[Condition],
    kind: str,
    holds: bool | None,
    reason: str,
    message: str,
    *,
    generation: int | None,
    now: datetime,
) -> Condition:
    """The condition of a type, with the time of its last change taken from ``before`` if its status is the same.

    :param holds: None: Unknown.
    """
    status = {True: "True", False: "False", None: "Unknown"}[holds]
    old = next((item for item in before if item.type == kind), None)
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=old.last_transition_time if old is not None and old.status == status else now,
        observed_generation=generation,
    )
