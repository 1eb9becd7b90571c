"""The provider ``kind``: a cluster in Docker, through pytest-kind with the pinned kind, kubectl and node image."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_kind import KindCluster as PytestKindCluster

from testing.cluster import build, images
from testing.cluster.audit import AuditLog, policy
from testing.cluster.base import Cluster
from testing.cluster.cache import cache_dir
from testing.cluster.docker import docker_answers
from testing.cluster.etcd import EtcdReader

# The image that the pinned kind was released with. Others may not start.
NODE_IMAGE = "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"
GROUPS = (*build.CLIENT_GROUPS, "kind")
_AUDIT = "/var/log/kubernetes/audit.jsonl"


class KindCluster(Cluster):
    """One node in a Docker container. Single components cannot be stopped; use the provider ``node`` for that."""

    provider = "kind"

    @classmethod
    def start(cls, name: str) -> KindCluster:
        """Create the cluster, or use the existing one of this name.

        :raises CalledProcessError: kind failed.
        """
        build.ensure(GROUPS)
        cluster = cls(name)
        cluster.scratch.mkdir(parents=True, exist_ok=True)
        cluster.scratch.chmod(0o700)
        (cluster.scratch / "audit-policy.json").write_text(json.dumps(policy()))
        config = cluster.scratch / "kind.json"
        config.write_text(json.dumps(cluster._config()))
        cluster._kind.create(config)
        cluster.load_image(images.task_image())
        return cluster

    @classmethod
    def attach(cls, name: str) -> KindCluster | None:
        """Return the running cluster of this name; None if there is none."""
        if build.GROUPS["kind"].missing() or not docker_answers():
            return None
        listed = subprocess.run(
            [build.program("kind"), "get", "clusters"], capture_output=True, text=True, check=True, timeout=60
        )
        return cls(name) if f"runkeys-{name}" in listed.stdout.split() else None

    @cached_property
    def _kind(self) -> PytestKindCluster:
        return PytestKindCluster(
            f"runkeys-{self.name}",
            kubeconfig=self.kubeconfig,
            image=NODE_IMAGE,
            kind_path=build.program("kind"),
            kubectl_path=build.program("kubectl"),
        )

    def _config(self) -> dict[str, Any]:
        """Return kind's configuration, which adds what the provider ``node`` has: audit log, all revisions of etcd."""
        mount = {"name": "audit", "hostPath": "/etc/runkeys", "mountPath": "/etc/runkeys", "readOnly": True}
        logs = {"name": "logs", "hostPath": "/var/log/kubernetes", "mountPath": "/var/log/kubernetes"}
        arguments = {
            "audit-policy-file": "/etc/runkeys/audit-policy.json",
            "audit-log-path": _AUDIT,
            "etcd-compaction-interval": "0",
            "enable-admission-plugins": "NodeRestriction,OwnerReferencesPermissionEnforcement",
        }
        patch = {
            "kind": "ClusterConfiguration",
            "apiServer": {
                "extraArgs": [{"name": key, "value": value} for key, value in arguments.items()],
                "extraVolumes": [mount, {**logs, "pathType": "DirectoryOrCreate"}],
            },
        }
        node = {
            "role": "control-plane",
            "extraMounts": [
                {"hostPath": str(self.scratch), "containerPath": "/etc/runkeys", "readOnly": True}
            ],
            "kubeadmConfigPatches": [
                json.dumps({"apiVersion": "kubeadm.k8s.io/v1beta4", **patch}),
                json.dumps(
                    {
                        "apiVersion": "kubelet.config.k8s.io/v1beta1",
                        "kind": "KubeletConfiguration",
                        "maxPods": 250,
                    }
                ),
            ],
        }
        return {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": [node]}

    @property
    def kubeconfig(self) -> Path:
        return self.scratch / "kubeconfig"

    @property
    def scratch(self) -> Path:
        return cache_dir() / "kind" / self.name

    def load_image(self, archive: Path) -> None:
        kind = build.program("kind")
        self.run(kind, "load", "image-archive", archive, "--name", f"runkeys-{self.name}", timeout=300)

    @cached_property
    def etcd(self) -> EtcdReader:
        return _PodReader(self)

    @property
    def audit(self) -> AuditLog:
        """A copy of the present audit log. Read the property again for later requests."""
        copy = self.scratch / "audit.jsonl"
        self.run("docker", "cp", "--quiet", f"runkeys-{self.name}-control-plane:{_AUDIT}", copy, timeout=120)
        return AuditLog(copy)

    def stop(self) -> None:
        self._kind.delete()
        shutil.rmtree(self.scratch, ignore_errors=True)


class _PodReader(EtcdReader):
    """Reads through the etcdctl in the etcd pod, whose JSON has the gateway's form."""

    def __init__(self, cluster: KindCluster) -> None:
        self._cluster = cluster
        pki = "/etc/kubernetes/pki/etcd"
        pod = f"etcd-runkeys-{cluster.name}-control-plane"
        self._exec = (
            *("exec", "--namespace=kube-system", pod, "--", "etcdctl", "--write-out=json"),
            *(f"--cacert={pki}/ca.crt", f"--cert={pki}/server.crt", f"--key={pki}/server.key"),
        )

    def _range(self, start: bytes, end: bytes, keys_only: bool, revision: int) -> dict[str, Any]:
        flags = [*(["--keys-only"] if keys_only else []), *([f"--rev={revision}"] if revision else [])]
        printed = self._cluster.kubectl(*self._exec, "get", start.decode(), end.decode(), *flags, timeout=120)
        answer: dict[str, Any] = json.loads(printed)
        return answer

    def _history(self, since: int) -> Iterator[dict[str, Any]]:
        command: list[str | Path] = [
            build.program("kubectl"),
            *self._exec,
            "watch",
            f"--rev={since}",
            "--prefix",
            "",
        ]
        environment = self._cluster.environment()
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as watching:
            assert watching.stdout is not None
            try:
                for line in watching.stdout:
                    answer = json.loads(line)
                    yield {**answer, "events": answer.get("Events", answer.get("events", ()))}
            finally:
                watching.kill()
