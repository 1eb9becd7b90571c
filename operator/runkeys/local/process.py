"""One process in place of a container, with everything that it starts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from runkeys.local import _supervisor

_SCRIPT = str(Path(_supervisor.__file__))
_FOR_PYTHON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_LINE_END = re.compile(rb"\r?\n|\r(?!\Z)")
_LOOK_AGAIN = 0.2
"""Seconds between two looks whether it has ended, if its output stays open."""

_AFTER_END = 1 << 20
"""Bytes of output that are still read after the end, if a process that cannot be ended goes on writing."""


class Process:
    """A command below a supervisor, which ends what the command leaves behind.

    :param remove: folder that is deleted if this process dies and leaves the supervisor alone.
    :param line: is given each line of output, by a thread of this object.
    :param ended: is given the exit code, by the same thread, after the last line.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        remove: Path,
        line: Callable[[bytes], None],
        ended: Callable[[int], None],
    ) -> None:
        self._line, self._ended = line, ended
        self._begun: list[bytes] = []
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", _SCRIPT],
            env={name: os.environ[name] for name in _FOR_PYTHON if name in os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,  # an interrupt is for the run, which ends its processes in order
        )
        order = {
            "command": list(command),
            "environment": dict(environment),
            "folder": str(folder),
            "remove": str(remove),
        }
        text = json.dumps(order).encode()
        self._send(b"%d\n" % len(text) + text)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def terminate(self) -> None:
        """Ask the command to end, as the kubelet does: SIGTERM to the first process of the container."""
        self._send(b"T")

    def kill(self) -> None:
        """End the command and all that it started."""
        self._send(b"K")

    def wait(self) -> None:
        """Wait until everything has ended and the last line was read."""
        self._reader.join()

    def _send(self, data: bytes) -> None:
        given = memoryview(data)
        with contextlib.suppress(BrokenPipeError, ValueError):
            while given and self._process.stdin is not None:
                given = given[self._process.stdin.write(given) :]

    def _read(self) -> None:
        output = self._process.stdout
        if output is None:  # never: it is a pipe
            return
        with selectors.DefaultSelector() as ready:
            ready.register(output, selectors.EVENT_READ)
            left: int | None = None
            while left is None or left > 0:
                # First this, then the look: what was written before the end is read.
                over = left is not None or self._process.poll() is not None
                if ready.select(0 if over else _LOOK_AGAIN):
                    data = os.read(output.fileno(), 65536)
                    if not data:
                        break
                    self._lines(data)
                    left = left if left is None else left - len(data)
                elif over:
                    break
                if over and left is None:
                    left = _AFTER_END
        if self._begun:
            self._lines(b"\n")
        code = self._process.wait()
        with contextlib.suppress(OSError):
            output.close()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._ended(code if code >= 0 else 128 - code)

    def _lines(self, data: bytes) -> None:
        """Give each whole line away, and keep the rest. A carriage return ends a line too."""
        if self._begun and self._begun[-1].endswith(b"\r"):
            data = self._begun.pop() + data
        *whole, rest = _LINE_END.split(data)
        for line in whole:
            self._line(b"".join((*self._begun, line)))
            self._begun = []
        if rest:
            self._begun.append(rest)
