"""A Docker engine: the one that answers on this machine, else a daemon of our own with Debian's ``docker.io``.

Our own has its folders, its socket, its process numbers and its mounts to itself, and leaves the machine's firewall
and its default bridge alone: a build or a container that needs the outside asks for ``--network=host``. It ends with
the last process that uses it, unless containers run. Its images stay in the cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testing.cluster import oci_runtime
from testing.cluster.base import ClusterError, wait_until
from testing.cluster.cache import Claim, cache_dir, content_key, file_lock
from testing.cluster.node_init import remove_cgroup
from testing.cluster.node_layout import process_birth

# A network for documentation (RFC 5737), as for the provider ``node``, which has another one.
ADDRESSES = "base=203.0.113.0/24,size=26"
# As many processes as a cluster's containers count as, when the machine is busy.
SHARE = 16
MODULES = Path("/lib/modules")
TOOLS = {"dockerd": "docker.io", "docker": "docker.io", "runc": "runc", "unshare": "util-linux"}
# containerd's sockets are below the daemon's folder, and this is what fits into a Unix socket's address.
_SOCKET_PATH_LIMIT = 104


class DockerError(ClusterError):
    """The Docker engine refused something, or none could be started. The message has its error output."""


@dataclass(frozen=True)
class Engine:
    """A Docker engine that answers.

    :ivar host: its socket, as in DOCKER_HOST; empty: the one that the client of this machine talks to.
    """

    host: str

    def environment(self) -> dict[str, str]:
        """Return environment variables by which ``docker`` and ``kind`` talk to this engine."""
        return dict(os.environ) if not self.host else os.environ | {"DOCKER_HOST": self.host}

    def run(self, *arguments: str | Path, timeout: float = 600.0) -> str:
        """Run ``docker`` with these arguments and return its output.

        :raises DockerError: it failed, or took longer than ``timeout`` seconds.
        """
        command = [client(), *map(str, arguments)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=self.environment(), timeout=timeout
            )
        except subprocess.TimeoutExpired as late:
            raise DockerError(f"docker {shlex.join(command[1:])} did not end within {timeout:g} s") from late
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-4000:]
            raise DockerError(f"docker {shlex.join(command[1:])} ended with {done.returncode}: {said}")
        return done.stdout


def client() -> str:
    """Return the path of the ``docker`` client. Debian's comes first: it has the version of Debian's daemon."""
    return shutil.which("docker", path=f"/usr/bin:{os.environ.get('PATH', '')}") or "docker"


def docker_answers() -> bool:
    """Whether a Docker engine answers on this machine that somebody else started."""
    return _answers("")


def _answers(host: str) -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(
            [client(), "info"],
            env=Engine(host).environment(),
            capture_output=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@contextmanager
def engine() -> Iterator[Engine]:
    """Use the Docker engine of this machine, or else our own: started by the first that needs it.

    :raises DockerError: none answers, and none can be started.
    """
    if docker_answers():
        yield Engine("")
        return
    own = Daemon()
    claim = Claim(own.claims)
    try:
        with file_lock(own.lock):
            own.start()
        try:
            yield own.engine
        finally:
            with file_lock(own.lock):
                if claim.is_last():
                    own.stop_if_idle()
    finally:
        claim.release()


def running_engine() -> Engine | None:
    """Return the engine that ``engine`` would use if it answers already; None: it would have to be started."""
    if docker_answers():
        return Engine("")
    own = Daemon()
    return own.engine if own.process() and _answers(own.engine.host) else None


class Daemon:
    """The daemon of our own, of which there is one for each cache folder."""

    def __init__(self) -> None:
        self.state = cache_dir() / "docker"
        self.cgroup = f"runkeys-docker-{content_key(str(self.state))[:8]}"
        self.claims = self.state / ".claims"
        self.lock = self.state / ".lock"
        self._record = self.state / "daemon.json"
        self.log = self.state / "dockerd.log"

    @property
    def engine(self) -> Engine:
        return Engine(f"unix://{self.state / 'docker.sock'}")

    def start(self) -> None:
        """Start the daemon unless it runs, and wait until it answers.

        :raises DockerError: this machine cannot run one, or it ended.
        """
        if self.process() is None:
            self._launch()
        self._wait_for_answer()

    def _launch(self) -> None:
        _check_machine(self.state)
        shutil.rmtree(self.state / "run", ignore_errors=True)
        (self.state / "docker.pid").unlink(missing_ok=True)
        self._share_processors()
        self.state.chmod(0o700)
        with self.log.open("wb") as log:
            launched = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C in the terminal is only for the caller.
                start_new_session=True,
            )
        record = {
            "pid": launched.pid,
            "born": process_birth(launched.pid),
            # kind mounts this folder, and Docker makes a folder that is not there.
            "modules": MODULES.exists(),
        }
        self._record.write_text(json.dumps(record))
        # From here on any process that ends it finds it by its process number.
        launched.returncode = 0

    def _share_processors(self) -> None:
        """Let all containers together count as many processes. By default they have what a single one has."""
        root = Path("/sys/fs/cgroup")
        if (root / "cgroup.controllers").exists():
            folder, file, share = root / self.cgroup, "cpu.weight", 100 * SHARE
        else:
            folder, file, share = root / "cpu" / self.cgroup, "cpu.shares", 1024 * SHARE
        folder.mkdir(exist_ok=True)
        # Where the machine does not divide its processors there is no such file.
        with contextlib.suppress(OSError):
            (folder / file).write_text(str(share))

    def command(self) -> list[str]:
        """Return the command line, which makes namespaces for the daemon and everything that it starts.

        With the first process all others end, and all mounts go.
        """
        alone = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "slave",
        ]
        # If a containerd of the machine answers there, dockerd would use it; and its shims have their sockets there.
        script = 'mkdir -p /run/containerd && mount -t tmpfs tmpfs /run/containerd && exec "$@"'
        # As the first process dockerd would leave zombies.
        init = ["docker-init", "--"] if shutil.which("docker-init") else []
        return [*alone, "sh", "-c", script, "sh", *init, "dockerd", *self._flags()]

    def _flags(self) -> list[str]:
        return [
            f"--data-root={self.state / 'data'}",
            f"--exec-root={self.state / 'run'}",
            f"--pidfile={self.state / 'docker.pid'}",
            f"--host={self.engine.host}",
            f"--cgroup-parent=/{self.cgroup}",
            # Nothing of the machine's own network changes. A published port is served by a process.
            "--bridge=none",
            "--iptables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            f"--default-address-pool={ADDRESSES}",
            *self._runtime(),
        ]

    def _runtime(self) -> list[str]:
        """Return the flags for a runtime that asks for no capability that root does not have here."""
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
        if not oci_runtime.lacking(Path("/proc/self/status").read_text(), last):
            return []
        launcher = self.state / "oci-runtime"
        command = [sys.executable, "-I", "-S", oci_runtime.__file__, shutil.which("runc") or "runc"]
        launcher.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        launcher.chmod(0o755)
        return [f"--add-runtime=less={launcher}", "--default-runtime=less"]

    def process(self) -> int | None:
        """Return the process number of the daemon's parent; None if the daemon does not run."""
        try:
            record = json.loads(self._record.read_text())
        except FileNotFoundError:
            return None
        pid: int = record["pid"]
        return pid if process_birth(pid) == record["born"] else None

    def _wait_for_answer(self) -> None:
        def ready() -> bool:
            if self.process() is None:
                raise DockerError(f"dockerd ended. The last lines of {self.log}:\n  {self._last_lines()}")
            return (self.state / "docker.sock").exists() and _answers(self.engine.host)

        wait_until("dockerd answers", ready, every=0.1)

    def _last_lines(self) -> str:
        return "\n  ".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def stop_if_idle(self) -> None:
        """End the daemon unless a container runs in it. The caller holds the lock, and nobody else a claim."""
        if self.process() is not None and not self.engine.run("ps", "--quiet").strip():
            # The links of networks would outlive the daemon.
            self.engine.run("network", "prune", "--force")
            self.stop()

    def stop(self) -> None:
        """End the daemon and everything that runs in it. Its images stay."""
        parent = self.process()
        if parent is None:
            return
        had_modules = json.loads(self._record.read_text()).get("modules", True)
        for child in _children(parent):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        try:
            wait_until("dockerd's end", lambda: self.process() is None, timeout=20)
        except ClusterError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(parent, signal.SIGKILL)
            wait_until("dockerd's end", lambda: self.process() is None)
        self._record.unlink(missing_ok=True)
        if not had_modules:
            with contextlib.suppress(OSError):
                MODULES.rmdir()
        remove_cgroup(self.cgroup)


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found


def _check_machine(state: Path) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise DockerError("No Docker engine answers, and to start one needs Linux and root.")
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise DockerError(
            f"No Docker engine answers, and to start one needs these system packages: {', '.join(missing)}. "
            "Run scripts/system-packages kind."
        )
    if len(str(state / "run/containerd/containerd-debug.sock.ttrpc")) > _SOCKET_PATH_LIMIT:
        raise DockerError(f"{state} is too long a path for sockets: set RUNKEYS_CACHE to a shorter folder.")
