"""A container registry on this machine, for tests: ``crane registry serve``. What is pushed to it ends with it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testing.cluster import build
from testing.cluster.base import wait_until


@contextmanager
def registry(log: Path) -> Iterator[str]:
    """Serve a registry on the loopback interface only, and give its address, such as ``127.0.0.1:41234``."""
    build.ensure(("crane",))
    command = [str(build.program("crane")), "registry", "serve", "--address=127.0.0.1:0"]

    def port() -> str:
        found = re.search(r"serving on port (\d+)", log.read_text())
        return found[1] if found else ""

    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as serving:
        try:
            wait_until("the registry serves", lambda: bool(port()))
            yield f"127.0.0.1:{port()}"
        finally:
            serving.terminate()
