"""The OpenAPI description of a service: ``python -m runkeys.openapi src.program:run``."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from typing import Any

from runkeys._task.signature import Function, Kind, Parameter, load, parameters_of
from runkeys.mapping import SECRETS
from runkeys.names import secret_variable

Json = dict[str, Any]


def request_schema(function: Function) -> Json:
    """Return the JSON Schema of the request body: the service's input, and its secrets under ``$secrets``.

    Data pools are not included, because the run names their volumes.

    :raises ValueError: the signature cannot be described; the message names the parameter.
    """
    properties: Json = {}
    definitions: Json = {}
    required: list[str] = []
    secrets: list[Parameter] = []
    for parameter in parameters_of(function):
        if parameter.kind is Kind.SECRET:
            secrets.append(parameter)
        elif parameter.kind is Kind.INPUT:
            properties[parameter.name] = _schema_of(parameter, definitions)
            if parameter.required:
                required.append(parameter.name)
    if secrets:
        wanted = [item.name for item in secrets if item.required]
        properties[SECRETS] = {
            "type": "object",
            "description": "Values of the service's secrets, by parameter. Runkeys seals them before they are sent.",
            "properties": {item.name: _secret_schema(item) for item in secrets},
            "additionalProperties": False,
            **({"required": wanted} if wanted else {}),
        }
        if wanted:
            required.append(SECRETS)
    schema: Json = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    if definitions:
        schema["$defs"] = definitions
    return schema


def describe(function: Function, title: str | None = None, version: str = "1") -> Json:
    """Return an OpenAPI 3.1 document with one operation, ``POST /``.

    :param title: title of the document. Default: the name of the function's top-level package.
    :raises ValueError: the signature cannot be described; the message names the parameter or the result.
    """
    body = request_schema(function)
    definitions = body.pop("$defs", {})
    answer, more = _answer_schema(function)
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": title or _title(function), "version": version},
        "paths": {
            "/": {
                "post": {
                    "operationId": "run",
                    "requestBody": {"required": True, "content": _json_content(body)},
                    "responses": {
                        "200": {"description": "What the service returns.", "content": _json_content(answer)},
                        "500": {
                            "description": "A problem document.",
                            "content": {"application/problem+json": {"schema": {"type": "object"}}},
                        },
                    },
                }
            }
        },
    }
    text = (inspect.getdoc(function) or "").strip()
    if text:
        document["paths"]["/"]["post"]["description"] = text
    schemas = {**definitions, **more}
    if schemas:
        document["components"] = {"schemas": schemas}
    # pydantic writes references into $defs; in a document the models are components.
    moved: Json = json.loads(json.dumps(document).replace('"#/$defs/', '"#/components/schemas/'))
    return moved


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the OpenAPI document of a service as JSON. Return the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if len(words) != 1 or words[0].startswith("-"):
        usage = "usage: python -m runkeys.openapi MODULE:FUNCTION, for example src.program:run"
        print(usage, file=sys.stderr)  # noqa: T201
        return 2
    try:
        document = describe(load(words[0]))
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201
    return 0


def _secret_schema(parameter: Parameter) -> Json:
    return {
        "type": "string",
        "description": f"Value of the parameter {parameter.name}: the variable {secret_variable(parameter.name)}.",
        "format": "password",
        "writeOnly": True,
    }


def _schema_of(parameter: Parameter, definitions: Json) -> Json:
    schema = _json_schema(parameter.type, f"parameter {parameter.name}", "validation", definitions)
    if parameter.default is not inspect.Parameter.empty:
        from pydantic_core import to_jsonable_python

        schema["default"] = to_jsonable_python(parameter.default, serialize_unknown=True)
    return schema


def _answer_schema(function: Function) -> tuple[Json, Json]:
    definitions: Json = {}
    hint = inspect.signature(function, eval_str=True).return_annotation
    if hint is inspect.Signature.empty:
        return {}, {}
    return _json_schema(hint, "what it returns", "serialization", definitions), definitions


def _json_schema(hint: Any, what: str, mode: Any, definitions: Json) -> Json:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

    try:
        schema: Json = TypeAdapter(hint).json_schema(mode=mode)
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError) as error:
        raise ValueError(f"{what} cannot be described as JSON: {error}") from None
    definitions.update(schema.pop("$defs", {}))
    return schema


def _json_content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _title(function: Function) -> str:
    return str(getattr(function, "__module__", "service")).partition(".")[0]


if __name__ == "__main__":
    sys.exit(main())
