"""What test clusters of every kind wait for."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.cluster.base import listens


@pytest.fixture
def at() -> Iterator[Path]:
    # Not pytest's own folder: the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="rk-") as folder:
        yield Path(folder) / "own.sock"


def test_a_socket_listens_only_when_somebody_accepts(at: Path) -> None:
    assert not listens(at)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(at))
        assert at.exists()
        assert not listens(at), "containerd is here for some milliseconds"
        server.listen()
        assert listens(at)
    assert at.exists(), "as after a kill"
    assert not listens(at)
