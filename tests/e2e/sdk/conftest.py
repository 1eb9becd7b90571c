"""Fixtures: the users of the command line's tests, who have Python too, and an image with the SDK."""

from __future__ import annotations

import subprocess
import sys

import pytest

from testing.cluster import images
from testing.cluster.base import Cluster
from testing.cluster.client import PATIENCE
from tests.e2e.cli.conftest import UserMaker, alice, new_team, team, user, writer
from tests.unit.cli.terminal import Done, Terminal, environment

__all__ = ["UserMaker", "alice", "new_team", "team", "user", "writer"]


@pytest.fixture(scope="session")
def sdk_image(cluster: Cluster) -> str:
    """The image is on the cluster's nodes; its name."""
    cluster.load_image(images.sdk_image())
    return images.SDK_IMAGE


def python(who: Terminal, code: str, *, stdin: str = "") -> Done:
    """What somebody types into Python on a laptop. Values come by standard input."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=who.folder,
        env=environment(who.folder, **who.more),
        input=stdin.encode(),
        capture_output=True,
        timeout=PATIENCE + 60,  # it may wait for a run, which has its own time
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def ok(who: Terminal, code: str, *, stdin: str = "") -> str:
    """The same; it has to succeed. Returns what it printed."""
    done = python(who, code, stdin=stdin)
    assert done.code == 0, done
    return done.out
