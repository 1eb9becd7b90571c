"""From a pydantic model's JSON schema to the structural schema that a CustomResourceDefinition takes.

Pydantic writes references, titles, ``anyOf [X, null]`` and ``additionalProperties: false``; an API
server takes none of them. It also repeats the refused value in its answer, and so in the audit log,
when ``enum``, ``pattern``, ``format`` or a CEL rule on a plain field fails. So an ``enum`` becomes a CEL
rule with a fixed message here, every CEL rule gets the reason Forbidden, which is the one that leaves
the value out, and the others are errors, so that no model can bring them in unnoticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

Schema = dict[str, Any]

VALIDATIONS = "x-kubernetes-validations"
PRESERVE = "x-kubernetes-preserve-unknown-fields"

# Kept as they are, and written in this order.
_SIMPLE = (
    "type",
    "format",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    PRESERVE,
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)
_HANDLED = (
    "title",
    "description",
    "enum",
    "const",
    "properties",
    "required",
    "items",
    "additionalProperties",
    VALIDATIONS,
)
# messageExpression is left out on purpose: it can put a value into the message.
_RULE_KEYS = ("rule", "message", "fieldPath", "optionalOldSelf")
_WITHOUT_VALUE = {"reason": "FieldValueForbidden"}


class SchemaError(ValueError):
    """A model says something that a CRD cannot or must not say. The message names the field and the way out."""


def structural_schema(raw: Schema) -> Schema:
    """Convert the JSON schema of a model (``model.model_json_schema(by_alias=True)``).

    :returns: the structural schema: plain JSON types, keys in a fixed order, new on every call.
    :raises SchemaError: a field has no description, a list or map of the spec has no limit, or the
        schema holds something that a CRD does not take.
    """
    root = {key: value for key, value in raw.items() if key != "$defs"}
    return _Place(raw.get("$defs", {})).convert(root)


@dataclass(frozen=True)
class _Place:
    """Where in the schema we are: the field path for messages, and the models that we are inside of."""

    definitions: dict[str, Schema]
    path: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()

    def convert(self, node: Schema) -> Schema:
        place, node = self.resolve(node)
        place.check_keywords(node)
        rules, description = place.rules_and_description(node)
        out: Schema = {"description": description} if description else {}
        out |= {key: node[key] for key in _SIMPLE if key in node}
        if out.get("default", ...) is None:
            del out["default"]
        elif "default" in out:
            out["default"] = _without_nulls(out["default"])
        out |= place.object_parts(node) | place.array_parts(node)
        if rules:
            out[VALIDATIONS] = rules
        if "type" not in out and PRESERVE not in out and "x-kubernetes-int-or-string" not in out:
            raise place.error("has no type", f"say what it is, or allow anything with {PRESERVE}")
        return out

    def resolve(self, node: Schema) -> tuple[_Place, Schema]:
        """Replace references and ``X | None`` by X; what the field itself says comes before what X says."""
        place = self
        while True:
            node = dict(node)
            if (reference := node.pop("$ref", None)) is not None:
                name = str(reference).removeprefix("#/$defs/")
                if name in place.inside:
                    raise place.error(f"contains {name} within itself", "a CRD needs a finite schema")
                place = replace(place, inside=(*place.inside, name))
                base = place.definitions[name]
            elif (options := node.pop("anyOf", None)) is not None:
                base = place.only([option for option in options if option.get("type") != "null"])
            elif (parts := node.pop("allOf", None)) is not None:
                base = place.only(parts)
            else:
                return place, node
            rules = [*base.get(VALIDATIONS, ()), *node.get(VALIDATIONS, ())]
            node = {**base, **node} | ({VALIDATIONS: rules} if rules else {})

    def only(self, options: list[Schema]) -> Schema:
        if len(options) != 1:
            raise self.error("may be of several types", "a CRD takes one: give each its own field")
        return options[0]

    def check_keywords(self, node: Schema) -> None:
        if "pattern" in node:
            raise self.error(
                "has a pattern", "an API server repeats a refused value: use a CEL rule with matches()"
            )
        if node.get("minLength", 0) > 1:
            raise self.error(
                "has a minLength over 1", "an API server repeats a refused value: use a CEL rule"
            )
        if unknown := sorted(set(node) - {*_SIMPLE, *_HANDLED}):
            raise self.error(f"uses {', '.join(unknown)}", "a CRD has no such keyword: use a CEL rule")
        form = node.get("format")
        if form in {"int32", "int64"} or (form == "date-time" and not self.in_spec):
            return
        if form is not None:
            raise self.error(f"has format {form}", "an API server repeats a refused value: use a CEL rule")

    def rules_and_description(self, node: Schema) -> tuple[list[Schema], str]:
        """CEL rules and description; the values of an enum or const go into both."""
        rules = []
        for rule in node.get(VALIDATIONS, ()):
            if not rule.get("rule") or not rule.get("message") or set(rule) - {*_RULE_KEYS}:
                raise self.error(
                    "has a CEL rule of another shape",
                    f"give rule and a fixed message; known are {', '.join(_RULE_KEYS)}",
                )
            rules.append({key: rule[key] for key in _RULE_KEYS if key in rule} | _WITHOUT_VALUE)
        description = _text(str(node.get("description", "")))
        allowed = [node["const"]] if "const" in node else node.get("enum", [])
        if allowed:
            names = ", ".join(str(value) for value in allowed)
            rules.insert(
                0,
                {
                    "rule": f"self in [{', '.join(self.literal(value) for value in allowed)}]",
                    "message": f"must be one of: {names}" if len(allowed) > 1 else f"must be {names}",
                    **_WITHOUT_VALUE,
                },
            )
            if not all(str(value) in description for value in allowed):
                description = f"{description} One of: {names}.".lstrip()
        return rules, description

    def object_parts(self, node: Schema) -> Schema:
        if node.get("type") != "object":
            return {}
        out: Schema = {}
        if properties := node.get("properties"):
            out["properties"] = {name: self.field(name, value) for name, value in properties.items()}
        if required := node.get("required"):
            out["required"] = list(required)
        additional = node.get("additionalProperties", False)
        if isinstance(additional, dict) and additional:
            if properties:
                raise self.error("has fields and free keys", "a CRD takes one of the two")
            if self.in_spec and "maxProperties" not in node:
                raise self.error("is a map without a limit", "give max_length")
            out["additionalProperties"] = self.at("*").convert(additional)
        elif additional is not False and not node.get(PRESERVE):
            raise self.error("takes any content", f"say what its values are, or allow it with {PRESERVE}")
        return out

    def field(self, name: str, node: Schema) -> Schema:
        out = self.at(name).convert(node)
        if "description" not in out:
            raise self.at(name).error("has no description", "kubectl explain shows it: write one")
        return out

    def array_parts(self, node: Schema) -> Schema:
        if node.get("type") != "array":
            return {}
        if "items" not in node:
            raise self.error("is a list of anything", "say what its items are")
        if self.in_spec and "maxItems" not in node:
            raise self.error("is a list without a limit", "the cost of CEL rules counts it: give max_length")
        return {"items": self.at("[]").convert(node["items"])}

    @property
    def in_spec(self) -> bool:
        return self.path[:1] == ("spec",)

    def at(self, name: str) -> _Place:
        return replace(self, path=(*self.path, name))

    def literal(self, value: object) -> str:
        """Write a value of an enum as CEL."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int):
            return str(value)
        if isinstance(value, str):
            return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        raise self.error(f"allows {value!r}", "only strings, whole numbers and booleans can be listed")

    def error(self, found: str, remedy: str) -> SchemaError:
        return SchemaError(f"{'.'.join(self.path).replace('.[]', '[]') or 'the model'} {found}: {remedy}")


def _without_nulls(value: object) -> object:
    """Leave out nulls: pydantic writes them into the default of a whole object, and an API server refuses them."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _text(description: str) -> str:
    """Unwrap the lines of each paragraph of a docstring, without reStructuredText's double quotes."""
    paragraphs = re.split(r"\n\s*\n", description.replace("``", "`"))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
