"""Runs other programs for a release."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from testing.cluster.cache import CHECKOUT


def run(*command: str | Path, **environment: str) -> str:
    """Run a program in the checkout and return its output. Its output is shown only if it fails.

    :raises SystemExit: it failed.
    """
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise SystemExit(f"{Path(command[0]).name} {command[1] if len(command) > 1 else ''} failed")
    return done.stdout
