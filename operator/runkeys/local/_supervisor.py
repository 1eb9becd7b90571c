"""The process above a container's first process in a local run: when that ends, all that it started ends.

It is run as a script, without the package and without site-packages, since it starts for every container. Its input
begins with a length and a JSON text: command, environment and folder, which therefore are in no command line. Single
letters follow: ``T`` asks the command to end, ``K`` kills it. If the input ends, the process that runs the plan is
gone. Then everything is killed, and the run's folder is deleted.

On Linux, what a program leaves behind becomes a child of this process, even if it has a session of its own
(PR_SET_CHILD_SUBREAPER). Elsewhere only the process group of the command is known.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

_SUBREAPER = 36
_NOT_STARTED = 127


def main() -> int:
    """Run the command that the input names. Return its exit code, as a shell would."""
    order = json.loads(_order())
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    command = order["command"]
    try:
        child = subprocess.Popen(
            command,
            cwd=order["folder"],
            env=order["environment"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "its command or environment holds a NUL character"
        os.write(1, f"{command[0]} cannot be started: {why}\n".encode(errors="surrogateescape"))
        return _NOT_STARTED
    inputs, orphaned, code = [woken, 0], False, None
    while code is None:
        ready, _, _ = select.select(inputs, [], [])
        if 0 in ready:
            letters = os.read(0, 64)
            if not letters:
                inputs.remove(0)
                orphaned = True
            number = signal.SIGTERM if letters and b"K" not in letters else signal.SIGKILL
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child.pid, number)  # not reaped yet, so the number is still its own
        if woken in ready:
            os.read(woken, 4096)
            code = _reaped(child.pid)
    _end_all(child.pid)
    if orphaned:
        shutil.rmtree(order["remove"], ignore_errors=True)
    return code


def _order() -> bytes:
    """The text at the start of the input, and no byte more: the letters follow."""
    found = bytearray()
    while not found.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(_NOT_STARTED)
        found += byte
    left, text = int(found), bytearray()
    while left:
        part = os.read(0, min(left, 65536))
        if not part:
            os._exit(_NOT_STARTED)
        text += part
        left -= len(part)
    return bytes(text)


def _reaped(first: int) -> int | None:
    """Collect all that have ended. Return the exit code of the first process, if it is among them."""
    code = None
    while True:
        try:
            number, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if not number:
            return code
        if number == first:
            ended = os.waitstatus_to_exitcode(status)
            code = ended if ended >= 0 else 128 - ended


def _end_all(group: int) -> None:
    """Kill everything that the command has left behind, and what that starts meanwhile."""
    if sys.platform != "linux":
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
        return
    spared: set[int] = set()  # processes of other users
    while True:
        left = _descendants() - spared
        for number in left:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                pass
            except PermissionError:
                spared.add(number)
        _reaped(0)
        if not left:
            return
        time.sleep(0.002)


def _descendants() -> set[int]:
    """Processes below this one, without zombies: those whose parent cannot be ended may stay for ever."""
    parents: dict[int, int] = {}
    zombies: set[int] = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{entry}/stat", "rb") as file:
                state, parent, *_ = file.read().rpartition(b")")[2].split()
                parents[int(entry)] = int(parent)
                if state == b"Z":
                    zombies.add(int(entry))
    found, level = set(), {os.getpid()}
    while level:
        level = {number for number, parent in parents.items() if parent in level}
        found |= level
    return found - zombies


if __name__ == "__main__":
    os._exit(main())
