"""What is raised when a value cannot be read."""

from __future__ import annotations

from runkeys.planning.refusal import Refusal


class SourceRefusedError(Exception):
    """A value cannot be read. ``refusal`` says which and what to do; it never holds the value."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
