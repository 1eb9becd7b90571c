"""YAML and JSON files, read as `kubectl` reads them.

`kubectl` does not go by YAML 1.1 as PyYAML does: `12:30:00` is text there, `1e3` is a number, a date stays text, and
tags of other tools are passed over. A file must not mean one thing here and another thing there.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import yaml

from runkeys._text.documents import MAX_DEPTH, TOO_DEEP
from runkeys.problems import Invalid

T = TypeVar("T")

_TAG = "tag:yaml.org,2002:"
_PLAIN = "plain"
_MAX_NODES = 1_000_000
"""A larger object would not fit into a cluster. Only aliases of aliases come to more."""

_TRUE = frozenset({"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})
_FALSE = frozenset({"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LARGEST = 2**64
_STRING_OR_TAB = re.compile(r'"(?:[^"\\]|\\.)*"|\t', re.DOTALL)


def read_documents(path: str, text: str) -> list[Any]:
    """Return the documents of a YAML or JSON file, without empty ones.

    :raises Invalid: it is neither, or holds what no object can hold. The message names the line or the field, and
        never shows what is there.
    """
    found = _json_documents(path, text) if text.lstrip().startswith("{") else None
    if found is None:
        found = _guarded(path, lambda: _yaml_documents(path, text, _plain))
    return [_checked(document, path) for document in found if document is not None]


def read_json(path: str, text: str) -> Any:
    """Return the only document of a JSON text.

    :raises Invalid: it is no JSON, or holds what no object can hold.
    """
    try:
        found = json.loads(text, parse_int=_json_integer)
    except RecursionError:
        problem = f"{path}: it {TOO_DEEP}"
    except ValueError as error:
        problem = f"{path}, line {getattr(error, 'lineno', 1)}: this is not JSON"
    else:
        return _checked(found, path)
    raise Invalid(problem)


def yaml_nodes(path: str, text: str) -> list[yaml.Node | None]:
    """Return the documents of a YAML or JSON file as nodes, which know where they stand. Raises Invalid."""
    return _guarded(path, lambda: list(yaml.compose_all(_untabbed(text), Loader=yaml.SafeLoader)))


def read_texts(path: str, text: str) -> list[Any]:
    """Return the documents with every scalar as it is written: to compare two versions of a file. Raises Invalid."""
    return _guarded(path, lambda: list(_yaml_documents(path, _untabbed(text), str)))


def joined(text: str) -> str:
    r"""The text with halves of characters put together, which JSON writes one after the other: `\ud83d\ude00`.

    :raises ValueError: it holds one half alone.
    """
    try:
        return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be")
    except UnicodeDecodeError:
        pass  # it holds the text
    raise ValueError(f"it holds {_HALF}")


def _untabbed(text: str) -> str:
    """JSON may be indented with tabs, YAML may not. All else stays where it is."""
    if not text.lstrip().startswith("{"):
        return text
    return _STRING_OR_TAB.sub(lambda found: " " if found[0] == "\t" else found[0], text)


def _guarded(path: str, read: Callable[[], T]) -> T:
    """Call what parses YAML. Its errors quote the line, which may hold a value, so none of them is passed on."""
    try:
        return read()
    except RecursionError:
        problem = f"{path}: it {TOO_DEEP}"
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = (
            f"{path}{'' if mark is None else f', line {mark.line + 1}'}: this is not YAML; correct it first"
        )
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        # What the parser makes of some texts that are none, such as an escape beyond all characters.
        problem = f"{path}: this is not YAML; correct it first"
    raise Invalid(problem)


# JSON


def _json_documents(path: str, text: str) -> list[Any] | None:
    """Return one JSON object after another; None: it is YAML that begins with a brace, or nothing that can be read."""
    decoder = json.JSONDecoder(parse_int=_json_integer)
    found: list[Any] = []
    rest = text.strip()
    try:
        while rest:
            document, end = decoder.raw_decode(rest)
            found.append(document)
            rest = rest[end:].lstrip()
    except RecursionError:
        problem = f"{path}: it {TOO_DEEP}"
    except ValueError:
        return None
    else:
        return found
    raise Invalid(problem)


def _json_integer(text: str) -> int | float:
    return int(text) if len(text) < 20 else _number(text)


# YAML


class _Loader(yaml.BaseLoader):
    """Nodes whose tag says whether the scalar was plain: what a plain one means is decided here."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else f"{_TAG}str"
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


def _yaml_documents(path: str, text: str, plain: Callable[[str], Any]) -> list[Any]:
    return [_Reader(path, plain).value(node) for node in yaml.compose_all(text, Loader=_Loader)]


