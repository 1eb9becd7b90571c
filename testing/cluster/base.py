"""The interface of every provider of a test cluster, and its errors."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import yaml

from testing.cluster import build
from testing.cluster.audit import AuditLog
from testing.cluster.client import PATIENCE, KubeClient
from testing.cluster.etcd import EtcdReader


class ClusterError(RuntimeError):
    """An operation on a cluster failed. The message says which, and where to look or what to do."""


class NotOffered(ClusterError):
    """This provider does not support the operation, for example to read the etcd of an existing cluster."""


class Cluster(ABC):
    """A running Kubernetes cluster for tests.

    ``with provider("node").start() as cluster`` ends it afterwards; ``attach`` finds one that somebody else started.
    """

    provider: ClassVar[str]
    components: ClassVar[tuple[str, ...]] = ()
    """Names of components, for kill, pause, resume, start_component, restart and log_file."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # For clients

    @property
    @abstractmethod
    def kubeconfig(self) -> Path:
        """A kubeconfig file of a cluster administrator."""

    @property
    @abstractmethod
    def scratch(self) -> Path:
        """A folder for files that belong to this cluster; it is deleted with the cluster."""

    @cached_property
    def server(self) -> str:
        """The API server's URL, reachable from this machine."""
        return self._server_entry()["server"]

    @cached_property
    def ca_file(self) -> Path | None:
        """File with the certificate authority of the API server's certificate; None: a publicly trusted one."""
        entry = self._server_entry()
        if "certificate-authority-data" in entry:
            written, whole = self.scratch / f"ca-{uuid.uuid4()}.crt", self.scratch / "ca.crt"
            written.write_bytes(base64.b64decode(entry["certificate-authority-data"]))
            return written.replace(whole)  # other workers read it
        return Path(entry["certificate-authority"]) if "certificate-authority" in entry else None

    @cached_property
    def client(self) -> KubeClient:
        """A client with an administrator's rights."""
        return KubeClient(self.server, self.ca_file, kubeconfig=self.kubeconfig)

    @cached_property
    def node_name(self) -> str:
        """The name of the node; of several, the first."""
        return min(str(node["metadata"]["name"]) for node in self.client.list("nodes"))

    def kubeconfig_for(
        self, token: str, path: Path, *, server: str | None = None, namespace: str = "default"
    ) -> Path:
        """Write a kubeconfig that authenticates by this token, and return its path.

        :param server: URL of a proxy (plain HTTP); default: the API server itself.
        """
        at: dict[str, str] = {"server": server or self.server}
        if server is None and self.ca_file is not None:
            at["certificate-authority"] = str(self.ca_file)
        return write_kubeconfig(path, at, {"token": token}, namespace)

    def kubectl(self, *args: str, input: str | None = None, timeout: float = PATIENCE) -> str:
        """Run kubectl as administrator and return its output.

        :raises ClusterError: it failed; the message has its error output.
        """
        return self.run(build.program("kubectl"), *args, input=input, timeout=timeout)

    def helm(self, *args: str, input: str | None = None, timeout: float = 2 * PATIENCE) -> str:
        """Run helm as administrator and return its output. It gives up by itself after five minutes.

        :raises ClusterError: it failed; the message has its error output.
        """
        return self.run(build.program("helm"), *args, input=input, timeout=timeout)

    def environment(self) -> dict[str, str]:
        """Return environment variables with kubectl and helm on the path and this cluster as their target."""
        folders = (build.GROUPS["kube"].bin, build.GROUPS["helm"].bin, build.GROUPS["etcd"].bin)
        # By default helm keeps its caches and settings in the home folder.
        helm = {f"HELM_{k}_HOME": str(self.scratch / "helm" / k.lower()) for k in ("CACHE", "CONFIG", "DATA")}
        path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
        return os.environ | helm | {"KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def run(self, *command: str | Path, input: str | None = None, timeout: float = PATIENCE) -> str:
        """Run a program in the environment of this cluster and return its output.

        :raises ClusterError: it failed or took too long; the message has its error output.
        """
        try:
            done = subprocess.run(
                command,
                input=input,
                capture_output=True,
                text=True,
                check=False,
                env=self.environment(),
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as late:
            raise ClusterError(f"{_shown(command)} did not end within {timeout:g} s") from late
        if done.returncode != 0:
            raise ClusterError(f"{_shown(command)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    # Life

    @abstractmethod
    def stop(self) -> None:
        """Stop the cluster and remove everything that it created. Nothing happens if it is already gone."""

    @abstractmethod
    def load_image(self, archive: Path) -> None:
        """Load the images of a docker-archive file onto the cluster's nodes."""

    # Looking inside

    @property
    def etcd(self) -> EtcdReader:
        """A reader of everything that etcd stores and stored."""
        raise self._not_offered("read etcd")

    @property
    def audit(self) -> AuditLog:
        """Every request that the API server answered."""
        raise self._not_offered("read the audit log")

    def log_file(self, component: str) -> Path:
        """Return the file with the output of this component."""
        raise self._not_offered(f"read the log of {component}")

    def log_files(self) -> list[Path]:
        """Return all log files: of components and of containers, and the audit log."""
        raise self._not_offered("read logs")

    # Breaking it

    def kill(self, component: str) -> None:
        """Kill a component (SIGKILL). It stays away until start_component."""
        raise self._not_offered(f"kill {component}")

    def pause(self, component: str) -> None:
        """Freeze a component (SIGSTOP)."""
        raise self._not_offered(f"pause {component}")

    def resume(self, component: str) -> None:
        """Resume a frozen component (SIGCONT)."""
        raise self._not_offered(f"resume {component}")

    def start_component(self, component: str) -> None:
        """Start a component that was killed."""
        raise self._not_offered(f"start {component}")

    def restart(self, component: str) -> None:
        """Kill and start a component. For etcd and the API server, return when the API server is ready again."""
        self.kill(component)
        self.start_component(component)
        if component in ("kube-apiserver", "etcd"):
            self.client.wait_ready()

    def _not_offered(self, what: str) -> NotOffered:
        return NotOffered(f"The provider {self.provider!r} cannot {what}; the provider 'node' can.")

    def _server_entry(self) -> dict[str, str]:
        config = yaml.safe_load(self.kubeconfig.read_text())
        context = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
        entry: dict[str, str] = next(
            c["cluster"] for c in config["clusters"] if c["name"] == context["cluster"]
        )
        return entry


def write_kubeconfig(
    path: Path, cluster: dict[str, str], user: dict[str, str], namespace: str = "default"
) -> Path:
    """Write a kubeconfig with one context, readable by its owner only, and return its path."""
    context = {"cluster": "runkeys", "user": "runkeys", "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "runkeys", "cluster": cluster}],
        "users": [{"name": "runkeys", "user": user}],
        "contexts": [{"name": "runkeys", "context": context}],
        "current-context": "runkeys",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1))
    return path


def free_port() -> int:
    """A TCP port that nothing on this machine listens on, for somebody who listens on it a little later.

    It is below those that the kernel gives to connections: one of them would often be taken by then.
    """
    for _ in range(100):
        port = 11000 + secrets.randbelow(19000)
        with socket.socket() as found, suppress(OSError):
            found.bind(("", port))
            return port
    raise ClusterError("100 TCP ports were tried, and none could be bound")


def listens(path: Path) -> bool:
    """Whether somebody listens on a Unix socket. Its file is there a little earlier, and stays when they are killed."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def wait_until(
    what: str, condition: Callable[[], bool], timeout: float = PATIENCE, every: float | None = None
) -> None:
    """Wait at most ``timeout`` seconds for a condition.

    :param what: the condition in words, for the error.
    :param every: seconds between two looks. None: 0.02 at first, and up to a quarter of a second later, since looks
        cost what is waited for its time.
    :raises ClusterError: the condition did not become true in time.
    """
    until, pause = time.monotonic() + timeout, every or 0.02
    while not condition():
        if time.monotonic() > until:
            raise ClusterError(f"{what}: not within {timeout:g} s")
        time.sleep(pause)
        pause = pause if every is not None else min(pause * 1.3, 0.25)


def wait_with_progress(
    what: str,
    look: Callable[[], object],
    done: Callable[[], bool],
    quiet: float = PATIENCE,
    every: float = 0.5,
    tell: Callable[[], str] = str,
) -> None:
    """Wait for a condition as long as the result of ``look`` keeps changing.

    For many things at once: the time that all of them take together depends on load, so no limit fits.

    :param quiet: how many seconds without a change are allowed.
    :param tell: what is there instead, for the error.
    :raises ClusterError: nothing changed for that long.
    """
    before, since = look(), time.monotonic()
    while not done():
        now = look()
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > quiet:
            raise ClusterError(f"{what}: nothing has changed for {quiet:g} s\n{tell()}")
        time.sleep(every)


def _shown(command: tuple[str | Path, ...]) -> str:
    return " ".join([Path(command[0]).name, *map(str, command[1:])])
