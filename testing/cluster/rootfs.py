"""Root file systems from Debian's packages, for images that no registry has to give. ``mmdebstrap`` makes them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from testing.cluster.base import ClusterError
from testing.cluster.cache import cache_dir, content_key, forget_unused, made_once

# The last Debian whose systemd runs on version 1 of cgroups as it is.
SUITE = "bookworm"
_KEPT = 2


def root_file_system(
    name: str, packages: tuple[str, ...], *, suite: str = SUITE, variant: str = "minbase"
) -> Path:
    """Return a tar with a root file system in which these packages are installed, from the cache if it is there.

    :param variant: of ``mmdebstrap``. ``minbase`` is a small Debian; with ``extract`` there are only the files of the
        packages and of what they depend on, and none of their scripts has run.
    :raises ClusterError: it could not be made.
    """
    folder = cache_dir() / "rootfs"
    key = content_key(suite, variant, platform.machine(), *sorted(packages))

    def make(unfinished: Path) -> None:
        if shutil.which("mmdebstrap") is None:
            raise ClusterError("A root file system needs mmdebstrap: run scripts/system-packages kind.")
        command = [
            "mmdebstrap",
            f"--variant={variant}",
            f"--include={','.join(packages)}",
            # Nobody reads them in a container.
            *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "locale", "info")),
            suite,
            str(unfinished),
        ]
        environment = os.environ | {"TMPDIR": str(unfinished.parent), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=1800, env=environment
        )
        if done.returncode != 0:
            raise ClusterError(
                f"mmdebstrap ended with {done.returncode}: {done.stderr.strip()[-2000:]}. "
                "It needs root and Debian's packages."
            )

    root = made_once(folder / f"{name}-{key}.tar", make)
    forget_unused(folder, f"{name}-????????????????.tar", _KEPT)
    return root
