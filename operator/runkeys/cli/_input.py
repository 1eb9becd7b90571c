"""Reading values from a prompt, standard input or a file, but never from an argument."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runkeys._text.text_files import decode
from runkeys.problems import Invalid, NotFound


def read_value(what: str, from_file: str | None = None) -> bytes:
    """Read the value of ``what``.

    On a terminal, the command asks for the value and does not show it. On standard input, a value of one line is read
    without its line break, which `echo` adds; a value of several lines is read as it is. A file is read byte for byte.

    :raises NotFound: there is no such file.
    :raises Invalid: the value is empty, or the file cannot be read.
    """
    if from_file is not None:
        value = read_bytes(from_file)
    elif sys.stdin.isatty():
        value = str(click.prompt(f"Value of {what}", hide_input=True, err=True)).encode()
    else:
        value = sys.stdin.buffer.read()
        line = value.removesuffix(b"\n").removesuffix(b"\r")
        if b"\n" not in line:
            value = line
    if not value:
        raise Invalid(
            f"the value of {what} is empty; give it on standard input, or in a file with --from-file"
        )
    return value


def read_bytes(path: str) -> bytes:
    """Return what a file, a named pipe or, for ``-``, standard input holds.

    :raises NotFound: there is no such file.
    :raises Invalid: it cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except ValueError:  # a path with a NUL
        raise NotFound(f"there is no file {path!r}") from None
    except IsADirectoryError:
        raise Invalid(f"{path} is a folder; name a file in it") from None
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from None


def read_text(path: str) -> str:
    """Return the text of a file, or of standard input if the path is ``-``.

    :raises NotFound: there is no such file.
    :raises Invalid: it cannot be read, or is no text.
    """
    raw = read_bytes(path)
    try:
        return decode(raw)
    except ValueError as error:
        problem = Invalid(f"{path}: {error}; save it as UTF-8")
    raise problem
