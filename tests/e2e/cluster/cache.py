"""The folder outside the checkout where everything slow to make is kept, and the locks around it."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


def cache_dir() -> Path:
    """Return the cache folder: ``$RUNKEYS_CACHE``, or ``runkeys`` in the user's cache folder; made when missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(os.environ.get("RUNKEYS_CACHE") or Path(base) / "runkeys")
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def content_key(*parts: bytes | str | Path) -> str:
    """Hash texts and the contents of files into 16 hex digits; the order counts."""
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
    """Hold an exclusive lock between processes; the kernel drops it when the holder dies, however it dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)


class Claim:
    """A shared claim on something, by a lock on a file: the kernel drops it when this process dies, however it dies.

    Whoever looks after the thing may end it once nobody claims it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a")
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def is_last(self) -> bool:
        """Whether nobody else claims it; if so, nobody else can from now on, until ``release``."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._file, fcntl.LOCK_SH)
            return False
        return True

    def release(self) -> None:
        self._file.close()
