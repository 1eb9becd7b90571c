"""What `make demo` shows where no cluster can be had: an example as processes, and what that leaves out."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.demo_screen import Screen
from testing.cluster.cache import CHECKOUT

EXAMPLE = Path("examples/workflow/run.yaml")
_SECONDS = 60


def demo_local(why: str) -> int:
    """Run the example workflow with a random value. Returns its exit code."""
    screen = Screen()
    screen.title("Runkeys, without a cluster: the tasks of a workflow as processes of this machine")
    screen.fact("why", why.partition(". ")[0])
    value = f"demo-{secrets.token_hex(16)}"
    with tempfile.TemporaryDirectory() as folder:
        values = Path(folder) / ".env"
        values.touch(mode=0o600)
        values.write_text(f'SECRET_IBM_TOKEN={value}\nSECRET_ACCOUNT=\'{{"user": "demo"}}\'\n')
        words = ["run", "--local", "-f", str(EXAMPLE), "--env-file"]
        screen.fact("value", "a new random one, in a file for `--env-file`")
        screen.fact("run", f"runkeys {' '.join(words)} .env")
        screen.gap()
        done = subprocess.run(
            [sys.executable, "-m", "runkeys", "-q", *words, str(values)],
            cwd=CHECKOUT,
            env=os.environ | {"PYTHONPATH": str(CHECKOUT / "operator")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    print("".join(f"  {line}\n" for line in done.stdout.splitlines()), flush=True)
    if done.returncode != 0 or value in done.stdout:
        print("The local demo failed.", file=sys.stderr)
        return done.returncode or 1
    screen.fact(
        "seen", "the order of tasks, data handed on, a variable and a file with a secret, only where listed"
    )
    screen.fact(
        "not seen", "what Runkeys is for: a Secret that is there only while a pod needs it. That needs a"
    )
    screen.more("cluster: as root on Linux, or with Docker, `make demo` starts one.")
    return 0
