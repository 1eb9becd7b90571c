"""What a node needs from the machine: tools, a network link, cgroups."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from testing.cluster.base import ClusterError
from testing.cluster.node_init import remove_cgroup
from testing.cluster.node_layout import SLOTS, NodeRecord, link_name

TOOLS = {"unshare": "util-linux", "ip": "iproute2", "iptables": "iptables", "busybox": "busybox-static"}


def check_machine() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise ClusterError(
            "A node needs Linux and root (or use Docker, or name a context in RUNKEYS_E2E_CONTEXT)."
        )
    missing = sorted(package for tool, package in TOOLS.items() if shutil.which(tool) is None)
    if missing:
        raise ClusterError(
            f"A node needs these system packages: {', '.join(missing)}. Run scripts/system-packages."
        )


def take_slot(pid: int, name: str) -> int:
    """Create the link into the node and return its slot. The kernel refuses a used name, so slots are unique."""
    failed = ""
    for slot in range(SLOTS):
        made = _try_link(slot, pid)
        if made.returncode == 0:
            return slot
        failed = made.stderr.strip()
        if "exists" not in failed:
            break
    raise ClusterError(f"No network for the node {name!r}: {failed}")


def _try_link(slot: int, pid: int) -> subprocess.CompletedProcess[str]:
    command = [
        "ip",
        "link",
        "add",
        link_name(slot),
        "type",
        "veth",
        "peer",
        "name",
        "node0",
        "netns",
        str(pid),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def run_ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30)


def _hierarchies() -> Iterator[Path]:
    """Yield the roots of all cgroup hierarchies that the kubelet uses: one in version 2, several in version 1."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        yield root
    else:
        yield from (folder for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink())


def make_cgroup(name: str) -> None:
    remove_cgroup(name)
    for root in _hierarchies():
        (root / name).mkdir(exist_ok=True)


def cgroup_gone(name: str) -> bool:
    remove_cgroup(name)
    return not any((root / name).exists() for root in _hierarchies())


def outer_pid(first: int, inner: int) -> int:
    """Return the outer process number of a process number inside the node."""
    space = Path(f"/proc/{first}/ns/pid").readlink()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if (entry / "ns" / "pid").readlink() == space:
                numbers = next(
                    x for x in (entry / "status").read_text().splitlines() if x.startswith("NSpid:")
                )
                if int(numbers.split()[-1]) == inner:
                    return int(entry.name)
    raise ClusterError(f"no process {inner} in the node")


def remove_link(record: NodeRecord) -> None:
    """Remove a node's link, unless it is already gone. Another node may have a link in the same slot."""
    with contextlib.suppress(OSError):
        if Path(f"/sys/class/net/{record.link}/ifalias").read_text().strip() == record.mark:
            subprocess.run(
                ["ip", "link", "delete", record.link], capture_output=True, check=False, timeout=30
            )
