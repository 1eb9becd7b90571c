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
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from testing.cluster import build, images, node_init
from testing.cluster.audit import AuditLog
from testing.cluster.base import Cluster, ClusterError, listens, wait_until
from testing.cluster.cache import Claim, age, cache_dir, file_lock
from testing.cluster.client import PATIENCE
from testing.cluster.etcd import GatewayReader
from testing.cluster.node_config import COMPONENTS, NODE_NAME, SECOND_NODE, write_config, write_second_node
from testing.cluster.node_layout import NodeOptions, NodePaths, NodeRecord, process_birth
from testing.cluster.node_machine import (
    cgroup_gone,
    check_machine,
    make_cgroup,
    outer_pid,
    remove_link,
    run_ip,
    take_slot,
)

_KEPT_STATES = 4
_DAY = 24 * 3600.0


class NodeCluster(Cluster):
    """A cluster on this machine, found by its name. It needs root and Linux.

    Everything runs below one process with namespaces of its own. When that process ends, everything ends.
    """

    provider = "node"
    components = COMPONENTS

    def __init__(self, name: str, record: NodeRecord) -> None:
        super().__init__(name)
        self.record = record
        self.paths = NodePaths.of(name)
        self._claim: Claim | None = None

    # Life

    @classmethod
    def start(cls, name: str, options: NodeOptions | None = None, claim: Claim | None = None) -> NodeCluster:
        """Start a node and return when it is ready for pods.

        :param claim: the node ends soon after the last process with a claim on the same file has died or released it.
            None: it stays until ``stop``, whatever process dies.
        :raises ClusterError: the node runs already or did not start.
        """
        check_machine()
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
        """Return the running node of this name; None if there is none."""
        record = NodeRecord.load(NodePaths.of(name).record)
        return cls(name, record) if record is not None and record.alive() else None

    @classmethod
    def running(cls) -> list[NodeCluster]:
        """Return all running nodes."""
        names = [path.parent.name for path in (cache_dir() / "nodes").glob("*/node.json")]
        return [node for name in sorted(names) if (node := cls.attach(name)) is not None]

    @classmethod
    def clean_up(cls, name: str) -> bool:
        """Remove everything that an ended node left. Return False if there is nothing of that name."""
        paths = NodePaths.of(name)
        if not paths.state.exists():
            return False
        record = NodeRecord.load(paths.record)
        if record is not None:
            cls(name, record).stop()
        shutil.rmtree(paths.state, ignore_errors=True)
        return True

    def stop(self) -> None:
        """Remove the node: processes, network, mounts, cgroups and files."""
        self._end()
        # Another node may have the name by now.
        if NodeRecord.load(self.paths.record) == self.record:
            shutil.rmtree(self.paths.state, ignore_errors=True)

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
                # A Ctrl-C in the terminal is only for the caller.
                start_new_session=True,
            )
        try:
            wait_until("the node's first process", lambda: _has_begun(launched, paths), every=0.005)
            pid = int((paths / "pid").read_text())
            slot = take_slot(pid, name)
        except BaseException:
            launched.kill()
            launched.wait(timeout=10)
            shutil.rmtree(paths.state, ignore_errors=True)
            raise
        record = NodeRecord(name, slot, pid, process_birth(pid) or 0, launched.pid, options)
        record.save(paths.record)
        # From here on any process that ends it finds it by its process number.
        launched.returncode = 0
        node = cls(name, record)
        node._claim = claim
        return node

    def _bring_up(self, archives: list[Path]) -> None:
        record = self.record
        run_ip("address", "add", f"{record.outside}/30", "dev", record.link)
        run_ip("link", "set", record.link, "up", "alias", record.mark)
        make_cgroup(record.cgroup)
        self._ask("connect", address=record.address, outside=record.outside, cgroup=record.cgroup)
        write_config(self.paths, record)
        if record.options.api_server_only:
            for name in ("etcd", "kube-apiserver"):
                self.start_component(name)
            wait_until("the API server", self._api_ready)
            return
        with ThreadPoolExecutor(1) as aside:
            for name in ("containerd", "etcd", "kube-apiserver"):
                self.start_component(name)
            imported = aside.submit(self._import_first, archives)
            wait_until("the API server", self._api_ready)
            # If started earlier, these would give up because their own roles do not exist yet.
            for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
                self.start_component(name)
            self._wait_for_runtime("containerd", self.paths.containerd)
            self.start_component("kubelet")
            imported.result(timeout=120)
        self.client.wait_for("nodes", NODE_NAME, None, _is_ready, what="Ready")
        self.client.wait_for("serviceaccounts", "default", "default", bool)

    def _api_ready(self) -> bool:
        self._check_alive(*COMPONENTS)
        return self.client.is_ready()

    def _wait_for_runtime(self, name: str, socket_file: Path) -> None:
        def ready() -> bool:
            self._check_alive(name)
            return listens(socket_file)

        wait_until(f"{name} to listen", ready)

    def _check_alive(self, *components: str) -> None:
        for name, code in self._ask("list")["ended"].items():
            if name in components:
                raise ClusterError(f"{name} ended with {code}: {_last_line(self.log_file(name))}")

    def _import_first(self, archives: list[Path]) -> None:
        self._wait_for_runtime("containerd", self.paths.containerd)
        for archive in archives:
            self.load_image(archive)

    def _end(self) -> Path:
        """End everything but the files, and return the folder with the files."""
        if self.record.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.record.pid, signal.SIGTERM)
            try:
                wait_until("the node's end", lambda: not self.record.alive())
            except ClusterError:
                os.kill(self.record.pid, signal.SIGKILL)
                wait_until("the node's end", lambda: not self.record.alive())
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.record.launcher, 0)
        # Its network would disappear later by itself, its cgroups only if its first process could still remove them.
        remove_link(self.record)
        wait_until("the cgroups' end", lambda: cgroup_gone(self.record.cgroup))
        return self.paths.state

    def join_second_node(self, archives: list[Path]) -> str:
        """Start a second kubelet with a container runtime of its own and these images. Return its node's name."""
        write_second_node(self.paths, self.record)
        make_cgroup(f"{self.record.cgroup}/{SECOND_NODE}")
        self.start_component("containerd2")
        runtime = self.paths / "containerd2.sock"
        self._wait_for_runtime("containerd2", runtime)
        for archive in [images.pause_image(), *archives]:
            self._import(runtime, archive)
        self.start_component("kubelet2")
        self.client.wait_for("nodes", SECOND_NODE, None, _is_ready, what="Ready")
        return SECOND_NODE

    # What a client needs

    @property
    def kubeconfig(self) -> Path:
        return self.paths.kubeconfig

    @property
    def scratch(self) -> Path:
        return self.paths / "scratch"

    def load_image(self, archive: Path) -> None:
        self._import(self.paths.containerd, archive)

    def _import(self, runtime: Path, archive: Path) -> None:
        where = (f"--address={runtime}", "--namespace=k8s.io")
        self.run(build.program("ctr"), *where, "images", "import", "--local=false", archive, timeout=120)

    # Looking inside

    @cached_property
    def etcd(self) -> GatewayReader:
        return GatewayReader(self.paths.etcd)

    @cached_property
    def audit(self) -> AuditLog:
        return AuditLog(self.paths.audit)

    def log_file(self, component: str) -> Path:
        return self.paths.logs / f"{component}.log"

    def log_files(self) -> list[Path]:
        pods = [path for path in (self.paths / "pod-logs").rglob("*.log*") if path.is_file()]
        return [*sorted(self.paths.logs.glob("*.log")), *sorted(pods), self.paths.audit]

    def enter(self, *command: str, timeout: float = 60) -> str:
        """Run a program in the node's mount, network and process namespaces, and return its output."""
        return self.run("nsenter", "-t", str(self.record.pid), "-m", "-n", "-p", *command, timeout=timeout)

    # Breaking it

    def component_pids(self) -> dict[str, int]:
        """Return the running components, with their process numbers as seen from outside."""
        inner = self._ask("list")["running"]
        return {name: outer_pid(self.record.pid, pid) for name, pid in inner.items()}

    def kill(self, component: str) -> None:
        self._signal(component, signal.SIGKILL)
        wait_until(f"{component}'s end", lambda: component not in self._ask("list")["running"])

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
            connection.settimeout(PATIENCE)
            connection.connect(str(self.paths.control))
            connection.sendall(json.dumps({"do": do, **details}).encode() + b"\n")
            reply: dict[str, Any] = json.loads(connection.makefile("r").readline())
        if "error" in reply:
            raise ClusterError(
                f"The node {self.name!r} could not {do} {details.get('name', '')}: {reply['error']}"
            )
        return reply


