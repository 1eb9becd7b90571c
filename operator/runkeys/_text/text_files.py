"""The text of files that people write with any editor or shell. Pure."""

from __future__ import annotations

import codecs

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode(raw: bytes) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 or UTF-32 as PowerShell writes it, without a byte order mark.

    Any other encoding is refused. To guess one would give a wrong password without a word.

    :raises ValueError: the text is not in one of these. The message names the line and never shows it.
    """
    mark, encoding = next(
        ((mark, name) for mark, name in _MARKS if raw.startswith(mark)), (b"", _without_mark(raw))
    )
    try:
        return raw[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: len(mark) + error.start].count(b"\n") + 1
    # Outside of `except`: the error of the codec holds the whole text.
    raise ValueError(f"line {line} is not text in {encoding.upper().removesuffix('-LE').removesuffix('-BE')}")


def _without_mark(raw: bytes) -> str:
    """The encoding by the first two characters, as JSON's parsers find it: those of such files are plain letters."""
    first = raw[:2]
    if len(first) == 2 and (first[0] == 0) != (first[1] == 0):
        return "utf-16-be" if first[0] == 0 else "utf-16-le"
    return "utf-8"
