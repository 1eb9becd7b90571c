"""kind's node image from source, where none can be pulled.

It is made as kind makes its own: a Debian with systemd, the files of kind's base image, Kubernetes' programs, and the
control plane's images in containerd's store. kind's files are read from its Go module while the image is built. The
programs are those of the provider ``node``, with kubeadm, crictl and CoreDNS; each image holds one of them.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testing.cluster import build, images
from testing.cluster.base import ClusterError
from testing.cluster.build import COMPONENTS, program
from testing.cluster.cache import cache_dir, content_key, file_lock
from testing.cluster.docker import DockerError, Engine
from testing.cluster.golang import build_module, module_folder
from testing.cluster.node_init import SYSCTLS
from testing.cluster.rootfs import root_file_system

GROUPS = (*build.NODE_GROUPS, "kind", "kubeadm", "crictl")
REPOSITORY = "localhost/runkeys-kind-node"
COREDNS = Path(__file__).parent / "coredns_go"
# What kind's base image has, without what only other container runtimes and storage need.
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "bash", "procps", "hostname"),
    *("iproute2", "iptables", "nftables", "conntrack", "ethtool", "kmod", "mount", "util-linux", "socat"),
    *("ca-certificates", "libseccomp2", "jq", "nfs-common", "e2fsprogs"),
)
PROXY_PACKAGES = ("iptables", "conntrack", "nftables", "kmod")
# From the program to its folder in the node.
PROGRAMS = {
    "kubelet": "usr/bin",
    "kubectl": "usr/bin",
    "kubeadm": "usr/bin",
    "containerd": "usr/local/bin",
    "containerd-shim-runc-v2": "usr/local/bin",
    "ctr": "usr/local/bin",
    "crictl": "usr/local/bin",
    "runc": "usr/local/sbin",
    "bridge": "opt/cni/bin",
    "host-local": "opt/cni/bin",
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The pods of the one node: the first part of kind's pod network, as large as what the controller manager gives a node.
POD_NETWORK = "10.244.0.0/20"


def node_image(engine: Engine) -> str:
    """Return the tag of the node image in this engine. If it is missing, build it: some minutes after the programs.

    :raises ClusterError: it could not be built.
    """
    build.ensure(GROUPS)
    tag = f"{REPOSITORY}:{_key()}"
    with file_lock(cache_dir() / "kind-image" / ".lock"):
        if not engine.run("image", "ls", "--quiet", tag).strip():
            _build(engine, tag)
    return tag


def _key() -> str:
    """Return a hash of everything that the image is made from."""
    made_from = (*(str(build.GROUPS[group].bin) for group in GROUPS), *PACKAGES, *PROXY_PACKAGES)
    files = (
        Path(__file__),
        Path(images.__file__),
        COMPONENTS / "kind" / "go.sum",
        *sorted(COREDNS.iterdir()),
    )
    return content_key(*made_from, *files)


def _build(engine: Engine, tag: str) -> None:
    with tempfile.TemporaryDirectory(dir=cache_dir() / "kind-image") as folder:
        context = Path(folder)
        lay_out(context, module_folder(COMPONENTS / "kind", "sigs.k8s.io/kind") / "images" / "base" / "files")
        # Nothing in it needs a network, and the daemon of our own has none to give.
        engine.run("build", "--network=none", f"--tag={tag}", str(context), timeout=1800)
    others = engine.run("image", "ls", "--format={{.Repository}}:{{.Tag}}", REPOSITORY).split()
    for other in others:
        if other != tag:
            # One that runs stays.
            with contextlib.suppress(DockerError):
                engine.run("image", "rm", other)


def lay_out(context: Path, base: Path) -> None:
    """Write the folder that the image is built from.

    :param base: the files of kind's base image, as its repository has them.
    """
    (context / "Dockerfile").write_text(DOCKERFILE)
    _take(root_file_system("kind-node", PACKAGES), context / "root.tar")
    copy_base(base, context / "base")
    for name, folder in PROGRAMS.items():
        _take(program(name), context / "programs" / folder / name)
    for archive, name in control_plane_images(sandbox_image(base)):
        _take(archive, context / "images" / f"{name}.tar")
    write_additions(context / "additions")


def copy_base(base: Path, target: Path) -> None:
    """Copy kind's files with the modes that its image gives them: what is run, and what is read."""
    for path in sorted(base.rglob("*")):
        if path.is_file():
            inside = path.relative_to(base)
            to = target / inside
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
            to.chmod(0o755 if "bin" in inside.parent.parts else 0o644)


def sandbox_image(base: Path) -> str:
    """Return the name of the image that keeps a pod's namespaces open, from kind's configuration of containerd."""
    for line in (base / "etc/containerd/config.toml").read_text().splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "sandbox_image":
            return value.strip().strip('"')
    raise ClusterError("kind's configuration of containerd names no sandbox image")


def control_plane_images(sandbox: str) -> Iterator[tuple[Path, str]]:
    """Yield the archives of all images of a control plane, under the names that kubeadm expects, and a file name."""
    command = [
        str(program("kubeadm")),
        "config",
        "images",
        "list",
        f"--kubernetes-version={build.KUBERNETES}",
    ]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    for image in listed:
        name = image.rpartition(":")[0].rpartition("/")[2]
        if name != "pause":
            yield _program_image(image, name), name
    yield images.pause_image(sandbox), "pause"


