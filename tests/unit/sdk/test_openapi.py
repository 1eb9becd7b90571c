"""The OpenAPI description of services."""

# ruff: noqa: ARG001 -- these services only have a signature

from __future__ import annotations

import json
from typing import Any, Optional

import pytest
from pydantic import BaseModel

from runkeys import DataPool, SecretValue
from runkeys.openapi import describe, request_schema
from tests.unit.sdk.conftest import Service


class Inner(BaseModel):
    n: int


class Data(BaseModel):
    endpoint: str
    inner: Inner


def one_secret(api_token: SecretValue) -> dict:  # type: ignore[type-arg]
    """Does something.

    With a token.
    """
    return {}


def everything(
    data: Data,
    models: DataPool,
    api_token: SecretValue,
    other: Optional[SecretValue],  # noqa: UP045 -- how services write it
    shots: int = 5,
    note: str | None = None,
    third: SecretValue | None = None,
) -> Inner:
    return Inner(n=shots)


def optional_only(token: SecretValue | None = None) -> None: ...


def no_secret(n: int) -> int:
    return n


def test_row_14_secrets_are_one_closed_object() -> None:
    schema = request_schema(one_secret)
    token = schema["properties"]["$secrets"]["properties"]["api_token"]
    assert token["type"] == "string"
    assert token["writeOnly"] is True
    assert "SECRET_API_TOKEN" in token["description"]
    described = schema["properties"]["$secrets"]["description"]
    assert described.startswith("Values of the service's secrets")
    assert schema["properties"]["$secrets"] == {
        "type": "object",
        "description": described,
        "properties": {"api_token": token},
        "additionalProperties": False,
        "required": ["api_token"],
    }
    assert schema["required"] == ["$secrets"]


def test_row_14_only_required_secrets_are_required() -> None:
    schema = request_schema(everything)
    assert schema["properties"]["$secrets"]["required"] == ["api_token"]
    assert list(schema["properties"]["$secrets"]["properties"]) == ["api_token", "other", "third"]
    assert sorted(schema["required"]) == ["$secrets", "data"]
    assert set(schema["properties"]) == {"data", "shots", "note", "$secrets"}
    assert schema["properties"]["shots"] == {"type": "integer", "default": 5}
    optional = request_schema(optional_only)
    assert "required" not in optional
    assert "required" not in optional["properties"]["$secrets"]
    assert "$secrets" not in request_schema(no_secret)["properties"]


def test_the_document_is_whole() -> None:
    document = describe(everything, "Fit", "2.1")
    assert document["openapi"].startswith("3.1")
    assert document["info"] == {"title": "Fit", "version": "2.1"}
    found = references(document)
    assert found
    for reference in found:
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in document["components"]["schemas"]
    assert describe(one_secret)["paths"]["/"]["post"]["description"].startswith("Does something.")


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [found for value in node.values() for found in references(value)]
    if isinstance(node, list):
        return [found for value in node for found in references(value)]
    return []


def test_row_14_from_the_command_line(service: Service) -> None:
    service.program("from runkeys import SecretValue\ndef run(api_token: SecretValue) -> dict: ...\n")
    ended = service.python("-m", "runkeys.openapi", "src.program:run")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    schema = document["paths"]["/"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["$secrets"]["properties"]["api_token"]["type"] == "string"
    assert service.python("-m", "runkeys.openapi").code == 2
    wrong = service.python("-m", "runkeys.openapi", "src.program:absent")
    assert (wrong.code, wrong.out) == (1, "")
    assert "no function absent" in wrong.err


def test_what_json_cannot_hold_is_refused_with_the_parameter() -> None:
    class Odd:
        pass

    def run(a: Odd) -> None: ...

    run.__annotations__["a"] = Odd
    with pytest.raises(ValueError, match="parameter a cannot be described"):
        request_schema(run)
