"""Which Python the image should have: the same operator on Debian's Pythons, in containers, in turns.

Needs Docker, and root where no Docker answers: the bases are made of Debian's packages.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from testing.cluster import docker, docker_images
from testing.cluster.base import ClusterError
from testing.cluster.cache import CHECKOUT
from testing.cluster.node import NodeCluster

from .report import Figure, Spread

SUITES = ("bookworm", "trixie", "forky")
"""The first is what the others are compared with. A suite whose packages cannot be had is left out."""

_PROGRAM = r"""
import json, platform, resource, subprocess, sys, time
rounds, passes = int(sys.argv[1]), int(sys.argv[2])
def of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
begin = []
for _ in range(rounds):
    began = of_children()
    subprocess.run([sys.executable, "-c", "import runkeys_operator.app"], check=True, capture_output=True)
    begin.append((of_children() - began) * 1000)

import runkeys_operator.app
from datetime import UTC, datetime
from runkeys.api import SecretBinding, WorkflowRun
from runkeys.planning.bindings import Bindings
from runkeys.planning.memory import Memory
from runkeys.planning.observation import Observation
from runkeys.planning.plan import plan
now = datetime(2026, 1, 5, 12, tzinfo=UTC)
head = {"apiVersion": "runkeys.dev/v1alpha1"}
meta = {"namespace": "team-a", "generation": 1, "resourceVersion": "1", "labels": {"app": "x"},
        "creationTimestamp": now.isoformat()}
work = [{"name": f"t{n}", "secrets": [{"name": "api_token", "secret": "token"}],
         "template": {"spec": {"containers": [{"name": "main", "image": "ghcr.io/acme/app:1"}]}}} for n in range(4)]
run = json.dumps({**head, "kind": "WorkflowRun", "metadata": {**meta, "name": "r", "uid": "u"},
                  "spec": {"bindings": [{"name": "keys"}], "tasks": work}, "status": {"observedGeneration": -1}})
binding = json.dumps({**head, "kind": "SecretBinding", "metadata": {**meta, "name": "keys", "uid": "k"},
                      "spec": {"secrets": [{"name": "token", "secretKeyRef": {"name": "s", "key": "token"}}],
                               "access": [{"runSelector": {"matchLabels": {"app": "x"}}}]}})
def once():
    found = SecretBinding.parse(json.loads(binding))
    observed = Observation(run=WorkflowRun.parse(json.loads(run)), bindings=Bindings({"keys": found}, {}), jobs={},
                           pods=(), memory=Memory(), fresh=True)
    return plan(observed, now)
assert once().actions
took = []
for _ in range(rounds):
    began = time.process_time()
    for _ in range(passes):
        once()
    took.append((time.process_time() - began) * 1000 / passes)
size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"python": platform.python_version(), "begin": begin, "pass": took, "mb": size}))
"""


def measure(node: NodeCluster, quick: bool) -> list[Figure]:  # noqa: ARG001 -- needs no cluster
    """CPU time of a start and of a pass without requests, and memory with everything imported."""
    found: dict[str, list[dict[str, Any]]] = {}
    with docker.engine() as engine, tempfile.TemporaryDirectory() as scratch:
        built = {suite: tag for suite in SUITES if (tag := _image(engine, suite))}
        for _ in range(2 if quick else 6):
            for suite, tag in built.items():
                found.setdefault(suite, []).append(_measured(engine, tag, Path(scratch), quick))
    first, *others = found
    figures = []
    for suite in others:
        names = f"Python {found[suite][0]['python']} (Debian {suite}) against {found[first][0]['python']}"
        figures += [
            _compared(f"{names}: CPU of a start with all imported", found[suite], found[first], "begin"),
            _compared(f"{names}: CPU of a pass, no requests", found[suite], found[first], "pass"),
            _memory(f"{names}: memory with all imported", found[suite], found[first]),
        ]
    return figures


def _image(engine: docker.Engine, suite: str) -> str:
    """Return the operator's image on this Debian; empty if Debian's packages for it cannot be had."""
    base, tag = f"localhost/runkeys-base:{suite}", f"localhost/runkeys-operator:{suite}"
    try:
        docker_images.debian_base(engine, suite, base)
        docker_images.build(engine, tag, docker_images.DOCKERFILE, CHECKOUT, base)
    except (ClusterError, subprocess.SubprocessError) as error:
        print(f"{suite}: left out: {str(error)[-300:]}", flush=True)
        return ""
    return tag


def _measured(engine: docker.Engine, tag: str, scratch: Path, quick: bool) -> dict[str, Any]:
    program = scratch / "measure.py"
    program.write_text(_PROGRAM)
    rounds, passes = ("2", "50") if quick else ("5", "400")
    words = ("run", "--rm", "--network=none", f"--volume={program}:/measure.py:ro", "--entrypoint=python3")
    printed = engine.run(*words, tag, "/measure.py", rounds, passes)
    result: dict[str, Any] = json.loads(printed)
    return result


def _compared(what: str, ours: list[dict[str, Any]], peers: list[dict[str, Any]], key: str) -> Figure:
    mine, theirs = (Spread.of([value for one in found for value in one[key]]) for found in (ours, peers))
    return Figure(what, mine.text("ms"), theirs.text("ms"), mine.p50 / theirs.p50)


def _memory(what: str, ours: list[dict[str, Any]], peers: list[dict[str, Any]]) -> Figure:
    mine, theirs = (Spread.of([one["mb"] for one in found]) for found in (ours, peers))
    return Figure(what, mine.text("MB"), theirs.text("MB"), mine.p50 / theirs.p50)
