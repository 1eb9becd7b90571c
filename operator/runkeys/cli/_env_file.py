"""Files of the form `.env`: one NAME=value on each line."""

from __future__ import annotations

import io

from runkeys.cli._input import read_text
from runkeys.problems import Invalid


def read_env_file(path: str) -> dict[str, str]:
    """Return the values of a file, a named pipe or standard input (``-``), by name, in order.

    Values are what is written: a ``$`` in one is no reference to another.

    :raises NotFound: there is no such file.
    :raises Invalid: it cannot be read, or a line is none. The message names the line and never shows it.
    """
    from dotenv.parser import parse_stream

    found: dict[str, str] = {}
    # The text and not the path: python-dotenv opens regular files in UTF-8 only, and some versions keep the mark.
    for item in parse_stream(io.StringIO(read_text(path))):
        blank = item.original.string
        line = item.original.line + blank[: len(blank) - len(blank.lstrip())].count("\n")
        if item.error:
            raise Invalid(f"{path}, line {line}: must be NAME=value; a value with a quote must end with it")
        if item.key is None:
            continue  # a comment, or an empty line
        if item.value is None:
            raise Invalid(f"{path}, line {line}: {item.key} has no value; write NAME=value")
        if "\0" in item.key + item.value:
            raise Invalid(f"{path}, line {line}: {item.key!r} holds a NUL byte, which no variable can")
        found[item.key] = item.value
    return found
