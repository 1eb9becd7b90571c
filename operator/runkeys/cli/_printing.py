"""All printing of the command line, so that control characters in other users' texts never reach a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click

from runkeys._text.words import line, log_line, visible


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text that may contain names chosen by other users. It may have several lines."""
    click.echo(visible(text), err=err, nl=nl)  # noqa: TID251


def echo_line(text: str, colors: Mapping[str, str]) -> None:
    """Print one line, with these words in colour."""
    click.echo(colored(text, colors))  # noqa: TID251


def colored(text: str, colors: Mapping[str, str]) -> str:
    """Return one line with these words in colour and without other control characters."""
    text = line(text)
    for word, color in colors.items():
        text = text.replace(f" {word} ", f" {click.style(word, fg=color)} ")
    return text


def data(text: str) -> None:
    """Print data for programs: unchanged, except on a terminal."""
    click.echo(visible(text) if sys.stdout.isatty() else text, nl=False)  # noqa: TID251


def log(text: str, *, err: bool = False) -> None:
    """Print a line of a program's output. On a terminal, only its colours are kept of its control characters."""
    terminal = (sys.stderr if err else sys.stdout).isatty()
    click.echo(log_line(text) if terminal else text, err=err)  # noqa: TID251
