"""Seeded samples of long proofs: `make test` runs a few cases of each, `make proof` all of them."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

Case = TypeVar("Case")


def sample(cases: Sequence[Case], size: int, *, name: str) -> list[Case]:
    """Return ``size`` of the cases in their order, or all of them when ``RUNKEYS_PROOF`` is ``full``.

    The choice depends on ``RUNKEYS_SEED``, which every run prints, and on ``name``, so that two proofs
    with equally many cases do not always take the same ones.
    """
    if os.environ.get("RUNKEYS_PROOF") == "full" or size >= len(cases):
        return list(cases)
    chosen = random.Random(f"{os.environ['RUNKEYS_SEED']} {name}").sample(range(len(cases)), size)
    return [cases[index] for index in sorted(chosen)]
