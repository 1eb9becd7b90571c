"""An OCI runtime that leaves out the capabilities that this machine's root does not have, and then executes runc.

Docker gives a privileged container every capability that the kernel knows. Where root has not all of them, which is
so in many virtual machines and containers, runc refuses: "unable to apply caps: operation not permitted". This asks
for those that there are. A Docker daemon runs it by its path, with the standard library alone (see docker.py).
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

# The numbers are part of the kernel's interface: include/uapi/linux/capability.h.
# fmt: off
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)
# fmt: on


def bounding_set(status: str) -> frozenset[str]:
    """Return the capabilities that a process can have at most.

    :param status: the text of ``/proc/PID/status``.
    """
    mask = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:"))
    return frozenset(name for number, name in enumerate(CAPABILITIES) if mask >> number & 1)


def lacking(status: str, last: int) -> list[str]:
    """Return the capabilities that the kernel knows and this process cannot have.

    :param last: the number of the kernel's last capability, ``/proc/sys/kernel/cap_last_cap``.
    """
    held = bounding_set(status)
    return [name for name in CAPABILITIES[: last + 1] if name not in held]


def without(process: dict[str, Any], held: frozenset[str]) -> dict[str, Any]:
    """Return the description of a process that asks for no capability outside ``held``."""
    asked = process.get("capabilities")
    if asked is None:
        return process
    return process | {"capabilities": {s: [c for c in names if c in held] for s, names in asked.items()}}


def described(arguments: list[str]) -> Path | None:
    """Return the file that describes the process that this call of the runtime starts; None if it starts none.

    For ``create`` and ``run`` it is the bundle's config.json, for ``exec`` the file in ``--process``.
    """
    options = dict(itertools.pairwise(arguments))
    options |= dict(a.split("=", 1) for a in arguments if a.startswith("--") and "=" in a)
    if "exec" in arguments:
        file = options.get("--process") or options.get("-p")
        return Path(file) if file else None
    if "create" in arguments or "run" in arguments:
        return Path(options.get("--bundle") or options.get("-b") or ".") / "config.json"
    return None


def leave_out(file: Path, held: frozenset[str]) -> None:
    """Rewrite a bundle's config.json, or a process file, so that it asks for no capability outside ``held``."""
    content = json.loads(file.read_text())
    if "ociVersion" in content:
        content["process"] = without(content["process"], held)
    else:
        content = without(content, held)
    file.write_text(json.dumps(content))


def main() -> None:
    """``oci_runtime.py RUNC ARGUMENT…``."""
    runc, *arguments = sys.argv[1:]
    file = described(arguments)
    if file is not None:
        leave_out(file, bounding_set(Path("/proc/self/status").read_text()))
    os.execv(runc, [runc, *arguments])  # noqa: S606  it takes this process's place


if __name__ == "__main__":
    main()
