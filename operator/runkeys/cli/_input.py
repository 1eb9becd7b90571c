"""Where the command line takes a value from: a prompt, standard input or a file. Never an argument."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runkeys.problems import Invalid


def read_value(what: str, from_file: str | None = None) -> bytes:
    """The value of ``what``.

    From a terminal it is asked for and not shown. From standard input a value of one line comes without its line
    break, which `echo` adds and nobody means; one of several lines as it is. A file is taken byte by byte.
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
    """The text of a file, or of standard input if it is ``-``."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_bytes().decode()
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        problem = Invalid(f"{path} is no text in UTF-8")
    raise problem
