"""Fixtures: a folder in which somebody types commands, and golden files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.terminal import Terminal

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A user in an empty folder."""
    return Terminal(tmp_path, {})


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with a file of tests/unit/cli/golden; RUNKEYS_GOLDEN=write writes it."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if os.environ.get("RUNKEYS_GOLDEN") == "write":
            path.write_text(text)
        assert text == path.read_text()

    return compare
