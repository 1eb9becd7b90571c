"""The first process of a node: creates its mounts and network, starts its components, and ends everything with itself.

``unshare`` runs it, with the standard library alone. It answers each JSON line on a Unix socket with one JSON line:
``{"do": "start" | "signal" | "list", "name": …, "signal": …}``. With a second path, it ends when no process holds a
lock on that file any more: when the last process that claimed the node has died.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# The kubelet insists on writing these. Plain files mounted over them keep the machine's own settings unchanged.
SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
PRIVATE_FOLDERS = ("/run", "/var/log", "/var/lib/cni")


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30)


def mount_all(state: Path) -> None:
    """Give the node its own /proc, /run and stores, invisible from outside."""
    run("mount", "-t", "proc", "proc", "/proc")
    for folder in PRIVATE_FOLDERS:
        Path(folder).mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", folder)
    for store in ("containerd", "kubelet", "etcd"):
        (state / store).mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", str(state / store))
    Path("/run/netns").mkdir()
    run("mount", "--bind", "/run/netns", "/run/netns")
    for name, value in SYSCTLS.items():
        plain = Path("/run/sysctl") / name.replace("/", ".")
        plain.parent.mkdir(exist_ok=True)
        plain.write_text(value)
        run("mount", "--bind", str(plain), f"/proc/sys/{name}")
    # Mounts of containers must propagate to the kubelet and back. None of them leaves this namespace.
    run("mount", "--make-rshared", "/")


def connect(address: str, outside: str) -> None:
    """Bring up loopback and the link that was moved into this namespace from outside."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{address}/30", "dev", "node0")
    run("ip", "link", "set", "node0", "up")
    run("ip", "route", "add", "default", "via", outside)


def remove_cgroup(name: str) -> None:
    """Remove a cgroup and everything below it, in the one hierarchy of version 2 or the several of version 1."""
    hierarchies = Path("/sys/fs/cgroup")
    for root in (*hierarchies.glob(name), *hierarchies.glob(f"*/{name}")):
        for folder, _, _ in os.walk(root, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


class Node:
    """Starts and signals components, and collects every process that ends in this node."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.pids: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self.cgroup = ""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        do = request["do"]
        if do == "connect":
            self.cgroup = request["cgroup"]
            connect(request["address"], request["outside"])
        elif do == "start":
            self.start(request["name"])
        elif do == "signal":
            os.kill(self.pids[request["name"]], request["signal"])
        elif do != "list":
            raise ValueError(f"unknown request {do!r}")
        return {"running": self.pids, "ended": self.ended}

    def start(self, name: str) -> None:
        if name in self.pids:
            return
        commands = json.loads((self.state / "commands.json").read_text())
        with (self.state / "logs" / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                commands[name]["argv"],
                env=commands[name]["env"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pids[name] = child.pid
        self.ended.pop(name, None)
        # Ended children are collected below by number. This keeps the Popen object from collecting them too.
        child.returncode = 0

    def collect(self) -> bool:
        """Collect all ended processes. Return False if no child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            for name in [n for n, p in self.pids.items() if p == pid]:
                del self.pids[name]
                self.ended[name] = os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """Kill everything in this node and remove its cgroups, which would outlive their processes."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            if not self.collect():
                break
            time.sleep(0.005)
        if self.cgroup:
            remove_cgroup(self.cgroup)


def is_claimed(claims: int) -> bool:
    """Whether any process holds a (shared) lock on this open file."""
    try:
        fcntl.flock(claims, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def serve(node: Node, server: socket.socket, claims: int | None) -> None:
    """Answer requests until a signal asks to end, or until nobody claims this node any more."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    asked_to_end = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_end.append(True))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ, "socket")
        selector.register(wake_read, selectors.EVENT_READ, "signal")
        while not asked_to_end and (claims is None or is_claimed(claims)):
            for key, _ in selector.select(timeout=0.5):
                if key.data == "signal":
                    os.read(wake_read, 4096)
                    node.collect()
                else:
                    converse(node, server)


def converse(node: Node, server: socket.socket) -> None:
    """Accept one connection and answer its one line. A caller that disconnects does no harm."""
    connection, _ = server.accept()
    with connection, contextlib.suppress(OSError):
        connection.settimeout(10)
        line = connection.makefile("r").readline()
        try:
            reply = node.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001  the caller gets to know, whatever it was; this process must live
            reply = {"error": f"{type(error).__name__}: {error}"}
        connection.sendall(json.dumps(reply).encode() + b"\n")


def main() -> None:
    state = Path(sys.argv[1])
    # Open it before anything is mounted over its folder.
    claims = os.open(sys.argv[2], os.O_RDWR) if len(sys.argv) > 2 else None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Until /proc is mounted anew it is the outer one: this is the process number as seen from outside.
    outer_pid = str(Path("/proc/self").readlink())
    node = Node(state)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(state / "control.sock"))
            server.listen(64)
            mount_all(state)
            (state / "pid.new").write_text(outer_pid)
            (state / "pid.new").rename(state / "pid")
            serve(node, server, claims)
    finally:
        node.end()


if __name__ == "__main__":
    main()
