"""The provider ``node``: a real single-node cluster in its own namespaces on this machine, without Docker."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from . import build, images, node_init
from .audit import AuditLog
from .base import Cluster, ClusterError, wait_until
from .cache import Claim, cache_dir, file_lock
from .client import ApiError
from .etcd import GatewayReader
from .node_config import COMPONENTS, NODE_NAME, write_config
from .node_layout import SLOTS, NodeOptions, NodePaths, NodeRecord, cgroup_name, link_name, process_birth

TOOLS = {"unshare": "util-linux", "ip": "iproute2", "iptables": "iptables", "busybox": "busybox-static"}
_KEPT_STATES = 4


class NodeCluster(Cluster):
    """A cluster on this machine, found by its name. Needs root and Linux.

    Everything runs below one process in namespaces of its own: when that ends, all of it ends.
    """

    provider = "node"
    components = COMPONENTS

    def __init__(self, name: str, record: NodeRecord) -> None:
        super().__init__(name)
        self.record = record
        self.paths = NodePaths.of(name)
        self._launched: subprocess.Popen[bytes] | None = None

    # Life

    @classmethod
    def start(cls, name: str, options: NodeOptions | None = None, claim: Claim | None = None) -> NodeCluster:
        """Start a node and return when it is ready for pods. Raises ClusterError.

        With a claim the node ends soon after the last process with a claim on the same file has died or released it.
        Without one it stays until ``stop``, whoever dies.
        """
        _check_machine()
        build.ensure(build.NODE_GROUPS)
        archives = [images.pause_image(), images.task_image()]
        with file_lock(cache_dir() / "nodes" / f".{name}.lock"):
            if cls.attach(name) is not None:
                raise ClusterError(f"The node {name!r} runs already.")
            node = cls._launch(name, options or NodeOptions(), claim)
        try:
            node._bring_up(archives)
        except BaseException as error:
            kept = node._end()
            if isinstance(error, Exception):
                raise ClusterError(
                    f"The node {name!r} did not start; its logs are in {kept}: {error}"
                ) from error
            raise
        return node

    @classmethod
    def attach(cls, name: str) -> NodeCluster | None:
        """Return the running node of this name; None when there is none."""
        record = NodeRecord.load(NodePaths.of(name).record)
        return cls(name, record) if record is not None and record.alive() else None

    @classmethod
    def running(cls) -> list[NodeCluster]:
        """Return every node that runs now."""
        names = [path.parent.name for path in (cache_dir() / "nodes").glob("*/node.json")]
        return [node for name in sorted(names) if (node := cls.attach(name)) is not None]

    def stop(self) -> None:
        """End the node: processes, network, mounts, cgroups and files."""
        shutil.rmtree(self._end(), ignore_errors=True)

    @classmethod
    def _launch(cls, name: str, options: NodeOptions, claim: Claim | None) -> NodeCluster:
        _forget_old_states()
        paths = NodePaths.of(name)
        shutil.rmtree(paths.state, ignore_errors=True)
        paths.logs.mkdir(parents=True)
        paths.state.chmod(0o700)
        arguments = [str(paths.state), *([] if claim is None else [str(claim.path)])]
        command = ["unshare", "-m", "-n", "-p", "--fork", "--kill-child", "--propagation", "private"]
        with (paths.logs / "init.log").open("wb") as log:
            launched = subprocess.Popen(
                [*command, sys.executable, "-I", "-S", node_init.__file__, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C in the terminal is for the caller alone.
                start_new_session=True,
            )
        try:
            wait_until(
                "the node's first process", lambda: _has_begun(launched, paths), timeout=15, every=0.005
            )
            pid = int((paths / "pid").read_text())
            slot = _take_slot(pid, name)
        except BaseException:
            launched.kill()
            launched.wait(timeout=10)
            raise
        record = NodeRecord(name, slot, pid, process_birth(pid) or 0, launched.pid, options)
        record.save(paths.record)
        node = cls(name, record)
        node._launched = launched
        return node

    def _bring_up(self, archives: list[Path]) -> None:
        record = self.record
        _ip("address", "add", f"{record.outside}/30", "dev", record.link)
        _ip("link", "set", record.link, "up", "alias", f"runkeys test node {self.name}")
        _make_cgroup(record.cgroup)
        self._ask("connect", address=record.address, outside=record.outside, cgroup=record.cgroup)
        write_config(self.paths, record)
        with ThreadPoolExecutor(1) as aside:
            for name in ("containerd", "etcd", "kube-apiserver"):
                self.start_component(name)
            imported = aside.submit(self._import_first, archives)
            wait_until("the API server", self._api_ready, timeout=60)
            # Earlier these would give up for want of their own roles.
            for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
                self.start_component(name)
            wait_until("containerd's socket", self.paths.containerd.exists, timeout=30)
            self.start_component("kubelet")
            imported.result(timeout=120)
        self.client.wait_for("nodes", NODE_NAME, None, _is_ready, timeout=60, what="Ready")
        self.client.wait_for("serviceaccounts", "default", "default", bool, timeout=30)

    def _api_ready(self) -> bool:
        for name, code in self._ask("list")["ended"].items():
            raise ClusterError(f"{name} ended with {code}: {_last_line(self.log_file(name))}")
        return self.client.is_ready()

    def _import_first(self, archives: list[Path]) -> None:
        wait_until("containerd's socket", self.paths.containerd.exists, timeout=30)
        for archive in archives:
            self.load_image(archive)

    def _end(self) -> Path:
        """End everything but the files; return the folder that holds them."""
        if self.record.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.record.pid, signal.SIGTERM)
            try:
                wait_until("the node's end", lambda: not self.record.alive(), timeout=15)
            except ClusterError:
                os.kill(self.record.pid, signal.SIGKILL)
                wait_until("the node's end", lambda: not self.record.alive(), timeout=15)
        if self._launched is not None:
            self._launched.wait(timeout=15)
        # Its network goes by itself, but later; and its cgroups only if its first process could still see to it.
        subprocess.run(
            ["ip", "link", "delete", self.record.link], capture_output=True, check=False, timeout=30
        )
        wait_until("the cgroups' end", lambda: _cgroup_gone(self.record.cgroup), timeout=15)
        return self.paths.state

    # What a client needs

    @property
    def kubeconfig(self) -> Path:
        return self.paths.kubeconfig

    @property
    def scratch(self) -> Path:
        return self.paths / "scratch"

    def load_image(self, archive: Path) -> None:
        ctr = [build.program("ctr"), f"--address={self.paths.containerd}", "--namespace=k8s.io"]
        self.run(*ctr, "images", "import", "--local=false", archive, timeout=120)

    # Looking inside

    @cached_property
    def etcd(self) -> GatewayReader:  # type: ignore[override]
        return GatewayReader(self.paths.etcd)

    @cached_property
    def audit(self) -> AuditLog:  # type: ignore[override]
        return AuditLog(self.paths.audit)

    def log_file(self, component: str) -> Path:
        return self.paths.logs / f"{component}.log"

    def log_files(self) -> list[Path]:
        pods = [path for path in (self.paths / "pod-logs").rglob("*.log*") if path.is_file()]
        return [*sorted(self.paths.logs.glob("*.log")), *sorted(pods), self.paths.audit]

    def enter(self, *command: str, timeout: float = 60) -> str:
        """Run a program inside the node's mounts, network and processes and return what it printed."""
        return self.run("nsenter", "-t", str(self.record.pid), "-m", "-n", "-p", *command, timeout=timeout)

    # Breaking it

    def component_pids(self) -> dict[str, int]:
        """Return which components run now, with their process numbers as seen from outside."""
        inner = self._ask("list")["running"]
        return {name: _outer_pid(self.record.pid, pid) for name, pid in inner.items()}

    def kill(self, component: str) -> None:
        self._signal(component, signal.SIGKILL)
        wait_until(f"{component}'s end", lambda: component not in self._ask("list")["running"], timeout=10)

    def pause(self, component: str) -> None:
        self._signal(component, signal.SIGSTOP)

    def resume(self, component: str) -> None:
        self._signal(component, signal.SIGCONT)

    def start_component(self, component: str) -> None:
        self._ask("start", name=component)

    def _signal(self, component: str, number: signal.Signals) -> None:
        self._ask("signal", name=component, signal=int(number))

    def _ask(self, do: str, **details: Any) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.paths.control))
            connection.sendall(json.dumps({"do": do, **details}).encode() + b"\n")
            reply: dict[str, Any] = json.loads(connection.makefile("r").readline())
        if "error" in reply:
            raise ClusterError(
                f"The node {self.name!r} could not {do} {details.get('name', '')}: {reply['error']}"
            )
        return reply


