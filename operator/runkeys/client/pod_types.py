"""The fields of a pod template and their types, as the Kubernetes client has them: what does not fit them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_LIST, _MAP = re.compile(r"[Ll]ist\[(.*)\]"), re.compile(r"[Dd]ict[\[(]str, (.*)[\])]")
_PLAIN: dict[str, tuple[str, tuple[type, ...]]] = {
    "str": ("a string", (str,)),
    "int": ("a whole number", (int,)),
    "float": ("a number", (int, float)),
    "bool": ("true or false", (bool,)),
}
_QUANTITIES = ("limits", "requests", "overhead", "sizeLimit", "divisor", "capacity")
"""Quantities are strings there, and may be written as numbers."""


def misfits(template: Any, path: str) -> Iterator[str]:
    """Fields of another type than the API server takes, with what to do. Values are not repeated."""
    for kind, where, wanted, found in _walk(template, "V1PodTemplateSpec", path):
        if kind == "misfit":
            hint = "; write it in quotes" if wanted == "a string" else ""
            yield f"{where}: must be {wanted}, not {found}{hint}"


def unknown_fields(template: Any, path: str) -> Iterator[str]:
    """Paths of fields that a pod template does not have."""
    for kind, where, _, _ in _walk(template, "V1PodTemplateSpec", path):
        if kind == "unknown":
            yield where


def _walk(value: Any, type_name: str, path: str) -> Iterator[tuple[str, str, str, str]]:
    if value is None or type_name in ("object", "datetime", "bytes"):
        return
    if type_name in _PLAIN:
        wanted, types = _PLAIN[type_name]
        fits = isinstance(value, types) and (type_name == "bool" or not isinstance(value, bool))
        if not fits:
            yield "misfit", path, wanted, _name_of(value)
        return
    of_list, of_map = _LIST.fullmatch(type_name), _MAP.fullmatch(type_name)
    if of_list is not None:
        if not isinstance(value, list):
            yield "misfit", path, "a list", _name_of(value)
            return
        for index, item in enumerate(value):
            yield from _walk(item, of_list[1], f"{path}[{index}]")
    elif not isinstance(value, dict):
        yield "misfit", path, "an object", _name_of(value)
    elif of_map is not None:
        for key, item in value.items():
            yield from _walk(item, of_map[1], f"{path}.{key}")
    else:
        yield from _fields(value, type_name, path)


def _fields(value: dict[str, Any], type_name: str, path: str) -> Iterator[tuple[str, str, str, str]]:
    from kubernetes.client import models

    model = getattr(models, type_name)
    known = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    for key, item in value.items():
        if key not in known:
            yield "unknown", f"{path}.{key}", "", ""
        elif key not in _QUANTITIES or isinstance(item, bool):
            yield from _walk(item, known[key], f"{path}.{key}")


def _name_of(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        bool: "true or false",
        str: "a string",
        float: "a number",
        int: "a number",
    }
    return names.get(type(value), type(value).__name__)
