"""docs/behaviour.md names tests that are there, has every row, and documents name no test file that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BEHAVIOUR = ROOT / "docs" / "behaviour.md"
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def missing(text: str) -> list[str]:
    """What a text names that is not there."""
    return [
        found[0]
        for found in _TEST.finditer(text)
        if not (ROOT / found[1]).is_file()
        or (found[2] and f"def {found[2]}(" not in (ROOT / found[1]).read_text())
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_test_that_is_named_is_there(page: Path) -> None:
    assert missing(page.read_text()) == []


def test_control_what_is_not_there_is_found() -> None:
    text = "`tests/unit/test_behaviour_docs.py::test_absent` `tests/unit/absent.py`"
    assert missing(text) == text.split()


def test_rows_of_files_words_and_clusters_are_numbered() -> None:
    rows = re.findall(r"^\| P(\d+) \|", BEHAVIOUR.read_text(), re.MULTILINE)
    assert rows == [str(number) for number in range(1, len(rows) + 1)]
    assert len(rows) > 15


def test_no_row_is_left_out() -> None:
    rows = re.findall(r"^\| (A?\d+) \|", BEHAVIOUR.read_text(), re.MULTILINE)
    beyond = [row for row in rows if row.startswith("A")]
    assert rows == [*map(str, range(1, 52)), *(f"A{number}" for number in range(1, len(beyond) + 1))]
    assert len(beyond) >= 18
