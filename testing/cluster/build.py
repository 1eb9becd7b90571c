"""Builds the cluster's programs from the Go modules pinned in ``components/`` and keeps them in the cache.

Each group has its own go.mod, because their dependencies must not be mixed. A group's folder in the cache is named
after a hash of its go.mod, go.sum and build flags. So an unchanged group is never built twice, even by a fresh clone.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, RLock
from typing import TextIO

from testing.cluster.cache import cache_dir, content_key, file_lock
from testing.cluster.golang import go_command

COMPONENTS = Path(__file__).parent / "components"
KUBERNETES = "v1.37.2"
# The oldest version that the chart accepts. Its API server is tested too (`make test-1.34`).
OLDEST_KUBERNETES = "v1.34.4"


class BuildError(RuntimeError):
    """A component could not be built. The message says which one, why, and where the whole log is."""


@dataclass(frozen=True)
class Group:
    """Programs that one go.mod pins together.

    :ivar programs: from file name to Go package.
    :ivar pins: name of the folder in ``components/``; empty: the group's own.
    """

    name: str
    programs: dict[str, str]
    ldflags: str = ""
    flags: tuple[str, ...] = ()
    cgo: bool = False
    pins: str = ""
    files: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(self.folder / name for name in ("go.mod", "go.sum")))

    @property
    def folder(self) -> Path:
        return COMPONENTS / (self.pins or self.name)

    @property
    def link(self) -> str:
        return f"-s -w {self.ldflags}".strip()

    @property
    def bin(self) -> Path:
        """The folder in the cache for this group's programs; they may not be built yet."""
        how = " ".join((*self.programs.values(), self.link, *self.flags, str(self.cgo), platform.machine()))
        return cache_dir() / "cluster" / f"{self.name}-{content_key(*self.files, how)}" / "bin"

    def missing(self) -> list[str]:
        return [name for name in self.programs if not (self.bin / name).exists()]


def _kubernetes_version(version: str) -> str:
    # A build without Kubernetes' own scripts has the version v0.0.0, and clients and policies rely on the version.
    package = "k8s.io/component-base/version"
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X {package}.{key}={value}" for key, value in values.items())


_KUBE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl", "kube-proxy")
_CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
_CNI = ("main/bridge", "ipam/host-local")

