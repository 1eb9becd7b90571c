"""How everything is printed. Nothing else of the command line prints, so that no name of others reaches a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click

from runkeys._text.words import line, log_line, visible


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text that may hold names of others, over several lines if it has them."""
    click.echo(visible(text), err=err, nl=nl)  # noqa: TID251


def echo_line(text: str, colors: Mapping[str, str]) -> None:
    """Print one line, with these words of it in colour."""
    click.echo(colored(text, colors))  # noqa: TID251


def colored(text: str, colors: Mapping[str, str]) -> str:
    """One line, with these words of it in colour and no other control characters."""
    text = line(text)
    for word, color in colors.items():
        text = text.replace(f" {word} ", f" {click.style(word, fg=color)} ")
    return text


def data(text: str) -> None:
    """Print what a program may read: exactly, unless a terminal shows it."""
    click.echo(visible(text) if sys.stdout.isatty() else text, nl=False)  # noqa: TID251


def log(text: str, *, err: bool = False) -> None:
    """Print what a program wrote; on a terminal with nothing but its colours."""
    terminal = (sys.stderr if err else sys.stdout).isatty()
    click.echo(log_line(text) if terminal else text, err=err)  # noqa: TID251
