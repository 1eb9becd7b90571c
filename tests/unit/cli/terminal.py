"""The command line as a user has it: a process, with or without a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "runkeys"]
_SECONDS = 180
"""A bound for what hangs. On a busy machine a run takes a minute and more."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of the machine's own configuration, and no cluster."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT / "operator"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "RUNKEYS_CONFIG_DIR": str(home / "config"),
        "COLUMNS": "100",
        "LANG": "C.UTF-8",
        **more,
    }


@dataclass(frozen=True)
class Done:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Terminal:
    """Runs `runkeys` in a folder of its own."""

    folder: Path
    more: Mapping[str, str]

    def run(self, *words: str, stdin: str = "", **more: str) -> Done:
        """Without a terminal: in a pipe."""
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=self.folder,
            env=environment(self.folder, **{**self.more, **more}),
            input=stdin.encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def ok(self, *words: str, stdin: str = "", **more: str) -> str:
        """The same; it has to succeed. Returns what it printed."""
        done = self.run(*words, stdin=stdin, **more)
        assert done.code == 0, done
        return done.out

    def typed(self, *words: str, answers: Mapping[str, str], **more: str) -> Done:
        """On a terminal: by each prompt what is typed once it stands there. ``out`` is what the screen shows."""
        main, other = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=self.folder,
            env={**environment(self.folder, **{**self.more, **more}), "TERM": "xterm"},
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
        )
        os.close(other)
        shown, left, until = "", dict(answers), time.monotonic() + _SECONDS
        try:
            while time.monotonic() < until:
                if not select.select([main], [], [], 1)[0]:
                    continue
                try:
                    part = os.read(main, 4096)
                except OSError:  # so Linux says that the other side is closed
                    break
                shown += part.decode(errors="replace")
                for prompt in [prompt for prompt in left if prompt in shown]:
                    os.write(main, left.pop(prompt).encode())
            return Done(process.wait(_SECONDS), shown.replace("\r\n", "\n"), "")
        finally:
            process.kill()
            process.wait()
            os.close(main)
