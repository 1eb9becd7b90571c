"""What an answer of the API server becomes, and what of it is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runkeys_operator import errors


def answered(
    status: int, *, secret: bool = False, headers: dict[str, str] | None = None, **body: Any
) -> errors.ApiError:
    text = json.dumps({"kind": "Status", **body}).encode() if body else b"<html>not ours</html>"
    return errors.from_response(status, headers or {}, text, request="get pods a/b", secret=secret)


@pytest.mark.parametrize(
    ("status", "reason", "kind", "retryable"),
    [
        (400, "BadRequest", errors.ApiError, False),
        (401, "Unauthorized", errors.Unauthorized, True),
        (403, "Forbidden", errors.Forbidden, False),
        (404, "NotFound", errors.NotFound, False),
        (409, "AlreadyExists", errors.AlreadyExists, False),
        (409, "Conflict", errors.Conflict, True),
        (410, "Expired", errors.Expired, True),
        (422, "Invalid", errors.Invalid, False),
        (429, "TooManyRequests", errors.TooManyRequests, True),
        (500, "InternalError", errors.ServerError, True),
        (504, "Timeout", errors.ServerError, True),
    ],
)
def test_each_answer_has_its_class(
    status: int, reason: str, kind: type[errors.ApiError], retryable: bool
) -> None:
    error = answered(status, reason=reason, message="why")
    assert type(error) is kind
    assert (error.status, error.reason, error.message, error.retryable) == (status, reason, "why", retryable)
    assert str(error) == f"get pods a/b: {status} {reason}: why"


@pytest.mark.parametrize("status", [302, 404, 502])
def test_what_is_not_from_an_api_server_is_not_believed(status: int) -> None:
    error = answered(status)
    assert type(error) is errors.ServerError
    assert error.retryable
    assert "not ours" not in repr(error)


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [
        ({"Retry-After": "3"}, {}, 3.0),
        ({}, {"retryAfterSeconds": 2}, 2.0),
        ({"Retry-After": "3"}, {"retryAfterSeconds": 2}, 3.0),
        ({"Retry-After": "-3"}, {}, 0.0),
        ({"Retry-After": "Mon, 23 Nov 2026 00:00:00 GMT"}, {}, None),
        ({}, {}, None),
    ],
)
def test_when_the_server_wants_to_be_asked_again(
    headers: dict[str, str], details: dict[str, Any], seconds: float | None
) -> None:
    error = answered(429, headers=headers, reason="TooManyRequests", details=details)
    assert error.retry_after == seconds


def test_of_a_secret_only_reason_and_fields_are_kept() -> None:
    causes = [{"reason": "FieldValueInvalid", "field": "data[v]", "message": 'Invalid value: "canary"'}]
    error = answered(422, secret=True, reason="Invalid", message='"canary"', details={"causes": causes})
    assert error.causes == (errors.Cause("FieldValueInvalid", "data[v]"),)
    assert str(error) == "get pods a/b: 422 Invalid: fields: data[v]"
    assert "canary" not in repr(error.__dict__) + repr(error.args)


def test_a_reason_that_is_a_text_is_dropped() -> None:
    assert answered(403, secret=True, reason="no canary today", message="m").reason == ""


def test_a_message_is_cut() -> None:
    assert len(answered(422, reason="Invalid", message="x" * 100_000).message) == 1000
