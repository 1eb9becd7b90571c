"""What a value consists of: texts in it that count as values too. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from urllib.parse import unquote

LEAST = 6
"""Minimum length in characters of a part that counts as a value."""

MOST = 256
"""Parts of one value at most: each costs a little for every line of output."""

_LONGEST_DOCUMENT = 1 << 20
_ASSIGNMENT = re.compile(r"""\s*(?:export\s+)?["']?[\w.-]{1,100}["']?\s*[:=]\s*(\S.*?)[\s,;]*\Z""")
_CREDENTIALS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^\s/?#]*)@")
_PAIR = re.compile(r"""(?:\A|\s)[\w.-]{1,100}\s?=\s?(?:'((?:[^'\\]|\\.)*)'|([^\s']\S*))""")
_NETRC = re.compile(r"(?:\A|\s)(?:machine\s{1,8}\S+|default)\s")
_NETRC_SECRET = re.compile(r"(?:\A|\s)(?:login|password|account)\s{1,8}(\S+)")
_HEADER = re.compile(r"(?:\A|[\s:\"'])(?:Basic|Bearer|Token) {1,8}([A-Za-z0-9+/=_~.-]+)")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{8,8192}={0,2}\Z")


def parts_of(value: str) -> list[str]:
    """Texts in a value that count as values too.

    These are the texts and numbers of a JSON document, the document as Python and JavaScript would write it again, the
    password of a URL, what stands after ``name:`` or ``name=`` in a line, or between ``;`` and ``&``, or in a list of
    ``name=value``; logins and passwords of a ``.netrc``; what follows ``Basic`` and ``Bearer``; and the password of
    ``user:password`` in base64, as in Docker's configuration.
    """
    found: dict[str, None] = {}
    document = _document(value)
    if document is not None:
        for again in (
            json.dumps(document),
            json.dumps(document, ensure_ascii=False, separators=(",", ":")),
            json.dumps(document, sort_keys=True),
            str(document),
        ):
            found.setdefault(again)
        for leaf in _leaves(document):
            found.setdefault(leaf)
            found.update(dict.fromkeys((*_of_text(leaf), *_of_base64(leaf))))
    else:
        found.update(dict.fromkeys(_of_text(value)))
    return [item for item in found if item != value and len(item) >= LEAST][:MOST]


def _document(value: str) -> object:
    if len(value) > _LONGEST_DOCUMENT or value.lstrip()[:1] not in ("{", "["):
        return None
    try:
        found: object = json.loads(value)
        json.dumps(found)
    except (ValueError, RecursionError):
        return None
    return found


def _leaves(document: object) -> Iterator[str]:
    level = [document]
    while level:
        item = level.pop(0)
        if isinstance(item, dict):
            level += item.values()
        elif isinstance(item, list):
            level += item
        elif isinstance(item, str):
            yield item
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield str(item)


def _of_text(text: str) -> Iterator[str]:
    for found in _CREDENTIALS.finditer(text):
        user, colon, password = found[1].partition(":")
        secret = password if colon else user
        yield from (secret, unquote(secret))
    if _NETRC.search(text):
        for item in _NETRC_SECRET.finditer(text):
            yield item[1]
    for item in _HEADER.finditer(text):
        yield item[1]
        yield from _of_base64(item[1])
    for item in _PAIR.finditer(text):
        yield re.sub(r"\\(.)", r"\1", item[1]) if item[1] is not None else item[2]
    for line in re.split(r"[\r\n;&]", text):
        assigned = _ASSIGNMENT.match(line)
        if assigned is None:
            continue
        right = assigned[1]
        yield right
        if right[:1] in "\"'" and right[-1:] == right[:1]:
            yield right[1:-1]


def _of_base64(text: str) -> Iterator[str]:
    """The password of ``user:password`` in base64."""
    if len(text) % 4 or not _BASE64.match(text):
        return
    try:
        user, colon, password = base64.b64decode(text).decode().partition(":")
    except UnicodeDecodeError:
        return
    if colon and user.isprintable():
        yield password
