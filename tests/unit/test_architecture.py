"""The tree's contracts: what people import is where it always was, and what must not be imported is refused."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

REFERENCE = (ROOT / "docs" / "python-reference.md").read_text()
DOCUMENTED = re.findall(r"automodule:: (\S+)", REFERENCE)
"""Modules that people have in their code. They stay."""


def test_the_reference_has_the_modules_that_it_always_had() -> None:
    assert {
        "runkeys",
        "runkeys.client",
        "runkeys.compat.orquestra",
        "runkeys.compat.prefect",
        "runkeys.config",
        "runkeys.datapool",
        "runkeys.kv",
        "runkeys.mapping",
        "runkeys.masking",
        "runkeys.openapi",
        "runkeys.problems",
        "runkeys.runtime",
        "runkeys.sealing",
        "runkeys.secrets",
    } == set(DOCUMENTED)


@pytest.mark.parametrize("module", DOCUMENTED)
def test_what_people_import_is_there(module: str) -> None:
    assert importlib.import_module(module).__doc__


def test_every_import_in_the_documents_and_examples_works() -> None:
    texts = [
        path.read_text()
        for folder in ("docs", "examples", ".")
        for suffix in ("md", "py")
        for path in (ROOT / folder).glob(f"*.{suffix}" if folder == "." else f"**/*.{suffix}")
    ]
    found = (
        re.findall(r"^ *((?:from runkeys[\w.]* )?import [\w., ]+)", text, re.MULTILINE) for text in texts
    )
    lines = sorted({line.strip() for each in found for line in each if "runkeys" in line})
    assert "from runkeys.sealing import BindingEntry, Keyring, PrivateKey, PublicKey, reseal, seal" in lines
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["runkeys", "runkeys.runtime", "runkeys.policies", "runkeys.api.crd"])
def test_what_is_run_by_its_name_has_an_entry(module: str) -> None:
    found = importlib.util.find_spec(
        f"{module}.__main__" if module in ("runkeys", "runkeys.policies") else module
    )
    assert found is not None


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        (
            "runkeys_operator/controllers/bindings.py",
            "from runkeys.sealing import Keyring",
            "In the operator only values/ can look at a secret's value",
        ),
        (
            "runkeys_operator/controllers/runs/executor.py",
            "from runkeys_operator.values.values import opened",
            "In the operator only values/ can look at a secret's value",
        ),
        (
            "runkeys_operator/controllers/stores.py",
            "from runkeys_operator.stores.vault import Vault",
            "In the operator only values/ can look at a secret's value",
        ),
        (
            "runkeys/planning/outcome.py",
            "import time",
            "Planning has no I/O, no clock, no chance and no value",
        ),
        (
            "runkeys/planning/outcome.py",
            "from runkeys.client import Client",
            "Inside runkeys: what people use, what a task uses, what decides, what everything names",
        ),
    ],
    ids=[
        "a-controller-seals",
        "a-controller-looks",
        "a-controller-asks-a-store",
        "a-plan-has-a-clock",
        "a-plan-has-a-client",
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for package in ("runkeys", "runkeys_operator"):
        shutil.copytree(
            ROOT / "operator" / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert (tmp_path / module).is_file()
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    told = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert f"{contract} BROKEN" in told, done.stdout + done.stderr


def test_every_file_that_the_documents_name_is_there() -> None:
    texts = [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs" / "decisions").glob("*.md"),
        ROOT / "CONTRIBUTING.md",
    ]
    named = {
        path
        for text in texts
        for path in re.findall(r"`(?:operator/)?(runkeys(?:_operator)?/[\w/]+(?:\.py|/))`", text.read_text())
    }
    assert len(named) > 20
    assert [path for path in sorted(named) if not (ROOT / "operator" / path).exists()] == []
