"""The provider ``kind``: a cluster in Docker, through pytest-kind with the pinned kind, kubectl and node image."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pytest_kind import KindCluster as PytestKindCluster

from testing.cluster import build, docker, images, kind_image
from testing.cluster.audit import AuditLog, policy
from testing.cluster.base import Cluster
from testing.cluster.cache import Claim, cache_dir, claims_of
from testing.cluster.etcd import EtcdReader, TlsGatewayReader
from testing.cluster.node_config import BRISK

IMAGE_VARIABLE = "RUNKEYS_KIND_NODE_IMAGE"
FROM_SOURCE = "source"
# The image that the pinned kind was released with. Others may not start.
RELEASED_IMAGE = (
    "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"
)
# Names of clusters that end with a test run begin so.
OF_A_RUN = "t-"
_CGROUP_V2 = Path("/sys/fs/cgroup/cgroup.controllers")
_ETCD_PORT = 2379
_STATIC_PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_LOGS = "/var/log/kubernetes"


def wanted_image() -> str:
    """Return the node image to use: ``source``, or the name of one that Docker has or pulls.

    RUNKEYS_KIND_NODE_IMAGE chooses. Without it, where a Docker engine answers that somebody else started, it is the
    image that kind was released with; with the daemon of our own it is the one from source.
    """
    named = os.environ.get(IMAGE_VARIABLE, "")
    return named or (RELEASED_IMAGE if docker.docker_answers() else FROM_SOURCE)


def groups() -> tuple[str, ...]:
    """Return the groups of programs that this provider needs."""
    return kind_image.GROUPS if wanted_image() == FROM_SOURCE else (*build.CLIENT_GROUPS, "kind")


class KindCluster(Cluster):
    """One node in a Docker container. Single components cannot be stopped; use the provider ``node`` for that."""

    provider = "kind"

    def __init__(self, name: str, engine: docker.Engine) -> None:
        super().__init__(name)
        self.engine = engine

    @classmethod
    def start(cls, name: str) -> KindCluster:
        """Create the cluster, or use the existing one of this name.

        :raises ClusterError: no Docker engine could be had, or no node image.
        :raises CalledProcessError: kind failed.
        """
        build.ensure(groups())
        with docker.engine() as engine:
            image = wanted_image()
            from_source = image == FROM_SOURCE
            cluster = cls(name, engine)
            delete_abandoned(engine)
            (cluster.scratch / "logs").mkdir(parents=True, exist_ok=True)
            cluster.scratch.chmod(0o700)
            (cluster.scratch / "audit-policy.json").write_text(json.dumps(policy()))
            write_patches(cluster.scratch / "patches")
            config = cluster.scratch / "kind.json"
            config.write_text(json.dumps(configuration(cluster.scratch, from_source=from_source)))
            cluster._pytest_kind(kind_image.node_image(engine) if from_source else image).create(config)
            # The daemon of our own stays from here on: a container runs in it.
            cluster.client.wait_for("nodes", cluster.node_name, None, _is_ready, what="Ready")
            cluster.client.wait_for("serviceaccounts", "default", "default", bool)
            cluster.load_image(images.task_image())
        return cluster

    @classmethod
    def attach(cls, name: str) -> KindCluster | None:
        """Return the running cluster of this name; None if there is none."""
        engine = None if build.GROUPS["kind"].missing() else docker.running_engine()
        return cls(name, engine) if engine is not None and name in _names(engine) else None

    @cached_property
    def node_name(self) -> str:
        """The name of the node, which is that of its container."""
        return f"runkeys-{self.name}-control-plane"

    def _pytest_kind(self, image: str | None = None) -> PytestKindCluster:
        return PytestKindCluster(
            f"runkeys-{self.name}",
            kubeconfig=self.kubeconfig,
            image=image,
            kind_path=self._kind_program(),
            kubectl_path=build.program("kubectl"),
        )

    def _kind_program(self) -> Path:
        """Return a program that runs kind with this engine: pytest-kind hands no environment on."""
        if not self.engine.host:
            return build.program("kind")
        command = ["env", f"DOCKER_HOST={self.engine.host}", str(build.program("kind"))]
        program = self.scratch / "kind"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        program.chmod(0o755)
        return program

    @property
    def kubeconfig(self) -> Path:
        return self.scratch / "kubeconfig"

    @property
    def scratch(self) -> Path:
        return cache_dir() / "kind" / self.name

    def environment(self) -> dict[str, str]:
        return super().environment() | ({"DOCKER_HOST": self.engine.host} if self.engine.host else {})

    def load_image(self, archive: Path) -> None:
        kind = build.program("kind")
        self.run(kind, "load", "image-archive", archive, "--name", f"runkeys-{self.name}", timeout=300)

    @cached_property
    def etcd(self) -> EtcdReader:
        """Through a port that Docker publishes, with the certificate of etcd's own server."""
        folder = self.scratch / "etcd-pki"
        if not folder.exists():
            with TemporaryDirectory(dir=self.scratch) as unfinished:
                copy = Path(unfinished) / "etcd"
                self.engine.run("cp", f"{self.node_name}:/etc/kubernetes/pki/etcd", copy)
                # Another process may have done it meanwhile.
                with contextlib.suppress(OSError):
                    copy.rename(folder)
        published = self.engine.run("port", self.node_name, f"{_ETCD_PORT}/tcp")
        return TlsGatewayReader(int(published.split()[0].rpartition(":")[2]), folder)

    @property
    def audit(self) -> AuditLog:
        """The audit log, or a copy of the present one: read the property again for later requests."""
        mounted = self.scratch / "logs" / "audit.jsonl"
        if os.access(mounted, os.R_OK):
            return AuditLog(mounted)
        # Docker runs in another machine, or this process is not root.
        copy = self.scratch / "audit.jsonl"
        self.engine.run("cp", f"{self.node_name}:{_LOGS}/{mounted.name}", copy, timeout=120)
        return AuditLog(copy)

    def stop(self) -> None:
        # As its user, so that a daemon of our own ends if this was its last container.
        with docker.engine():
            self._pytest_kind().delete()
        shutil.rmtree(self.scratch, ignore_errors=True)


