"""Measure, print a table and write JSON: ``python -m bench [--only PART] [--quick]``."""

from __future__ import annotations

import argparse
import sys
import time

from testing.cluster.base import ClusterError
from testing.cluster.build import BuildError
from testing.cluster.cache import Claim, cache_dir
from testing.cluster.node import NodeCluster
from testing.operators import install_crds

from . import (
    finished,
    imports,
    leases,
    pods,
    pythons,
    reaction,
    report,
    scale,
    sealed_delivery,
    start_latency,
    trust,
    workflow,
)
from .kwok import fake_node

NAME = "bench"
PARTS = {
    "imports": imports.measure,
    "start": start_latency.measure,
    "sealed-delivery": sealed_delivery.measure,
    "pods": pods.measure,
    "reaction": reaction.measure,
    "workflow": workflow.measure,
    "leases": leases.measure,
    "trust": trust.measure,
    "scale": scale.measure,
    "finished": finished.measure,
}

# Not without being asked for.
LONG_PARTS = {"most": scale.measure_most, "pythons": pythons.measure}


def main() -> int:
    """Exit status: 0 measured, whatever the verdicts; 1 it did not work."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=[*PARTS, *LONG_PARTS], help="measure this part alone")
    parser.add_argument(
        "--name", default=NAME, help="of the node; of two with one name the later ends the other"
    )
    parser.add_argument("--quick", action="store_true", help="few samples: shows that it works, not how fast")
    arguments = parser.parse_args()
    facts = {**report.machine(), "quick": arguments.quick}
    print(f"{facts['cores']} cores, Python {facts['python']}, load {facts['load']}", flush=True)
    figures: list[report.Figure] = []
    try:
        _measure(
            [arguments.only] if arguments.only else list(PARTS), arguments.quick, figures, arguments.name
        )
    except (ClusterError, BuildError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        # What was measured before something failed has taken its time too.
        if figures:
            print(f"\n{report.table(figures)}\n\n{report.save(figures, facts)}")
    return 0


def _measure(parts: list[str], quick: bool, figures: list[report.Figure], name: str) -> None:
    """Measure these parts, one after the other; each adds its figures."""
    NodeCluster.clean_up(name)
    with NodeCluster.start(name, claim=Claim(cache_dir() / "nodes" / f".{name}.claims")) as node:
        install_crds(node)
        with fake_node(node):
            for part in parts:
                began = time.monotonic()
                figures += (PARTS | LONG_PARTS)[part](node, quick)
                print(f"{part}: measured in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
