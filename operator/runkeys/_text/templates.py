"""Templates of binding entries: values of other entries in a text. Substitution, and nothing else. Pure.

``{{ name }}`` stands for the value of an entry, ``{{ name | url }}`` for the value in an encoding, ``{{ a:b }}`` for
two values with a colon between them. ``{{ "{{" }}`` is a literal ``{{``. A ``}}`` that closes nothing is text, as in
JSON.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

LONGEST = 4096
"""Maximum length of a template in characters."""

NAME = "[A-Za-z0-9][-A-Za-z0-9_.]*"
"""Names of entries that a template can refer to, as a regular expression."""

_OPEN, _CLOSE = "{{", "}}"
_LITERAL = '"{{"'
_REFERENCE = re.compile(rf"({NAME}(?::{NAME})*)(?:[ \t]*\|[ \t]*([a-z0-9]+))?\Z")
_SHOWN = 60

_ELSEWHERE: Mapping[str, str] = {
    "b64enc": "base64",
    "toJson": "json",
    "tojson": "json",
    "quote": "json",
    "squote": "json",
    "urlquery": "url",
    "urlencode": "url",
}
"""Encodings by the names that they have in other tools."""


class TemplateError(ValueError):
    """A template cannot be read. The text says what was found and what to do."""


class TooLongError(ValueError):
    """The result is longer than allowed."""


class NotTextError(ValueError):
    """A value is not text, and its encoding is for text. ``name`` is its entry."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Substitution:
    """The place of a value.

    :ivar names: of the entries. Several are joined with colons, as in basic authentication.
    :ivar encoding: ``url``, ``json`` or ``base64``; empty: the value as it is.
    """

    names: tuple[str, ...]
    encoding: str = ""


@dataclass(frozen=True)
class Template:
    """A template that was read: text, and the places of values."""

    pieces: tuple[str | Substitution, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The entries that it refers to, each once."""
        found = (name for piece in self.pieces if isinstance(piece, Substitution) for name in piece.names)
        return tuple(dict.fromkeys(found))

    def render(self, values: Mapping[str, bytes], most: int) -> bytes:
        """The text with the values in it.

        :param most: maximum length in bytes. Nothing longer is put together.
        :raises TooLongError: it would be longer.
        :raises NotTextError: ``json`` is for text.
        """
        kept: list[bytes] = []
        left = most
        for piece in self.pieces:
            part = piece.encode() if isinstance(piece, str) else _encoded(piece, values, left)
            left -= len(part)
            if left < 0:
                raise TooLongError
            kept.append(part)
        return b"".join(kept)


def parse(text: str) -> Template:
    """Read a template. Raises TemplateError."""
    pieces: list[str | Substitution] = []
    at = 0
    while (begin := text.find(_OPEN, at)) >= 0:
        if begin > at:
            pieces.append(text[at:begin])
        end = text.find(_CLOSE, begin)
        if end < 0:
            raise TemplateError(
                f"{_OPEN} in line {_line(text, begin)} has no {_CLOSE}; close it, or write {_OPEN} {_LITERAL} {_CLOSE}"
                f" for a literal {_OPEN}"
            )
        pieces.append(_piece(text[begin + 2 : end], _line(text, begin)))
        at = end + 2
    if at < len(text):
        pieces.append(text[at:])
    found = Template(tuple(pieces))
    if not found.names:
        raise TemplateError(
            "it refers to no entry, so it is no secret; write {{ name-of-an-entry }} where a value belongs, or give a"
            " plain variable to the task (env)"
        )
    return found


def _piece(inner: str, line: int) -> str | Substitution:
    stripped = inner.strip(" \t")
    if stripped == _LITERAL:
        return _OPEN
    found = _REFERENCE.match(stripped)
    if found is None:
        raise TemplateError(f"{_shown(inner)} in line {line} {_problem(stripped)}")
    encoding = found[2] or ""
    if encoding and encoding not in ENCODINGS:
        raise TemplateError(f"{_shown(inner)} in line {line} {_unknown_encoding(encoding)}")
    return Substitution(tuple(found[1].split(":")), encoding)


def _problem(inner: str) -> str:
    """What is wrong with a reference, in words; the first that fits."""
    if not inner:
        return "names no entry; write the name of an entry of the binding"
    if inner.startswith("{"):
        return "begins with three braces; put a space between the first and the others"
    if inner.startswith("-") or inner.endswith("-"):
        return "cuts white space; templates here only substitute: write {{ name }}"
    name, bar, encoding = (part.strip() for part in inner.partition("|"))
    if name.startswith("."):
        return f"begins with a dot; write the name alone: {{{{ {shortened(name.removeprefix('.'))} }}}}"
    if "|" in encoding:
        return "has several encodings; give one of url, json and base64"
    if bar and re.fullmatch(rf"{NAME}(:{NAME})*", name):
        return _unknown_encoding(encoding)
    return (
        "is no reference; write {{ name }} or {{ name | url }}. A name has letters, digits, '-', '_' and '.', and"
        " begins with a letter or digit: rename the entry if it has another name. There are no conditions, loops or"
        " functions"
    )


def _unknown_encoding(encoding: str) -> str:
    known = _ELSEWHERE.get(encoding)
    if known is not None:
        return f"has the encoding {encoding}, which is {known} here; write | {known}"
    return f"has an unknown encoding; there are: {', '.join(ENCODINGS)}"


def shortened(text: str) -> str:
    """``text``, cut to what a message shows of a template."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _shown(inner: str) -> str:
    return f"{_OPEN}{shortened(inner)}{_CLOSE}"


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _encoded(piece: Substitution, values: Mapping[str, bytes], most: int) -> bytes:
    length = sum(len(values[name]) + 1 for name in piece.names) - 1
    if length > most:  # no encoding makes it shorter
        raise TooLongError
    if piece.encoding == "json":
        for name in piece.names:
            _text(name, values[name])
    whole = b":".join(values[name] for name in piece.names)
    return ENCODINGS[piece.encoding](whole) if piece.encoding else whole


def _text(name: str, value: bytes) -> None:
    try:
        value.decode()
    except UnicodeDecodeError:
        pass
    else:
        return
    raise NotTextError(name)  # outside of the handler: the other exception has the value


def _url(value: bytes) -> bytes:
    return quote(value, safe="").encode()


def _json(value: bytes) -> bytes:
    return json.dumps(value.decode()).encode()


ENCODINGS: Mapping[str, Callable[[bytes], bytes]] = {"url": _url, "json": _json, "base64": base64.b64encode}
"""``url``: with percent signs, fit for each part of a URL. ``json``: a JSON text, with its quotes."""
