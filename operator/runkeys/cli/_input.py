"""Reading values from a prompt, standard input or a file, but never from an argument."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runkeys.problems import Invalid


def read_value(what: str, from_file: str | None = None) -> bytes:
    """Read the value of ``what``.

    On a terminal, the command asks for the value and does not show it. On standard input, a value of one line is read
    without its line break, which `echo` adds; a value of several lines is read as it is. A file is read byte for byte.

    :raises Invalid: the value is empty, or the file cannot be read.
    """
    if from_file is not None:
        try:
            value = Path(from_file).read_bytes()
        except OSError as error:
            raise Invalid(f"{from_file} cannot be read: {error.strerror}") from None
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


def read_text(path: str) -> str:
    """Return the text of a file, or of standard input if the path is ``-``.

    :raises Invalid: it cannot be read, or is not UTF-8.
    """
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_bytes().decode()
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        problem = Invalid(f"{path} is not UTF-8 text")
    raise problem