def _check_machine() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise ClusterError(
            "A node needs Linux and root (or use Docker, or name a context in RUNKEYS_E2E_CONTEXT)."
        )
    missing = sorted(package for tool, package in TOOLS.items() if shutil.which(tool) is None)
    if missing:
        raise ClusterError(
            f"A node needs these system packages: {', '.join(missing)}. Run scripts/system-packages."
        )


def _has_begun(launched: subprocess.Popen[bytes], paths: NodePaths) -> bool:
    if launched.poll() is not None:
        raise ClusterError(f"The node's first process ended: {(paths.logs / 'init.log').read_text().strip()}")
    return (paths / "pid").exists()


def _take_slot(pid: int, name: str) -> int:
    """Make the link into the node; the kernel refuses a name that is taken, so no two nodes get the same slot."""
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


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30)


def _hierarchies() -> Iterator[Path]:
    """Yield the roots of all cgroup hierarchies that the kubelet uses: one in version 2, several in version 1."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        yield root
    else:
        yield from (folder for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink())


def _make_cgroup(name: str) -> None:
    node_init.remove_cgroup(name)
    for root in _hierarchies():
        (root / name).mkdir(exist_ok=True)


def _cgroup_gone(name: str) -> bool:
    node_init.remove_cgroup(name)
    return not any((root / name).exists() for root in _hierarchies())


def _last_line(path: Path) -> str:
    return (path.read_text(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _outer_pid(first: int, inner: int) -> int:
    """Translate a process number inside the node into the one outside."""
    space = os.readlink(f"/proc/{first}/ns/pid")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if os.readlink(entry / "ns" / "pid") == space:
                numbers = next(
                    x for x in (entry / "status").read_text().splitlines() if x.startswith("NSpid:")
                )
                if int(numbers.split()[-1]) == inner:
                    return int(entry.name)
    raise ClusterError(f"no process {inner} in the node")


def _forget_old_states() -> None:
    """Remove the files of ended nodes, but for the last few: their logs may still be wanted."""
    records = sorted(
        (cache_dir() / "nodes").glob("*/node.json"), key=lambda p: p.stat().st_mtime, reverse=True
    )
    ended = [path for path in records if (record := NodeRecord.load(path)) is None or not record.alive()]
    for path in ended[_KEPT_STATES:]:
        shutil.rmtree(path.parent, ignore_errors=True)