def _program_image(tag: str, name: str) -> Path:
    """Return the archive of an image with one program of the control plane, and what that needs beside it."""
    programs = {"etcd": ("etcd", "etcdctl")}.get(name, (name,))
    files = [build_module(COREDNS) if name == "coredns" else program(name) for name in programs]
    below = []
    if name == "kube-proxy":
        below.append(root_file_system("kind-proxy", PROXY_PACKAGES, variant="extract"))

    def fill(root: Path) -> None:
        folder = root / "usr/local/bin"
        folder.mkdir(parents=True)
        for called, file in zip(programs, files, strict=True):
            shutil.copy(file, folder / called)
        if name == "kube-proxy":
            _link_iptables(root / "usr/sbin")

    image = images.Image(tag, entrypoint=(f"/usr/local/bin/{name}",), environment={"PATH": PATH})
    return images.filled_image(image, f"kind-{name}", [Path(__file__), *map(str, files)], fill, below)


def _link_iptables(folder: Path) -> None:
    """Make the links that the scripts of Debian's package would make."""
    folder.mkdir(parents=True)
    for family in ("iptables", "ip6tables"):
        for tool in ("", "-save", "-restore"):
            (folder / f"{family}{tool}").symlink_to("xtables-nft-multi")


def write_additions(target: Path) -> None:
    """Write the files that are ours: the pod network, settings, and the script that puts all in place."""
    contents = {
        "etc/cni/net.d/10-bridge.conflist": json.dumps(_network(), indent=1),
        "etc/systemd/system/shield-sysctls.service": SHIELD,
        "etc/systemd/journald.conf.d/10-no-kernel-log.conf": "[Journal]\nReadKMsg=no\n",
        "kind/manifests/default-storage.yaml": json.dumps(STORAGE_CLASS),
        "kind/version": build.KUBERNETES,
        "kind/bin/put-in-place.sh": PUT_IN_PLACE,
        **{f"kind/sysctls/{name}": f"{value}\n" for name, value in SYSCTLS.items()},
    }
    for name, text in contents.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if path.suffix == ".sh" else 0o644)


def _network() -> dict[str, Any]:
    ranges = [[{"subnet": POD_NETWORK}]]
    ipam = {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": ranges}
    bridge = {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": "runkeys", "plugins": [bridge]}


def _take(file: Path, target: Path) -> None:
    """Link a file of the cache into the build's folder, or copy it if that is on another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(file)
    except OSError:
        shutil.copy(file, target)


# Nothing provisions volumes: no test asks for one.
STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kubernetes.io/no-provisioner",
    "volumeBindingMode": "WaitForFirstConsumer",
}

DOCKERFILE = """\
FROM scratch
ADD root.tar /
COPY base/ /
COPY programs/ /
COPY additions/ /
COPY images/ /kind/images/
RUN ["/bin/bash", "/kind/bin/put-in-place.sh"]
# systemd looks for this, and ends at this signal.
ENV container=docker
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
"""

SHIELD = """\
[Unit]
Description=The kubelet's settings for the kernel, for this node alone
DefaultDependencies=no
Before=kubelet.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/bash -euc 'cd /kind/sysctls && for name in */* */*/*; do \\
    [ ! -f "$name" ] || [ ! -e "/proc/sys/$name" ] || mount --bind "/kind/sysctls/$name" "/proc/sys/$name"; done'

[Install]
WantedBy=multi-user.target
"""

PUT_IN_PLACE = """\
#!/bin/bash
# Runs once, while the image is built.
set -euo pipefail

# systemd starts what belongs to a node, and nothing that belongs to a machine.
units=/usr/lib/systemd/system
rm -f "$units"/{multi-user,local-fs,basic}.target.wants/* "$units"/sockets.target.wants/*{udev,initctl}*
rm -f "$units"/sysinit.target.wants/systemd-tmpfiles-setup.service /etc/systemd/system/*.wants/*
systemctl mask systemd-binfmt.service
systemctl enable containerd.service kubelet.service shield-sysctls.service undo-mount-hacks.service
# Debian's settings for the kernel are for a machine; kind's own are for the node's network.
rm -f /usr/lib/sysctl.d/*
mkdir -p /etc/kubernetes/manifests

# Every container of the node gets kind's hook, and none a limit that root may not raise.
ctr oci spec | jq '
    .hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)
' > /etc/containerd/cri-base.json
config=/etc/containerd/config.toml
# Not every root may lower a process's score for the memory killer.
sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' "$config"
grep -q 'restrict_oom_score_adj = true' "$config"
printf '\\n[plugins."io.containerd.grpc.v1.cri".cni]\\n  use_internal_loopback = true\\n' >> "$config"

# The control plane's images go into containerd's store.
containerd > /tmp/containerd.log 2>&1 &
containerd=$!
for _ in $(seq 300); do
    ctr version > /dev/null 2>&1 && break
    kill -0 $containerd || { tail -n 20 /tmp/containerd.log; exit 1; }
    sleep 0.1
done
for archive in /kind/images/*.tar; do
    ctr --namespace k8s.io images import --no-unpack --all-platforms \\
        --label io.cri-containerd.pinned=pinned "$archive"
done
kill $containerd
wait $containerd || true
rm -rf /tmp/containerd.log /run/containerd
"""