GROUPS: dict[str, Group] = {
    group.name: group
    for group in (
        Group("etcd", {"etcd": "go.etcd.io/etcd/server/v3", "etcdctl": "go.etcd.io/etcd/etcdctl/v3"}),
        Group(
            "kube", {n: f"k8s.io/kubernetes/cmd/{n}" for n in _KUBE}, ldflags=_kubernetes_version(KUBERNETES)
        ),
        # For those whose cluster is elsewhere: the rest of Kubernetes takes long, and is for Linux.
        Group(
            "kubectl",
            {"kubectl": "k8s.io/kubernetes/cmd/kubectl"},
            ldflags=_kubernetes_version(KUBERNETES),
            pins="kube",
        ),
        Group(
            "kube-1.34",
            {"kube-apiserver-1.34": "k8s.io/kubernetes/cmd/kube-apiserver"},
            ldflags=_kubernetes_version(OLDEST_KUBERNETES),
        ),
        Group("containerd", {n: f"github.com/containerd/containerd/v2/cmd/{n}" for n in _CONTAINERD}),
        # Without seccomp, runc refuses every pod with the default profile.
        Group("runc", {"runc": "github.com/opencontainers/runc"}, flags=("-tags", "seccomp"), cgo=True),
        Group(
            "cni", {p.partition("/")[2]: f"github.com/containernetworking/plugins/plugins/{p}" for p in _CNI}
        ),
        Group("helm", {"helm": "helm.sh/helm/v4/cmd/helm"}),
        # Pushes images, and serves a registry on this machine in tests.
        Group("crane", {"crane": "github.com/google/go-containerregistry/cmd/crane"}),
        Group("actionlint", {"actionlint": "github.com/rhysd/actionlint/cmd/actionlint"}),
        Group("kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
        Group("kind", {"kind": "sigs.k8s.io/kind"}),
        # What kind's node image has beside the node's own programs.
        Group(
            "kubeadm",
            {"kubeadm": "k8s.io/kubernetes/cmd/kubeadm"},
            ldflags=_kubernetes_version(KUBERNETES),
        ),
        Group("crictl", {"crictl": "sigs.k8s.io/cri-tools/cmd/crictl"}),
        # Without service discovery for clouds, which is most of the code.
        Group(
            "prometheus",
            {"promtool": "github.com/prometheus/prometheus/cmd/promtool"},
            flags=("-tags", "builtinassets,remove_all_sd"),
        ),
    )
}
# The one that takes longest begins first.
NODE_GROUPS = ("kube", "etcd", "containerd", "runc", "cni", "helm")
CLIENT_GROUPS = ("kubectl", "helm")


def program(name: str) -> Path:
    """Return the path of a built program such as ``kubectl``; of two groups that have it, from the one that is built.

    :raises KeyError: no group has a program of that name.
    """
    found = [group.bin / name for group in GROUPS.values() if name in group.programs]
    if not found:
        raise KeyError(name)
    return next((path for path in found if path.exists()), found[0])


def ensure(groups: tuple[str, ...] = NODE_GROUPS, out: TextIO | None = None) -> None:
    """Build the missing programs of these groups, two groups at once, with a line of progress for each program.

    Two builds at once wait for each other. The second then finds everything done.

    :raises BuildError: a program could not be built.
    """
    wanted = [GROUPS[name] for name in groups]
    if not any(group.missing() for group in wanted):
        return
    with file_lock(cache_dir() / "cluster" / ".lock"):
        todo = [(group, missing) for group in wanted if (missing := group.missing())]
        progress = _Progress(out or sys.stderr, sum(len(missing) for _, missing in todo))
        with ThreadPoolExecutor(_AT_ONCE) as lanes:
            builds = [lanes.submit(_build_group, group, missing, progress) for group, missing in todo]
            try:
                for ended in as_completed(builds):
                    ended.result()
            except BaseException:
                progress.stopped.set()
                lanes.shutdown(cancel_futures=True)
                raise
        if todo and out is not None:
            progress.say(f"Built {progress.total} programs in {_seconds(progress.seconds())}.")


# What is linked keeps one processor busy, and programs of one group share much, which would be compiled twice.
_AT_ONCE = 2


def _build_group(group: Group, programs: list[str], progress: _Progress) -> None:
    for name in programs:
        if not progress.stopped.is_set():
            _build(group, name, progress)


def _build(group: Group, name: str, progress: _Progress) -> None:
    """Build one program under a temporary name and rename it, so that nobody uses a half-written file."""
    if group.cgo:
        _need_seccomp()
    group.bin.mkdir(parents=True, exist_ok=True)
    unfinished = group.bin / f".{name}.{os.getpid()}"
    log = group.bin.parent / f"{name}.log"
    arguments = [
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags",
        group.link,
        *group.flags,
        "-o",
        str(unfinished),
    ]
    environment = os.environ | {
        "CGO_ENABLED": "1" if group.cgo else "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    environment.pop("GOFLAGS", None)
    # The compiler and the linker collect garbage less often: an eighth less of processor time, for more memory.
    environment.setdefault("GOGC", "400")
    needed = max(_go_directive(g.files[0]) for g in GROUPS.values())
    command = [str(go_command(needed)), *arguments, group.programs[name]]
    try:
        with log.open("wb") as handle:
            build = subprocess.Popen(command, cwd=group.folder, env=environment, stdout=handle, stderr=handle)
            progress.follow(name, build)
        if progress.stopped.is_set():
            return
        if build.returncode != 0:
            last = "\n  ".join(log.read_text(errors="replace").splitlines()[-12:])
            raise BuildError(f"{name} did not build. The last lines of {log}:\n  {last}")
        unfinished.rename(group.bin / name)
        log.unlink()
    finally:
        unfinished.unlink(missing_ok=True)


def _go_directive(go_mod: Path) -> tuple[int, ...]:
    found = re.search(r"^go (\d+(?:\.\d+)*)$", go_mod.read_text(), re.MULTILINE)
    return tuple(int(part) for part in found[1].split(".")) if found else (1,)


def _need_seccomp() -> None:
    tools = [tool for tool in ("gcc", "pkg-config") if shutil.which(tool) is None]
    if not tools:
        found = subprocess.run(["pkg-config", "--exists", "libseccomp"], check=False, timeout=30)
        if found.returncode == 0:
            return
        tools = ["libseccomp-dev"]
    raise BuildError(f"runc needs {', '.join(tools)}: run scripts/system-packages.")


def _seconds(duration: float) -> str:
    return f"{duration:.0f}s" if duration < 60 else f"{duration // 60:.0f}m{duration % 60:02.0f}s"


class _Progress:
    """Tells what is being built.

    On a terminal one line counts seconds; elsewhere there is a line at the start, each minute and at the end.

    :ivar stopped: to be set if another program failed: what is still being built ends.
    """

    def __init__(self, out: TextIO, total: int) -> None:
        self.total = total
        self.stopped = Event()
        self._out = out
        self._started = time.monotonic()
        self._running: dict[str, float] = {}  # label: when it began
        self._count = 0
        self._one_line_at_a_time = RLock()

    def seconds(self) -> float:
        """How long all builds together have taken."""
        return time.monotonic() - self._started

    def say(self, line: str) -> None:
        """Print a line that stays."""
        with self._one_line_at_a_time:
            print(_ERASE if self._out.isatty() else "", line, sep="", file=self._out, flush=True)

    def follow(self, name: str, build: subprocess.Popen[bytes]) -> None:
        """Tell of a build until it ends, or end it if it is to stop."""
        with self._one_line_at_a_time:
            self._count += 1
            label = f"[{self._count}/{self.total}] {name}"
            self._running[label] = time.monotonic()
        if not self._out.isatty():
            self.say(f"{label} …")
        try:
            told = time.monotonic()
            while not self._ended(build):
                if self.stopped.is_set():
                    break
                if self._out.isatty():
                    self._count_seconds()
                elif time.monotonic() - told >= _MINUTE:
                    told = time.monotonic()
                    self.say(self._line(label))
        finally:
            if build.poll() is None:
                build.terminate()
                build.wait(timeout=30)
            if not self.stopped.is_set():
                self.say(self._line(label))
            del self._running[label]

    @staticmethod
    def _ended(build: subprocess.Popen[bytes]) -> bool:
        try:
            build.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _count_seconds(self) -> None:
        with self._one_line_at_a_time:
            line = ", ".join(self._line(label) for label in tuple(self._running))
            print(_ERASE, line, sep="", end="", file=self._out, flush=True)

    def _line(self, label: str) -> str:
        return f"{label} … {_seconds(time.monotonic() - self._running[label])}"


_MINUTE = 60
_ERASE = "\r\x1b[K"  # the line on a terminal
