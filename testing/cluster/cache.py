"""The cache outside the checkout for everything that is slow to build, and the locks around it."""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def cache_dir() -> Path:
    """Return the cache folder: ``$RUNKEYS_CACHE``, or ``runkeys`` in the user's cache folder. Create it if missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(os.environ.get("RUNKEYS_CACHE") or Path(base) / "runkeys")
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def content_key(*parts: bytes | str | Path) -> str:
    """Return 16 hex digits of a hash of texts and file contents, in this order."""
    digest = hashlib.sha256()
    for part in parts:
        data = (
            part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        )
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:16]


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes. The kernel releases it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)


def made_once(target: Path, make: Callable[[Path], object]) -> Path:
    """Return a file of the cache. If it is missing, ``make`` writes it to the path in its argument.

    If several processes ask at once, one writes the file and the others wait. None ever sees a part of it, even if the
    writer is killed. ``make`` must not ask for another file of the same folder, since the folder is locked. Every call
    counts as a use of the file, see ``forget_unused``.
    """
    while not _use(target):
        with file_lock(target.parent / ".lock"):
            if target.exists():
                continue
            scratch = target.parent / ".new"
            # Files of a killed process: nobody else builds anything in this folder now.
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            make(scratch / target.name)
            (scratch / target.name).rename(target)
            shutil.rmtree(scratch)
    return target


def _use(path: Path) -> bool:
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def forget_unused(folder: Path, pattern: str, keep: int, seconds: float = 3600.0) -> None:
    """Remove all but the last ``keep`` files that match, unless they were used within ``seconds``.

    Another checkout may be about to read a file that it has just asked for.
    """
    for path in sorted(folder.glob(pattern), key=age)[keep:]:
        if age(path) > seconds:
            path.unlink(missing_ok=True)


def age(path: Path) -> float:
    """Return how many seconds ago a file was last changed or used; infinity if another process has removed it."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


class Claim:
    """A shared claim on something, by a lock on a file. The kernel releases it when this process dies.

    The process that owns the thing may end it once nobody claims it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a")
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def is_last(self) -> bool:
        """Whether nobody else claims it. If so, nobody else can claim it until ``release``."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._file, fcntl.LOCK_SH)
            return False
        return True

    def release(self) -> None:
        self._file.close()


def claims_of(cluster: str) -> Path:
    """Return the file that the users of a shared cluster hold claims on."""
    return cache_dir() / "nodes" / f".{cluster}.claims"
