"""Pieces of CEL, and of the objects that hold it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from runkeys.api import GROUP, VERSION

Object = dict[str, Any]

WHO = "request.userInfo.username"


def text(value: str) -> str:
    """A string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quoted(term: str) -> str:
    """CEL: a text as a word of a shell, as :func:`shlex.quote` writes it."""
    plain = f"{term}.matches('^[a-zA-Z0-9@%+=:,./_-]+$')"
    return f"({plain} ? {term} : {in_quotes(term)})"


def in_quotes(term: str) -> str:
    """CEL: the same for a text that has to be quoted in any case."""
    return f"'\\'' + {term}.replace('\\'', '\\'\"\\'\"\\'') + '\\''"


def word(template: str, **parts: str) -> str:
    """CEL: one word of a shell, in which each ``<name>`` stands for an expression."""
    return quoted(f"({filled(template, **parts)})")


def listed(values: Sequence[str]) -> str:
    """A list of strings."""
    return f"[{', '.join(text(value) for value in values)}]"


def filled(template: str, **parts: str) -> str:
    """CEL for ``template``, in which each ``<name>`` stands for an expression."""
    pieces = re.split(r"<(\w+)>", template)
    terms = [parts[piece] if index % 2 else text(piece) for index, piece in enumerate(pieces) if piece]
    return " + ".join(terms)


def may(verb: str, group: str, resource: str, name: str = "") -> str:
    """Whether RBAC lets the requester do that in the namespace. One call costs 350,000."""
    named = f".name({name})" if name else ""
    return (
        f"authorizer.group({text(group)}).resource({text(resource)}).namespace(request.namespace)"
        f"{named}.check({text(verb)}).allowed()"
    )


def label(of: str, label: str) -> str:
    """A label of an object; '' if it has none of that key."""
    return f"{of}.metadata.?labels[?{text(label)}].orValue('')"


def rule(operations: str, *resources: str, group: str = "", version: str = "v1") -> Object:
    """What a policy is about; ``operations`` with blanks between them."""
    return {
        "apiGroups": [group],
        "apiVersions": [version],
        "operations": operations.split(),
        "resources": list(resources),
        "scope": "*",
    }


def ours(operations: str, *resources: str) -> Object:
    """The same, for Runkeys' kinds."""
    return rule(operations, *resources, group=GROUP, version=VERSION)


def match(*rules: Object) -> Object:
    """The ``matchConstraints`` with every default."""
    return {
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
        "resourceRules": list(rules),
    }


def policy(
    rules: Sequence[Object],
    validations: Sequence[Object],
    variables: dict[str, str] | None = None,
    condition: tuple[str, str] | None = None,
) -> Object:
    """The spec of a validating policy. ``condition``: name and CEL of when it counts at all."""
    spec: Object = {"failurePolicy": "Fail", "matchConstraints": match(*rules)}
    if condition is not None:
        spec["matchConditions"] = [{"name": condition[0], "expression": condition[1]}]
    if variables:
        spec["variables"] = [{"name": name, "expression": text} for name, text in variables.items()]
    return {**spec, "validations": list(validations)}


def check(expression: str, message: str, told: str = "") -> Object:
    """One validation. ``message`` is fixed; ``told`` is CEL for what can only be said of the request at hand."""
    found = {"expression": expression, "message": message, "reason": "Forbidden"}
    return {**found, "messageExpression": told} if told else found
