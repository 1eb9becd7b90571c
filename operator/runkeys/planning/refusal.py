"""Refusals: why something does not start, for programs and people. A refusal never holds a value."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

_MOST_NAMES, _LONGEST_NAME = 20, 100


def shortened(text: str, most: int) -> str:
    """``text`` cut to a maximum number of characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def listed(names: Collection[str]) -> str:
    """Names for a message: of many the first, in time that does not depend on how many there are."""
    told = ", ".join(shortened(name, _LONGEST_NAME) for name in islice(names, _MOST_NAMES))
    more = len(names) - _MOST_NAMES
    return f"{told} and {more} more" if more > 0 else told


class Reason(StrEnum):
    """The fixed reasons of conditions and task states: part of the API."""

    # a run that cannot work as it is written
    TEMPLATE_REFUSED = "TemplateRefused"
    NAME_COLLISION = "NameCollision"
    CONTAINER_NOT_FOUND = "ContainerNotFound"
    INVALID = "Invalid"
    DEPENDENCY_INVALID = "DependencyInvalid"
    INPUT_NOT_FOUND = "InputNotFound"
    INPUT_TOO_LARGE = "InputTooLarge"
    REQUESTER_UNKNOWN = "RequesterUnknown"
    # what others can still fix while the run waits
    BINDING_NOT_FOUND = "BindingNotFound"
    BINDING_INVALID = "BindingInvalid"
    SECRET_NOT_FOUND = "SecretNotFound"
    ACCESS_DENIED = "AccessDenied"
    USE_DENIED = "UseDenied"
    REVEAL_DENIED = "RevealDenied"
    DEADLINE_TOO_LONG = "DeadlineTooLong"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_FORBIDDEN = "SourceForbidden"
    SOURCE_KEY_MISSING = "SourceKeyMissing"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    STORE_NOT_FOUND = "StoreNotFound"
    STORE_LOGIN_REFUSED = "StoreLoginRefused"
    STORES_UNAVAILABLE = "StoresUnavailable"
    LEASES_UNAVAILABLE = "LeasesUnavailable"
    LEASE_TOO_SHORT = "LeaseTooShort"
    UNKNOWN_KEY = "UnknownKey"
    SEAL_CONTEXT_MISMATCH = "SealContextMismatch"
    SEALED_INVALID = "SealedInvalid"
    SEALED_EXPIRED = "SealedExpired"
    VALUE_NOT_TEXT = "ValueNotText"
    VALUE_TOO_LARGE = "ValueTooLarge"
    VALUE_NOT_CARRIED = "ValueNotCarried"
    SEALED_UNAVAILABLE = "SealedDeliveryUnavailable"
    DELIVERY_CHANGED = "DeliveryChanged"
    NAME_TAKEN = "NameTaken"
    REQUEST_FAILED = "RequestFailed"
    DEFECT = "Defect"
    JOB_REFUSED = "JobRefused"
    SECRET_REFUSED = "SecretRefused"
    POD_NOT_CREATED = "PodNotCreated"
    UNSCHEDULABLE = "Unschedulable"
    AMBIGUOUS_PODS = "AmbiguousPods"
    POD_CHANGED = "PodChanged"
    JOB_SUSPENDED = "JobSuspended"
    NODE_UNREACHABLE = "NodeUnreachable"
    POLICIES_MISSING = "PoliciesMissing"
    # how an attempt ended
    JOB_FAILED = "JobFailed"
    ATTEMPT_LOST = "AttemptLost"
    START_DEADLINE_EXCEEDED = "StartDeadlineExceeded"
    LIFETIME_EXCEEDED = "LifetimeExceeded"
    POD_REPLACED = "PodReplaced"
    POD_GONE = "PodGone"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    DISRUPTED = "Disrupted"
    FAILED_FOR_GOOD = "FailedForGood"
    TOO_MANY_ATTEMPTS = "TooManyAttempts"
    SUSPENDED = "Suspended"
    BACK_OFF = "BackOff"
    RUN_DEADLINE_EXCEEDED = "RunDeadlineExceeded"
    DEPENDENCY_FAILED = "DependencyFailed"
    RUN_FAILED = "RunFailed"
    OUTPUT_TOO_LARGE = "OutputTooLarge"
    OUTPUT_INVALID = "OutputInvalid"
    OUTPUT_MISSING = "OutputMissing"
    CANCELLED = "Cancelled"
    LEASE_LOST = "LeaseLost"
    # a Secret that is not deleted, a lease that is not revoked
    HELD_BY_FINALIZER = "HeldByFinalizer"
    REVOCATION_PENDING = "RevocationPending"
    LEASE_EXPIRED = "LeaseExpired"


@dataclass(frozen=True)
class Refusal:
    """One thing that is wrong.

    :ivar field: path in the object that has to change, e.g. ``spec.tasks[0].secrets[1].secret``.
    :ivar message: what was found and what to do.
    :ivar permanent: True if nothing but a new run can mend it, since a run's spec is fixed.
    """

    reason: Reason
    field: str
    message: str
    permanent: bool

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"
