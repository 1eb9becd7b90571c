"""What an API server would refuse of an object, found without one.

The rules are those of the CustomResourceDefinition itself: its schema, and its CEL rules, which a CEL library
evaluates. So they are written once, and the words are the API server's. Rules about changes of an object do not apply:
an object is looked at as it is created.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from runkeys._text.documents import compact
from runkeys.problems import Problem

if TYPE_CHECKING:
    from runkeys.api.crd import Kind

Json = dict[str, Any]

_RULES, _PRESERVE = "x-kubernetes-validations", "x-kubernetes-preserve-unknown-fields"
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
}
_BLOCKING = (": Required value", "must be of type ", ": Too long", ": Too many")
"""After one of these an API server does not evaluate CEL rules."""

_LABEL = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_SUBDOMAIN = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
_IS_SUBDOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_SUBDOMAIN}\Z")
_IS_LABEL_KEY = re.compile(rf"(?:(?=.{{1,253}}/){_SUBDOMAIN}/)?{_LABEL}\Z")
_IS_LABEL_VALUE = re.compile(rf"(?:{_LABEL})?\Z")

SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character"
)
LABEL = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character, at most 63 of them"
)


def refusals(kind: type[Kind], raw: Mapping[str, Any]) -> list[str]:
    """Everything that an API server would refuse of an object of this kind, without its values.

    :raises Problem: what evaluates the rules is not installed.
    """
    try:
        import cel  # noqa: F401

        schema = _schema(kind)
    except ImportError as error:
        problem = Problem(
            f"the kinds' rules cannot be evaluated: {error.name} is not installed; pip install 'runkeys[cli]'"
        )
    else:
        return _refusals(schema, raw)
    raise problem


def _refusals(schema: Json, raw: Mapping[str, Any]) -> list[str]:
    found = list(_unknown(schema, raw, ""))
    metadata = raw.get("metadata")
    errors = list(_schema_errors(schema, {**raw, "metadata": metadata if metadata is not None else {}}, ""))
    if not errors:
        errors += _metadata_errors(raw.get("metadata") or {})
    if not any(mark in error for error in errors for mark in _BLOCKING):
        errors += _broken_rules(schema, _view(schema, raw), "")
    return found + errors


@cache
def _schema(kind: type[Kind]) -> Json:
    from runkeys.api.crd import manifest

    found: Json = manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found["properties"]["metadata"] = {
        "type": "object",
        _PRESERVE: True,
        "properties": {"name": {"type": "string"}},
    }
    return found


# the schema


def _unknown(schema: Json, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _unknown(schema["items"], item, f"{path}[{index}]")
    if not isinstance(value, dict) or schema.get(_PRESERVE):
        return
    known = schema.get("properties", {})
    for key, item in value.items():
        here = f"{path}.{key}" if path else str(key)
        if key in known:
            yield from _unknown(known[key], item, here)
        elif "additionalProperties" in schema:
            yield from _unknown(schema["additionalProperties"], item, here)
        else:
            yield f'unknown field "{here}"'


def _schema_errors(schema: Json, value: Any, path: str) -> Iterator[str]:
    wanted = schema.get("type")
    if wanted is not None and not _is_a(wanted, value):
        found = _name_of(value)
        yield f'{path}: Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
        return
    if isinstance(value, str):
        yield from _string_errors(schema, value, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            limit = schema["minimum"]
            yield f"{path}: Invalid value: {value}: {path} in body should be greater than or equal to {limit}"
        if value > schema.get("maximum", value):
            limit = schema["maximum"]
            yield f"{path}: Invalid value: {value}: {path} in body should be less than or equal to {limit}"
    elif isinstance(value, list):
        yield from _list_errors(schema, value, path)
    elif isinstance(value, dict):
        yield from _object_errors(schema, value, path)


def _string_errors(schema: Json, value: str, path: str) -> Iterator[str]:
    if len(value) > schema.get("maxLength", len(value)):
        yield f"{path}: Too long: may not be more than {schema['maxLength']} bytes"
    if len(value) < schema.get("minLength", 0):
        least = schema["minLength"]
        yield f'{path}: Invalid value: "": {path} in body should be at least {least} chars long'


def _list_errors(schema: Json, value: list[Any], path: str) -> Iterator[str]:
    if len(value) > schema.get("maxItems", len(value)):
        yield f"{path}: Too many: {len(value)}: must have at most {schema['maxItems']} items"
    if len(value) < schema.get("minItems", 0):
        yield f"{path}: Invalid value: {len(value)}: {path} in body should have at least {schema['minItems']} items"
    for index, item in enumerate(value):
        yield from _schema_errors(schema["items"], item, f"{path}[{index}]")
    keys, seen = schema.get("x-kubernetes-list-map-keys", []), set()
    for index, item in enumerate(value if keys else []):
        if not isinstance(item, dict):
            continue
        key = compact({name: item.get(name) for name in keys})
        if key in seen:
            yield f"{path}[{index}]: Duplicate value: {key}"
        seen.add(key)


def _object_errors(schema: Json, value: Json, path: str) -> Iterator[str]:
    if len(value) > schema.get("maxProperties", len(value)):
        yield f"{path}: Too many: {len(value)}: must have at most {schema['maxProperties']} items"
    known = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield f"{_below(path, name)}: Required value"
    for key, item in value.items():
        inner = known.get(key, schema.get("additionalProperties"))
        # A null is taken out where there is a default to put in its place.
        if inner is not None and not (item is None and "default" in inner):
            yield from _schema_errors(inner, item, _below(path, str(key)))


def _is_a(wanted: str, value: Any) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[wanted])


def _name_of(value: Any) -> str:
    """What the API server calls the type of a value."""
    if value is None:
        return "null"
    return next((name for name in _TYPES if _is_a(name, value)), type(value).__name__)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _metadata_errors(metadata: Json) -> Iterator[str]:
    for field in ("name", "namespace"):
        text = metadata.get(field)
        if text is not None and (not isinstance(text, str) or _IS_SUBDOMAIN.match(text) is None):
            yield f"metadata.{field}: Invalid value: {SUBDOMAIN}"
    for field in ("labels", "annotations"):
        items = metadata.get(field) or {}
        if not isinstance(items, dict):
            yield f"metadata.{field}: Invalid value: must be an object of texts"
            continue
        for key, value in items.items():
            if not isinstance(value, str):
                yield f"metadata.{field}: Invalid value: {key} must be a string: write its value in quotes"
            elif field == "labels" and _IS_LABEL_VALUE.match(value) is None:
                yield f"metadata.labels: Invalid value: {key}: {LABEL}"
            if _IS_LABEL_KEY.match(str(key)) is None:
                yield (
                    f"metadata.{field}: Invalid value: name part must consist of alphanumeric characters, '-', '_' or"
                    " '.', and must start and end with an alphanumeric character"
                )


# the CEL rules


def _view(schema: Json, value: Any) -> Any:
    """What rules can see of a value: fields that the schema names, with their defaults."""
    if isinstance(value, list) and "items" in schema:
        return [_view(schema["items"], item) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    given = {key: item for key, item in value.items() if item is not None}
    defaults = {key: inner["default"] for key, inner in known.items() if "default" in inner}
    more = schema.get("additionalProperties")
    return {
        str(key): _view(known.get(key, more), item)
        for key, item in (defaults | given).items()
        if key in known or more is not None
    }


def _broken_rules(schema: Json, value: Any, path: str) -> Iterator[str]:
    for rule in schema.get(_RULES, []):
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"], value):
            yield f"{path or '<nil>'}: Forbidden: {rule['message']}"
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _broken_rules(schema["items"], item, f"{path}[{index}]")
    elif isinstance(value, dict):
        known = schema.get("properties", {})
        for key, item in value.items():
            if key in known:
                yield from _broken_rules(known[key], item, _below(path, key))
            elif "additionalProperties" in schema:
                yield from _broken_rules(schema["additionalProperties"], item, f"{path}[{key}]")


def _holds(rule: str, value: Any) -> bool:
    try:
        return _compiled(rule).execute({"self": value}) is True
    except (
        RuntimeError,
        TypeError,
        ValueError,
    ):  # as in an API server, a rule that cannot be evaluated refuses
        return False


@cache
def _compiled(rule: str) -> Any:
    import cel

    return cel.compile(rule)
