"""What a value consists of: texts in it that count as values too. Pure."""

from __future__ import annotations

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


def parts_of(value: str) -> list[str]:
    """Texts in a value that count as values too.

    These are the texts and numbers of a JSON document, the document as Python and JavaScript would write it again, the
    password of a URL, and what stands after ``name:`` or ``name=`` in a line, or between ``;`` and ``&``.
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
            found.update(dict.fromkeys(_of_text(leaf)))
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
    for line in re.split(r"[\r\n;&]", text):
        assigned = _ASSIGNMENT.match(line)
        if assigned is None:
            continue
        right = assigned[1]
        yield right
        if right[:1] in "\"'" and right[-1:] == right[:1]:
            yield right[1:-1]