def _has_begun(launched: subprocess.Popen[bytes], paths: NodePaths) -> bool:
    if launched.poll() is not None:
        raise ClusterError(f"The node's first process ended: {(paths.logs / 'init.log').read_text().strip()}")
    return (paths / "pid").exists()


def _last_line(path: Path) -> str:
    return (path.read_text(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _forget_old_states() -> None:
    """Remove the files of ended nodes, except the last few: somebody may still want to read their logs."""
    nodes = cache_dir() / "nodes"
    newest_first = sorted(nodes.glob("*/node.json"), key=age)
    records = [record for path in newest_first if (record := NodeRecord.load(path)) is not None]
    ended = [record for record in records if not record.alive()]
    for number, record in enumerate(ended):
        node_init.remove_cgroup(record.cgroup)
        if number >= _KEPT_STATES:
            with file_lock(nodes / f".{record.name}.lock"):
                # Another process may be starting a node of that name now.
                if NodeRecord.load(NodePaths.of(record.name).record) == record:
                    shutil.rmtree(nodes / record.name, ignore_errors=True)
    running = {record.name for record in records if record.alive()}
    for lock in nodes.glob(".*"):
        # A name is used by one run of tests, or for as long as its node runs.
        if lock.name[1:].rpartition(".")[0] not in running and age(lock) > _DAY:
            lock.unlink(missing_ok=True)
