"""What the demo shows: colours and a spinner on a terminal, the same words as plain lines anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

_LABEL = 9
_STEP = 21


class Screen:
    """Prints to standard output. ``NO_COLOR`` and anything but a terminal turn the colours off."""

    def __init__(self) -> None:
        colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._console = Console(highlight=False, soft_wrap=True) if colours else None

    def title(self, text: str) -> None:
        self._line((text, "bold"))
        self._line()

    def fact(self, label: str, text: str) -> None:
        """One finished step, or one thing to know."""
        self._line((f"  {label:<{_LABEL}}", "cyan"), (text, ""))

    def more(self, text: str) -> None:
        """A further line of the fact before."""
        self._line((f"  {'':<{_LABEL}}{text}", ""))

    def event(self, seconds: float, what: str, detail: str = "", style: str = "") -> None:
        """Something that happened, so many seconds after the run was applied."""
        self._line(
            (f"  {'':<{_LABEL}}{seconds:6.2f} s  ", "dim"), (f"{what:<{_STEP}}", style), (detail, "dim")
        )

    def gap(self) -> None:
        self._line()

    def verdict(self, text: str) -> None:
        """The one line that everything before leads to."""
        self._line((f"  {'':<{_LABEL}}{text}", "bold green"))

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show that something takes a moment; nothing of it stays."""
        if self._console is None:
            yield
        else:
            with self._console.status(f"[dim]{what}[/dim]"):
                yield

    def _line(self, *parts: tuple[str, str]) -> None:
        if self._console is None:
            print("".join(text for text, _ in parts).rstrip(), flush=True)
        else:
            self._console.print(Text.assemble(*parts))
