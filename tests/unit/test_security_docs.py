"""What SECURITY.md and docs/hardening.md name is there: tests, parts of the leak scan, files, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.leaks.allowed import ALLOWED
from tests.e2e.leaks.entries_leaking import LEAKING

ROOT = Path(__file__).parents[2]
SECURITY = ROOT / "SECURITY.md"
DOCUMENTS = (SECURITY, ROOT / "docs" / "hardening.md")
TABLE_ROW = re.compile(r"^\| .* \|$", re.MULTILINE)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    part = SECURITY.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in TABLE_ROW.findall(part)][1:]


@pytest.mark.parametrize("heading", ["Defended", "Not defended"])
def test_each_line_says_why_and_where_it_is_shown(heading: str) -> None:
    found = rows(heading)
    assert len(found) > 10
    for cells in found:
        assert len(cells) == 3, cells
        assert all(cells), cells
        assert re.search(r"`[\w/.]+`|\]\(", cells[2]), f"{cells[0]}: shown nowhere"


@pytest.mark.parametrize("heading", ["Defended", "Not defended"])
def test_the_tests_that_are_named_exist(heading: str) -> None:
    named = {name for cells in rows(heading) for name in re.findall(r"`([\w/]+(?:\.py|/))`", cells[2])}
    assert named
    assert [name for name in sorted(named) if not (ROOT / "tests" / "e2e" / name).exists()] == []


def test_the_parts_of_the_leak_scan_that_are_named_exist() -> None:
    text = SECURITY.read_text()
    named = set(re.findall(r"entries_leaking\.py` \(`([a-z-]+)`\)", text))
    assert named
    assert named <= {entry.name for entry in LEAKING}
    places = set(re.findall(r'"([^"]+)"', text.split("`leaks/allowed.py` (")[1].split(")")[0]))
    assert places
    assert places <= {item.place for item in ALLOWED}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    headings = {
        re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-")
        for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        if "://" not in link:
            assert (document.parent / path).exists(), link
            assert path or anchor in headings, link


def test_the_files_that_are_named_exist() -> None:
    named = {name for path in DOCUMENTS for name in re.findall(r"examples/[\w/.-]+\.yaml", path.read_text())}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
