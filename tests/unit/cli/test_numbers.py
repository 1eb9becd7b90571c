"""A value that would be read as another one than was written is refused before it is sent, by its field."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import pytest

from runkeys.client.submission import take_secrets
from runkeys.problems import Invalid


def manifest(value: Any) -> dict[str, Any]:
    task = {"name": "work", "template": {"spec": {"containers": [{"name": "main", "image": "a/b"}]}}}
    return {"spec": {"input": {"a": [{"b": value}]}, "tasks": [task]}}


ROUNDED = "is a whole number of more than 64 bits, which the API server rounds; write it as a string"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2**63, ROUNDED),
        (-(2**63) - 1, ROUNDED),
        (10**400, ROUNDED),
        (math.inf, "is infinite or no number, which is not JSON; write it as a string"),
        (math.nan, "is infinite or no number, which is not JSON; write it as a string"),
        (date(2026, 1, 5), "is a date, which is not JSON; write it in quotes"),
        (b"x", "is a bytes, which is not JSON; write it in quotes"),
    ],
)
def test_what_does_not_arrive_as_it_is_written_is_refused(value: Any, message: str) -> None:
    with pytest.raises(Invalid) as refused:
        take_secrets(manifest(value))

    assert str(refused.value) == f"spec.input.a[0].b: {message}"


def test_the_same_in_a_template() -> None:
    made = manifest(1)
    made["spec"]["tasks"][0]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 2**64}]

    with pytest.raises(Invalid, match="containerPort: is a whole number of more than 64 bits"):
        take_secrets(made)


@pytest.mark.parametrize(
    "value", [2**63 - 1, -(2**63), 2**53 + 1, -0.0, 1e300, 0.1, True, None, "2026-01-05", 10**19 * 1.0]
)
def test_what_arrives_is_sent(value: Any) -> None:
    made, _ = take_secrets(manifest(value))

    assert made["spec"]["input"]["a"][0]["b"] == value
