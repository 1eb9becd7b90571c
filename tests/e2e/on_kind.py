"""Which end-to-end tests run on kind: ``python -m tests.e2e.on_kind`` prints the files of ``tests/on-kind.txt``."""

from __future__ import annotations

import re
from pathlib import Path

E2E = Path(__file__).parent
LIST = E2E.parent / "on-kind.txt"


def listed(text: str) -> dict[str, str]:
    """Return the reason why a file is left out, by file; empty for those that run.

    :raises ValueError: a file is listed twice.
    """
    reasons: dict[str, str] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, reason = re.sub(r"\s{2,}", "\t", line.strip()).partition("\t")
            if name in reasons:
                raise ValueError(f"{name} is listed twice")
            reasons[name] = reason
    return reasons


def main() -> None:
    for name, reason in listed(LIST.read_text()).items():
        if not reason:
            print(f"tests/e2e/{name}")


if __name__ == "__main__":
    main()
