"""SHA256SUMS, as `sha256sum --check` reads it."""

from __future__ import annotations

import hashlib
from pathlib import Path

NAME = "SHA256SUMS"


def write(folder: Path) -> None:
    """Write the checksums of all other files of the folder."""
    (folder / NAME).write_text("".join(f"{digest(path)}  {path.name}\n" for path in _others(folder)))


def read(folder: Path) -> dict[str, str]:
    """Return digests by file name."""
    lines = [line.split("  ", 1) for line in (folder / NAME).read_text().splitlines()]
    return {name: found for found, name in lines}


def check(folder: Path) -> None:
    """Compare all other files of the folder with the list.

    :raises ValueError: one is missing, added or changed.
    """
    expected, found = read(folder), {path.name: digest(path) for path in _others(folder)}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise ValueError(f"not as {NAME} has it: {', '.join(wrong)}")


def digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _others(folder: Path) -> list[Path]:
    # Nor the signature of the list itself.
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(NAME))
