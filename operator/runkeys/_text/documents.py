"""JSON that others wrote, read so that no text, however deep, crashes its reader. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 100
"""Levels of objects and lists in a document of a run: its input, a template, an output.

What walks a document calls itself for each level, and so do the parsers: Python's gives up at about 1,000 levels,
pydantic's at 200. The API server stores up to 10,000.
"""

TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"

_DEEPEST_ANSWER = 2 * MAX_DEPTH
"""An object has a few levels above its documents and a list two more: a document that is cut here is still too deep."""

_LONGEST_INTEGER = 300
"""Digits. The API server keeps large numbers as floating point, and these have fewer."""

EXACT_INTEGERS = range(-(2**63), 2**63)
"""Integers that the API server keeps. It rounds all others to floating point."""

_ROUNDED = "a whole number of more than 64 bits, which the API server rounds; write it as a string"

_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.DOTALL)


def read(text: bytes | str) -> Any:
    """Parse a JSON text; objects and lists that are nested too deep to be read are left out.

    :raises ValueError: it is no JSON.
    """
    try:
        return json.loads(text)
    except RecursionError:
        pass
    try:
        return json.loads(without_depths(text.encode() if isinstance(text, str) else text))
    except RecursionError:  # brackets without an end
        raise ValueError("not JSON") from None


def without_depths(text: bytes) -> bytes:
    """The text with null in place of anything nested too deep to be read. For parsers of other libraries."""
    if text.count(b"{") + text.count(b"[") <= _DEEPEST_ANSWER:
        return text  # by far the most common case
    kept: list[bytes] = []
    depth, start = 0, 0
    for found in _STRING_OR_BRACKET.finditer(text):
        what = found[0]
        if what in (b"{", b"["):
            if depth == _DEEPEST_ANSWER:
                kept += (text[start : found.start()], b"null")
            depth += 1
        elif what in (b"}", b"]"):
            depth -= 1
            if depth == _DEEPEST_ANSWER:
                start = found.end()
    kept.append(text[start:])
    return b"".join(kept)


def compact(document: Any) -> str:
    """The shortest JSON of a document."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def is_too_deep(document: Any) -> bool:
    """Whether it has more than ``MAX_DEPTH`` levels of objects and lists."""
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(item: dict[str, Any] | list[Any]) -> Iterator[Any]:
    return iter(item.values() if isinstance(item, dict) else item)


def altered(document: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and message of each value that would not be read as it was written, or is not JSON.

    :param document: of at most ``MAX_DEPTH`` levels. :param at: its path. No message repeats a value.
    """
    if isinstance(document, dict):
        for key, value in document.items():
            yield from altered(value, f"{at}.{key}" if at else str(key))
    elif isinstance(document, list | tuple):
        for index, value in enumerate(document):
            yield from altered(value, f"{at}[{index}]")
    elif isinstance(document, float):
        if not math.isfinite(document):
            yield at, "is infinite or no number, which is not JSON; write it as a string"
    elif isinstance(document, int):
        if document not in EXACT_INTEGERS:
            yield at, f"is {_ROUNDED}"
    elif document is not None and not isinstance(document, str):
        yield at, f"is a {type(document).__name__}, which is not JSON; write it in quotes"


def shallow(document: Any) -> Any:
    """The document; of one that is too deep so much that it still is, and that everything can walk it."""
    return _first_levels(document, MAX_DEPTH + 1) if is_too_deep(document) else document


def _first_levels(document: Any, levels: int) -> Any:
    if isinstance(document, dict):
        return {key: _first_levels(value, levels - 1) for key, value in document.items()} if levels else None
    if isinstance(document, list):
        return [_first_levels(value, levels - 1) for value in document] if levels else None
    return document


def output(text: str) -> Any:
    """The JSON document that a task wrote, as a status can hold it.

    :raises ValueError: it cannot be kept; the text says what is wrong with it.
    """
    try:
        found = json.loads(text, parse_constant=_constant, parse_int=_integer, parse_float=_float)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except json.JSONDecodeError:
        raise ValueError("is not JSON") from None
    if is_too_deep(found):
        raise ValueError(TOO_DEEP)
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a character (a single escape between \\ud800 and \\udfff)") from None
    return found


def _constant(name: str) -> None:
    raise ValueError(f"holds {name}, which is not JSON")


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise ValueError("holds a number that is too large")
    found = int(text)
    if found not in EXACT_INTEGERS:
        raise ValueError(f"holds {_ROUNDED}")
    return found


def _float(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise ValueError("holds a number that is too large")
    return found
