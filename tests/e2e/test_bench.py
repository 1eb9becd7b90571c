"""The bench measures: few samples of some parts, all of them in `make proof`. Whatever the figures are."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import pytest

from testing.cluster.cache import CHECKOUT
from testing.cluster.node import NodeCluster

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.proof,
]

FULL = os.environ.get("RUNKEYS_PROOF") == "full"
PARTS = (
    (
        "imports",
        "start",
        "sealed-delivery",
        "pods",
        "reaction",
        "workflow",
        "leases",
        "trust",
        "scale",
        "finished",
    )
    if FULL
    else ("reaction", "trust")
)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_measures(bare_node: NodeCluster, part: str) -> None:  # noqa: ARG001 -- it needs such a cluster too
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--only", part, "--name", f"bench-{secrets.token_hex(3)}"],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": f"{CHECKOUT / 'operator'}{os.pathsep}{CHECKOUT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1000,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "measured" in done.stdout
    assert "bench/results/" in done.stdout.splitlines()[-1]
