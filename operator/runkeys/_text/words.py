"""Words for people: commands that they can copy out of a message, and texts that a terminal shows and does not obey.

Names in messages are those of objects that somebody else made, whom the reader need not trust. So every command is made
here, and what the command line prints goes through `runkeys.cli._printing`.
"""

from __future__ import annotations

import re
import shlex  # noqa: TID251
import unicodedata


def shell(*words: str) -> str:
    """A command quoted for a shell, whatever is in its words."""
    return shlex.join(words)


def kubectl(namespace: str, *words: str) -> str:
    """A kubectl command in a namespace."""
    return shell("kubectl", "-n", namespace, *words)


_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that a terminal obeys, or that change how the others are shown."""

_COLOR = re.compile(r"(\x1b\[[0-9;]{0,20}m)")


def visible(text: str, keep: str = "\n\t") -> str:
    r"""``text`` with control characters written out, as ``\u001b``: in JSON that still says the same."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character in keep or unicodedata.category(character) not in _HIDDEN
        else _escape(character)
        for character in text
    )


def line(text: object) -> str:
    """The same for one line: what would begin another one, or another column, is written out too."""
    return visible(str(text), keep="")


def log_line(text: str) -> str:
    """A line that a program wrote for a terminal: it keeps its colours."""
    parts = _COLOR.split(text.rstrip("\r\n"))
    return "".join(part if index % 2 else visible(part, keep="\t") for index, part in enumerate(parts))


def _escape(character: str) -> str:
    """As JSON does it: what is beyond 16 bits in two halves."""
    halves = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{halves[at : at + 2].hex()}" for at in range(0, len(halves), 2))