class _Reader:
    """Nodes as what JSON can hold."""

    def __init__(self, path: str, plain: Callable[[str], Any]) -> None:
        self._path, self._plain, self._count = path, plain, 0
        self._above: list[yaml.Node] = []
        self._field: list[str] = []

    def value(self, node: yaml.Node) -> Any:
        self._count += 1
        if self._count > _MAX_NODES or any(node is item for item in self._above):
            raise self._wrong(node, "its aliases come to more than a cluster can hold")
        if len(self._above) > 2 * MAX_DEPTH:
            raise self._wrong(node, TOO_DEEP)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        self._above.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._below(str(number), item) for number, item in enumerate(node.value)]
            return self._mapping(node)
        finally:
            self._above.pop()

    def _below(self, name: str, node: yaml.Node) -> Any:
        self._field.append(name)
        found = self.value(node)
        self._field.pop()
        return found

    def _mapping(self, node: yaml.Node) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        found: dict[str, Any] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag in (_PLAIN, f"{_TAG}merge") and key.value == "<<":
                for item in self._merged(value):
                    merged = {**item, **merged}
                continue
            name = self._key(key)
            found[name] = self._below(name, value)
        return {**merged, **found}

    def _merged(self, node: yaml.Node) -> Iterator[dict[str, Any]]:
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(item, yaml.MappingNode):
                raise self._wrong(item, "<< takes a mapping, or a list of them")
            yield self.value(item)

    def _key(self, node: yaml.Node) -> str:
        found = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(found, bool) and str(node.value) in ("y", "Y", "n", "N"):
            # To kubectl it is true or false. Nobody means that, and PyYAML writes such keys without quotes.
            raise self._wrong(
                node, f"the key {node.value} means true or false to kubectl; put quotes around it"
            )
        if isinstance(found, bool):
            return "true" if found else "false"
        if found is None:
            raise self._wrong(node, "a key must be a text; put quotes around it")
        return str(found)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text, kind = str(node.value), str(node.tag)
        if kind == _PLAIN:
            return self._plain(text)
        with contextlib.suppress(ValueError):  # a half alone is named with its field later
            text = joined(text)
        if kind == f"{_TAG}binary":
            try:
                return base64.b64decode(text.encode(), validate=False).decode()
            except ValueError:
                pass
            raise self._wrong(node, "!!binary is not base64 text")
        wanted: Any = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}.get(
            kind.removeprefix(_TAG)
        )
        if wanted is None:
            return text  # as kubectl: a tag that it does not know says nothing
        found = _plain(text)
        if not isinstance(found, wanted) or (isinstance(found, bool) and wanted is not bool):
            raise self._wrong(node, f"its tag !!{kind.removeprefix(_TAG)} does not fit")
        return found

    def _wrong(self, node: yaml.Node, what: str) -> Invalid:
        field = ".".join(self._field)
        where = f", {field}" if field else ""
        return Invalid(f"{self._path}, line {node.start_mark.line + 1}{where}: {what}")


def _plain(text: str) -> Any:
    """What a scalar without quotes means to `kubectl`."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _NO_NUMBER.fullmatch(text):
        return float(text.replace(".", "", 1))
    if text[0] not in "+-.0123456789":
        return text
    digits = text.replace("_", "")
    if _INTEGER.fullmatch(digits):
        found = _integer(digits)
        if -_LARGEST // 2 <= found < _LARGEST:
            return found
    return _number(digits) if _FLOAT.fullmatch(digits) else text


def _integer(digits: str) -> int:
    if len(digits) > 70:  # more than 64 bits in any base
        return _LARGEST
    plain = digits.lstrip("+-").lower()
    octal = 8 if len(plain) > 1 and plain[0] == "0" else 10
    return int(digits, {"0x": 16, "0b": 2}.get(plain[:2], octal))


def _number(digits: str) -> int | float:
    """As JSON's writers in Go have it: 1e3 is 1000, and an API server takes it for an integer."""
    found = float(digits)
    return int(found) if math.isfinite(found) and found.is_integer() and abs(found) < _LARGEST else found


# both


def _checked(document: Any, path: str) -> Any:
    """Return the document if an object can hold it. Raises Invalid, with the field."""
    todo: list[tuple[str, Any]] = [("", document)]
    while todo:
        field, node = todo.pop()
        if isinstance(node, dict):
            for key, value in node.items():
                if not _is_text(str(key)):
                    raise Invalid(f"{path}: {field or 'the document'}: the name of a field holds {_HALF}")
                todo.append((f"{field}.{key}" if field else str(key), value))
        elif isinstance(node, list):
            todo += [(f"{field}[{number}]", value) for number, value in enumerate(node)]
        elif isinstance(node, str) and not _is_text(node):
            raise Invalid(f"{path}: {field or 'the document'}: it holds {_HALF}")
        elif isinstance(node, float) and not math.isfinite(node):
            raise Invalid(
                f"{path}: {field or 'the document'}: NaN and infinity are not JSON; write a number, or text"
            )
    return document


_HALF = "half of a character (an escape between \\ud800 and \\udfff alone)"


def _is_text(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)
