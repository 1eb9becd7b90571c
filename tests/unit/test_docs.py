"""The documentation builds, its links lead somewhere, and it has every command and every decision."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runkeys.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def build(target: Path, source: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """What `make docs` does, into another folder."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-q",
            "-W",
            "--keep-going",
            "-c",
            str(ROOT / "docs"),
            str(source),
            str(target),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages."""
    target = tmp_path_factory.mktemp("site")
    done = build(target)
    assert done.returncode == 0, done.stderr
    return target


def test_every_command_has_its_reference(site: Path) -> None:
    page = (site / "docs" / "cli.html").read_text()
    assert [name for name in COMMANDS if f'id="runkeys-{name}"' not in page] == []


def test_every_decision_is_reached(site: Path) -> None:
    index = (site / "docs" / "index.html").read_text()
    pages = sorted(path.stem for path in (ROOT / "docs" / "decisions").glob("0*.md"))
    assert pages
    assert [name for name in pages if f'href="decisions/{name}.html"' not in index] == []


def test_control_a_link_that_leads_nowhere_fails(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Documentation\n\n[nowhere](nowhere.md)\n")
    done = build(tmp_path / "site", tmp_path)
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr
