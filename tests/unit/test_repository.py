"""Rules about the repository itself, each of which was or would be broken by accident."""

from __future__ import annotations

import ast
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

import runkeys

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
# Homes of people and of CI machines; `/root` alone may name a folder inside of an image.
HOMES = re.compile(r"(?<![\w.$}])/(home|Users)/[a-z][\w.-]*/|(?<![\w.$}])/root/[\w.]")
SKIPS = {"skip", "skipif", "xfail", "importorskip"}


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=180
    ).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def test_operator_folder_is_no_package() -> None:
    # With an __init__.py there, `python -m pytest` dies in the standard library: it has a module `operator`.
    assert not (ROOT / "operator" / "__init__.py").exists()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_lock_names_no_registry_and_every_hash(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text
    for requirement in re.split(r"\n(?=[a-z])", text)[1:]:
        assert "==" in requirement.splitlines()[0]
        assert "--hash=sha256:" in requirement, requirement.splitlines()[0]


def trusted_keys(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / lock).read_text(), re.MULTILINE))


def test_image_has_what_the_tests_ran_with() -> None:
    image = trusted_keys("operator.txt")
    assert image
    assert image.items() <= trusted_keys("dev.txt").items()


def test_no_skip_outside_the_reviewed_list() -> None:
    lines = (ROOT / "tests" / "allowed-skips.txt").read_text().splitlines()
    reviewed = [line.split("  ")[0].split("::")[0] for line in lines if line and not line.startswith("#")]
    found = [
        path.relative_to(ROOT).as_posix()
        for path in tracked()
        if path.suffix == ".py" and path.is_relative_to(ROOT / "tests") and skips(path.read_text())
    ]
    assert [name for name in found if not any(fnmatch(name, glob) for glob in reviewed)] == []


def skips(source: str) -> bool:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in SKIPS and ast.unparse(node).startswith("pytest."):
            return True
        if isinstance(node, ast.ImportFrom) and node.module in {"pytest", "unittest"}:
            return bool(SKIPS & {alias.name for alias in node.names})
    return False


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pytest\npytest.skip('x')", True),
        ("import pytest\n@pytest.mark.skipif(True, reason='x')\ndef test() -> None: ...", True),
        ("from pytest import importorskip", True),
        ("import pytest\npytest.fail('do not skip')", False),
    ],
    ids=["call", "decorator", "import", "none"],
)
def test_skips_are_found(source: str, expected: bool) -> None:
    assert skips(source) is expected


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = {name for line in re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE) for name in line.split()}
    printed = subprocess.run(
        ["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=180
    ).stdout
    assert {line.split()[1] for line in printed.splitlines()} == phony
    # A target that is not declared phony stops working when a file of its name appears.
    assert set(re.findall(r"^([a-z0-9.-]+):", makefile, re.MULTILINE)) == phony


def test_no_absolute_path_of_a_machine() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {hit[0]}" for hit in HOMES.finditer(text)]
        found += [f"{path.relative_to(ROOT)}: {ROOT}"] * (f"{ROOT}/" in text)
    assert found == []


def test_no_merge_is_half_done() -> None:
    marks = re.compile(rb"^(?:<{7}|>{7}|[|]{7}) ", re.MULTILINE)
    assert [str(path) for path in tracked() if marks.search(path.read_bytes())] == []


def test_version_reads_as_a_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([ab]\d+|rc\d+)?", runkeys.__version__)