def _names(engine: docker.Engine) -> list[str]:
    """Return the names of the clusters that are ours."""
    command = [str(build.program("kind")), "get", "clusters"]
    listed = subprocess.run(
        command, env=engine.environment(), capture_output=True, text=True, check=True, timeout=60
    )
    return [name.removeprefix("runkeys-") for name in listed.stdout.split() if name.startswith("runkeys-")]


def delete_abandoned(engine: docker.Engine) -> None:
    """Delete the clusters of test runs that were killed before they could do so themselves."""
    for name in _names(engine):
        if name.startswith(OF_A_RUN) and (claims := claims_of(name)).exists():
            claim = Claim(claims)
            try:
                if claim.is_last():
                    KindCluster(name, engine).stop()
            finally:
                claim.release()


def configuration(scratch: Path, *, from_source: bool) -> dict[str, Any]:
    """Return kind's configuration, which adds what the provider ``node`` has: audit log, all revisions of etcd.

    :param scratch: the folder with the audit policy.
    :param from_source: the node image is ours, which has no pod network but its own.
    """
    mount = {"name": "audit", "hostPath": "/etc/runkeys", "mountPath": "/etc/runkeys", "readOnly": True}
    logs = {"name": "logs", "hostPath": _LOGS, "mountPath": _LOGS, "pathType": "DirectoryOrCreate"}
    api_server = {
        "audit-policy-file": "/etc/runkeys/audit-policy.json",
        "audit-log-path": f"{_LOGS}/audit.jsonl",
        "audit-log-maxsize": "8000",
        "etcd-compaction-interval": "0",
        "enable-admission-plugins": "NodeRestriction,OwnerReferencesPermissionEnforcement",
    }
    # On a busy machine a lease is lost by load alone.
    brisk = {"leader-elect": "false"} | dict(flag.removeprefix("--").split("=", 1) for flag in BRISK)
    controllers = brisk | {"node-cidr-mask-size": kind_image.POD_NETWORK.rpartition("/")[2]}
    etcd = {"quota-backend-bytes": "8589934592", "unsafe-no-fsync": "true"}
    cluster = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "apiServer": {
            "extraArgs": _arguments(api_server),
            "extraVolumes": [mount, logs],
        },
        "controllerManager": {"extraArgs": _arguments(controllers)},
        "etcd": {"local": {"extraArgs": _arguments(etcd)}},
        "scheduler": {"extraArgs": _arguments(brisk)},
    }
    # The files of `write_patches`.
    init = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "patches": {"directory": "/etc/runkeys/patches"},
    }
    kubelet: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "maxPods": 500,
        "serializeImagePulls": False,
        "kubeAPIQPS": 500,
        "kubeAPIBurst": 1000,
        "eventRecordQPS": 0,
    }
    if from_source:
        # The machine may have version 1 of cgroups, and a root that may not lower its score for the memory killer.
        kubelet |= {"failCgroupV1": False, "oomScoreAdj": 0}
    # By way of systemd, runc freezes a container before it changes its cgroup. In version 1 that can fail on a busy
    # machine (`unable to freeze`), and the container with it.
    directly = from_source and not _CGROUP_V2.exists()
    if directly:
        kubelet |= {"cgroupDriver": "cgroupfs"}
    node = {
        "role": "control-plane",
        "extraMounts": [
            {"hostPath": str(scratch), "containerPath": "/etc/runkeys", "readOnly": True},
            {"hostPath": str(scratch / "logs"), "containerPath": _LOGS},
        ],
        "extraPortMappings": [{"containerPort": _ETCD_PORT, "listenAddress": "127.0.0.1"}],
        "kubeadmConfigPatches": [json.dumps(patch) for patch in (cluster, init, kubelet)],
    }
    config = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": [node]}
    if directly:
        options = 'plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options'
        config["containerdConfigPatches"] = [f"[{options}]\n  SystemdCgroup = false\n"]
    return config | ({"networking": {"disableDefaultCNI": True}} if from_source else {})


def write_patches(folder: Path) -> None:
    """Write kubeadm's patches: on a busy machine the kubelet would restart the control plane by load alone."""
    folder.mkdir(exist_ok=True)
    patient = {probe: {"failureThreshold": 1000} for probe in ("livenessProbe", "startupProbe")}
    for name in _STATIC_PODS:
        container = {"name": name, **patient}
        (folder / f"{name}.json").write_text(json.dumps({"spec": {"containers": [container]}}))


def _arguments(flags: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in flags.items()]


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
