"""A Docker daemon of our own: what containers in it can do, and that it leaves nothing on the machine."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.cluster import docker, images, oci_runtime
from testing.cluster.docker import Daemon, DockerError

NEWER = {"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"}
LAST = Path("/proc/sys/kernel/cap_last_cap")


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon with a cache folder of its own, which is not running."""
    archive = images.task_image()
    # In pytest's folders a socket's path is too long.
    folder = Path(tempfile.mkdtemp(prefix="rk-", dir="/tmp"))
    monkeypatch.setenv("RUNKEYS_CACHE", str(folder))
    # What another one of this machine answers is not asked for.
    monkeypatch.setattr(docker, "docker_answers", lambda: False)
    own = Daemon()
    own.state.mkdir()
    shutil.copy(archive, folder / "task.tar")
    yield own
    own.stop()
    shutil.rmtree(folder)


def load(engine: docker.Engine, daemon: Daemon) -> None:
    engine.run("load", "--input", daemon.state.parent / "task.tar")


def traces(daemon: Daemon) -> list[str]:
    """Return what of the daemon can be found outside of it: processes, mounts, cgroups."""
    state = str(daemon.state)
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if state in (process / "cmdline").read_text():
                    found.append(f"process {process.name}")
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if state in line]
    return found + [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"*/{daemon.cgroup}")]


def network() -> tuple[str, set[str], str]:
    """Return the machine's rules, links and whether it forwards."""
    rules = subprocess.run(
        ["iptables-save"], capture_output=True, text=True, check=True, timeout=180
    ).stdout.splitlines()
    links = {
        path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(("docker", "br-"))
    }
    text = "\n".join(line for line in rules if not line.startswith(("#", ":")))
    return text, links, Path("/proc/sys/net/ipv4/ip_forward").read_text()


def test_it_ends_with_its_last_user_and_leaves_nothing(daemon: Daemon) -> None:
    before = network()
    with docker.engine() as engine, docker.engine() as same:
        assert same == engine
        assert traces(daemon), "what is looked for is found while it runs"
        assert network() == before, "the machine's network is its own"
        engine.run("network", "create", "-d=bridge", "kind")
        assert network() != before, "a network of containers has a link, and it is seen"
    assert daemon.process() is None
    assert traces(daemon) == []
    assert network() == before


def test_it_stays_while_a_container_runs(daemon: Daemon) -> None:
    with docker.engine() as engine:
        load(engine, daemon)
        engine.run("run", "--detach", "--name=stays", "--network=none", images.TASK_IMAGE, "sleep", "600")
    assert daemon.process() is not None
    with docker.engine() as engine:
        assert engine.run("ps", "--format={{.Names}}").split() == ["stays"]
        engine.run("rm", "--force", "stays")
    assert daemon.process() is None
    # images are kept for the next one
    with docker.engine() as engine:
        assert engine.run("image", "ls", "--quiet", images.TASK_IMAGE).strip()


def capabilities(engine: docker.Engine) -> frozenset[str]:
    """Return what a privileged container has, from its first process and from one that is started in it later."""
    status = ("cat", "/proc/self/status")
    first = engine.run("run", "--rm", "--privileged", "--network=none", images.TASK_IMAGE, *status)
    engine.run(
        "run", "-d", "--name=later", "--privileged", "--network=none", images.TASK_IMAGE, "sleep", "600"
    )
    later = engine.run("exec", "--privileged", "later", *status)
    engine.run("rm", "--force", "later")
    assert oci_runtime.bounding_set(first) == oci_runtime.bounding_set(later)
    return oci_runtime.bounding_set(first)


def test_a_privileged_container_has_what_root_has(daemon: Daemon) -> None:
    with docker.engine() as engine:
        load(engine, daemon)
        held = oci_runtime.bounding_set(Path("/proc/self/status").read_text())
        # A daemon may be older than the last capabilities of the kernel, and ask for none of them.
        assert held - NEWER <= capabilities(engine) <= held


def test_control_without_the_small_runtime_there_is_no_privileged_container(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where root has everything, the small runtime is not used, and nothing fails."""
    lacking = oci_runtime.lacking(Path("/proc/self/status").read_text(), int(LAST.read_text()))
    monkeypatch.setattr(oci_runtime, "lacking", lambda *_: [])
    with docker.engine() as engine:
        load(engine, daemon)
        if lacking:
            with pytest.raises(DockerError, match="caps"):
                capabilities(engine)
        else:
            assert capabilities(engine)


def test_a_daemon_that_does_not_start_says_why(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "ADDRESSES", "base=nonsense")
    with pytest.raises(DockerError, match="nonsense"), docker.engine():
        pass
    assert daemon.process() is None
