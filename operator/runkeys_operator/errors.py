"""What can go wrong between the operator and the API server.

One small tree, so that callers branch on a class and never on a text. An error
keeps what the server said about the *request* (status, reason, message, names of
fields), never a body: neither the one that was sent nor the one that came back.
Answers about Secrets lose their message too, since a refused value is quoted in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from runkeys._text import documents

_LONGEST_MESSAGE = 1000
# Reasons are CamelCase words. Anything else comes from a webhook or a proxy and may say anything.
_REASON = re.compile(r"[A-Za-z]{1,64}")


class Cause(NamedTuple):
    """One entry of a refusal's `details.causes`: why (`FieldValueInvalid`) and where (`spec.x`)."""

    reason: str
    field: str


class LoginError(Exception):
    """The API server's address or the operator's own identity is unknown. The text says why."""


class StartError(Exception):
    """The operator cannot start here. The text says why and what to do."""


class LeaseLostError(Exception):
    """Another operator is the leader by now. The text says which."""


class BackgroundError(Exception):
    """A part of the operator ended, and so the whole operator did."""


class ApiError(Exception):
    """A request that the API server did not carry out, or whose answer never came.

    `request` reads like `create secrets team-a/rk-x`; `status` is the HTTP status, 0
    without an answer; `retry_after` is the server's wish in seconds. `retryable`: the
    same intent can succeed later though nobody changes a manifest or a right.
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        retry_after: float | None = None,
        *,
        request: str = "",
        causes: tuple[Cause, ...] = (),
    ) -> None:
        super().__init__(status, reason, message, retry_after)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.request = request
        self.causes = causes

    def __str__(self) -> str:
        what = " ".join(str(part) for part in (self.status or "", self.reason) if part)
        fields = ", ".join(cause.field for cause in self.causes if cause.field)
        detail = self.message or (f"fields: {fields}" if fields else "")
        return ": ".join(part for part in (self.request, what, detail) if part)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class NotFound(ApiError):
    """The API server itself says that the object does not exist."""


class AlreadyExists(ApiError):
    """409: an object of that name exists."""


class Conflict(ApiError):
    """409: the object changed since it was read, or is another one by now."""

    retryable = True


class Forbidden(ApiError):
    """403: by RBAC, a quota, an admission policy, or because the namespace is going."""

    @property
    def namespace_terminating(self) -> bool:
        """Whether it was refused because the namespace is being deleted."""
        return any(cause.reason == "NamespaceTerminating" for cause in self.causes)


class Invalid(ApiError):
    """422: the object does not validate."""


class Unauthorized(ApiError):
    """401: the credentials are not accepted (any more)."""

    retryable = True


class TooManyRequests(ApiError):
    """429: the server asks to slow down."""

    retryable = True


class ServerError(ApiError):
    """5xx, or an answer that did not come from an API server (a 404 of some proxy, say)."""

    retryable = True


class Expired(ApiError):
    """410: a LIST took so long that its pages are gone."""

    retryable = True


class Unreachable(ApiError):
    """No answer: connection refused or lost, time-out, bad certificate. It may have been done.

    `untrusted`: the server's certificate does not verify.
    """

    retryable = True

    def __init__(self, message: str, *, request: str = "", untrusted: bool = False) -> None:
        super().__init__(0, "Unreachable", message, request=request)
        self.untrusted = untrusted


class NotLeader(ApiError):
    """Not sent: it would change something, and whether this operator may do so is not certain at the moment."""

    retryable = True

    def __init__(self, message: str) -> None:
        super().__init__(0, "NotLeader", message)


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    422: Invalid,
    429: TooManyRequests,
}


def from_response(
    status: int, headers: Mapping[str, str], body: bytes, *, request: str, secret: bool
) -> ApiError:
    """The error for an HTTP answer with `status` ≥ 300; `secret` drops the server's message."""
    answer = _status_object(body)
    kind = _BY_STATUS.get(status, ServerError if status >= 500 or answer is None else ApiError)
    if kind is NotFound and answer is None:
        # Something in between said 404. To believe it would be to believe that a Secret is gone.
        kind = ServerError
    answer = answer or {}
    details = answer.get("details")
    details = details if isinstance(details, dict) else {}
    causes = details.get("causes")
    reason = str(answer.get("reason") or "")
    if kind is Conflict and reason == "AlreadyExists":
        kind = AlreadyExists
    return kind(
        status,
        reason if _REASON.fullmatch(reason) else "",
        "" if secret else str(answer.get("message") or "")[:_LONGEST_MESSAGE],
        _retry_after(headers, details),
        request=request,
        causes=tuple(
            Cause(str(cause.get("reason") or ""), str(cause.get("field") or ""))
            for cause in (causes if isinstance(causes, list) else ())
            if isinstance(cause, dict)
        ),
    )


def _status_object(body: bytes) -> dict[str, Any] | None:
    try:
        answer = documents.read(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and answer.get("kind") == "Status" else None


def _retry_after(headers: Mapping[str, str], details: Mapping[str, Any]) -> float | None:
    for value in (headers.get("Retry-After"), details.get("retryAfterSeconds")):
        if value is not None:
            try:
                return max(0.0, float(value))
            except (ValueError, TypeError, OverflowError):
                continue  # a date: allowed by HTTP, never sent by an API server
    return None
