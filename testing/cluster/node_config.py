"""The files and command lines of a node's components, with the reasons for their options."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from testing.cluster import build
from testing.cluster.audit import policy
from testing.cluster.base import write_kubeconfig
from testing.cluster.node_layout import POD_NETWORK, SERVICE_IP, NodePaths, NodeRecord

NODE_NAME = "node1"
SECOND_NODE = "node2"
PAUSE_IMAGE = "localhost/runkeys-pause:1"
COMPONENTS = (
    "etcd",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)
# RBAC decides who may do what. These are only the names and groups that RBAC knows.
ACCOUNTS = {
    "admin": ("runkeys-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE_NAME}", "system:nodes"),
    "kubelet2": (f"system:node:{SECOND_NODE}", "system:nodes"),
    "kube-proxy": ("system:kube-proxy", ""),
}
# Otherwise two hundred runs at once would wait for the clients' own limits (20 requests a second by default).
BRISK = ("--kube-api-qps=1000", "--kube-api-burst=2000")


def write_config(paths: NodePaths, record: NodeRecord) -> None:
    """Write all files of a node's components: certificates, kubeconfigs, configuration, command lines."""
    for folder in (paths.pki, *(paths / name for name in ("cni", "pod-logs", "volume-plugins", "scratch"))):
        folder.mkdir(parents=True)
    _write_certificates(paths.pki, record.address)
    _write_accounts(paths, record)
    (paths / "resolv.conf").write_text("options ndots:1\n")
    _write_json(paths / "cni" / "10-runkeys.conflist", _cni())
    _write_json(paths / "kubelet.yaml", _kubelet(paths, record))
    _write_json(paths / "kube-proxy.yaml", _kube_proxy(paths))
    _write_json(paths / "audit-policy.yaml", policy(record.options.audit))
    (paths / "containerd.toml").write_text(_containerd(paths))
    environment = {
        "PATH": f"{build.GROUPS['containerd'].bin}:{build.GROUPS['runc'].bin}:{os.environ['PATH']}",
        # Collect garbage less often: such a machine lacks processors, not memory.
        "GOGC": "400",
    }
    commands = {name: {"argv": argv, "env": environment} for name, argv in _commands(paths, record).items()}
    _write_json(paths.commands, commands)


def _write_json(path: Path, content: Any) -> None:
    # YAML is a superset of JSON, and every component reads both.
    path.write_text(json.dumps(content, indent=1))


def _write_certificates(pki: Path, address: str) -> None:
    ca = trustme.CA(organization_name="runkeys test cluster", key_type=trustme.KeyType.ECDSA)
    ca.cert_pem.write_to_path(str(pki / "ca.crt"))
    served = ("kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", NODE_NAME)
    server = ca.issue_cert(*served, SERVICE_IP, address, "127.0.0.1", key_type=trustme.KeyType.ECDSA)
    # The API server shows this to the kubelet, for logs and exec.
    towards_kubelet = ca.issue_cert(
        "localhost",
        common_name="kube-apiserver",
        organization_name="system:masters",
        key_type=trustme.KeyType.ECDSA,
    )
    for name, certificate in (("server", server), ("kubelet-client", towards_kubelet)):
        (pki / f"{name}.crt").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        _write_private(pki / f"{name}.key", certificate.private_key_pem.bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    # The API server also derives the public key from it, and it can do so only from this older form.
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    _write_private(pki / "service-accounts.key", private)


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _write_accounts(paths: NodePaths, record: NodeRecord) -> None:
    at = {"server": record.server, "certificate-authority": str(paths.pki / "ca.crt")}
    lines = []
    for account, (user, group) in ACCOUNTS.items():
        token = secrets.token_hex(24)
        lines.append(f'{token},{user},{user},"{group}"\n')
        write_kubeconfig(paths / f"{account}.kubeconfig", at, {"token": token})
    _write_private(paths / "tokens.csv", "".join(lines).encode())


def _commands(paths: NodePaths, record: NodeRecord) -> dict[str, list[str]]:
    def command(name: str, *flags: str) -> list[str]:
        return [str(build.program(name)), *flags]

    return {
        "etcd": command(
            "etcd",
            f"--data-dir={paths / 'etcd' / 'data'}",
            # Through the socket tests read etcd from outside, and nobody else can.
            f"--listen-client-urls=http://127.0.0.1:2379,unix://{paths.etcd}",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--quota-backend-bytes=8589934592",
            "--unsafe-no-fsync",
        ),
        "containerd": command("containerd", f"--config={paths / 'containerd.toml'}"),
        "kube-apiserver": command(record.options.api_server_program, *_api_server(paths, record)),
        "kube-controller-manager": command("kube-controller-manager", *_controller_manager(paths, record)),
        "kube-scheduler": command(
            "kube-scheduler",
            f"--kubeconfig={paths / 'kube-scheduler.kubeconfig'}",
            "--leader-elect=false",
            "--secure-port=0",
            *BRISK,
        ),
        "kubelet": _kubelet_command(paths, record, NODE_NAME, ""),
        "kube-proxy": command(
            "kube-proxy", f"--config={paths / 'kube-proxy.yaml'}", f"--hostname-override={NODE_NAME}"
        ),
    }


def _kubelet_command(paths: NodePaths, record: NodeRecord, name: str, suffix: str) -> list[str]:
    return [
        str(build.program("kubelet")),
        f"--config={paths / f'kubelet{suffix}.yaml'}",
        f"--kubeconfig={paths / f'kubelet{suffix}.kubeconfig'}",
        f"--hostname-override={name}",
        f"--node-ip={record.address}",
        f"--root-dir={paths / f'kubelet{suffix}'}",
    ]


def write_second_node(paths: NodePaths, record: NodeRecord) -> None:
    """Add the files of a second kubelet and its container runtime. They share the first one's network."""
    kubelet = _kubelet(paths, record) | {
        "port": 10260,
        "containerRuntimeEndpoint": f"unix://{paths / 'containerd2.sock'}",
        # Each kubelet removes the cgroups below its root that it does not know.
        "cgroupRoot": f"/{record.cgroup}/{SECOND_NODE}",
        "podLogsDir": str(paths / "pod-logs" / SECOND_NODE),
    }
    _write_json(paths / "kubelet2.yaml", kubelet)
    (paths / "containerd2.toml").write_text(_containerd(paths, "2"))
    (paths / "pod-logs" / SECOND_NODE).mkdir()
    commands = json.loads(paths.commands.read_text())
    environment = commands["containerd"]["env"]
    for name, argv in (
        ("containerd2", [str(build.program("containerd")), f"--config={paths / 'containerd2.toml'}"]),
        ("kubelet2", _kubelet_command(paths, record, SECOND_NODE, "2")),
    ):
        commands[name] = {"argv": argv, "env": environment}
    _write_json(paths.commands, commands)


def _api_server(paths: NodePaths, record: NodeRecord) -> list[str]:
    pki = paths.pki
    return [
        "--etcd-servers=http://127.0.0.1:2379",
        # Every revision stays, so that a test can look for a value in all of them.
        "--etcd-compaction-interval=0",
        f"--advertise-address={record.address}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={SERVICE_IP}/16".replace(".1/", ".0/"),
        f"--tls-cert-file={pki / 'server.crt'}",
        f"--tls-private-key-file={pki / 'server.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--token-auth-file={paths / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        "--enable-aggregator-routing=true",
        "--allow-privileged=true",
        *([f"--enable-admission-plugins={','.join(p)}"] if (p := record.options.admission_plugins) else []),
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'service-accounts.key'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        f"--audit-policy-file={paths / 'audit-policy.yaml'}",
        f"--audit-log-path={paths.audit}",
        "--audit-log-maxsize=8000",
        *record.options.api_server,
    ]


def _controller_manager(paths: NodePaths, record: NodeRecord) -> list[str]:
    return [
        f"--kubeconfig={paths / 'kube-controller-manager.kubeconfig'}",
        # Each controller has its own user name: policies distinguish the Job controller from the garbage collector.
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={paths.pki / 'service-accounts.key'}",
        f"--root-ca-file={paths.pki / 'ca.crt'}",
        "--leader-elect=false",
        "--secure-port=0",
        "--concurrent-job-syncs=20",
        "--concurrent-namespace-syncs=20",
        # It only warns of types in policies, and takes a third of a second for each installation of Runkeys.
        "--controllers=*,-validatingadmissionpolicy-status-controller",
        *BRISK,
        *record.options.controller_manager,
    ]


def _kubelet(paths: NodePaths, record: NodeRecord) -> dict[str, Any]:
    return {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "authentication": {
            "x509": {"clientCAFile": str(paths.pki / "ca.crt")},
            "anonymous": {"enabled": False},
        },
        "tlsCertFile": str(paths.pki / "server.crt"),
        "tlsPrivateKeyFile": str(paths.pki / "server.key"),
        "address": record.address,
        "healthzPort": 0,
        "containerRuntimeEndpoint": f"unix://{paths.containerd}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{record.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": [],
        "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "maxPods": record.options.max_pods,
        # There is no DNS here. With this a lookup fails at once, and no pod gets a warning event.
        "clusterDNS": ["127.0.0.1"],
        "resolvConf": str(paths / "resolv.conf"),
        "podLogsDir": str(paths / "pod-logs"),
        "volumePluginDir": str(paths / "volume-plugins"),
        "kubeAPIQPS": 500,
        "kubeAPIBurst": 1000,
        "eventRecordQPS": 0,
    }


def _kube_proxy(paths: NodePaths) -> dict[str, Any]:
    return {
        "kind": "KubeProxyConfiguration",
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(paths / "kube-proxy.kubeconfig")},
        "clusterCIDR": POD_NETWORK,
        # These settings belong to the whole machine, not to the node.
        "conntrack": {"maxPerCore": 0, "min": 0},
        "iptables": {"minSyncPeriod": "0s"},
    }


def _cni() -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": "runkeys",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isDefaultGateway": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-ipam",
                    "ranges": [[{"subnet": POD_NETWORK}]],
                },
            },
        ],
    }


def _containerd(paths: NodePaths, suffix: str = "") -> str:
    return f"""
version = 3
root = "{paths / f"containerd{suffix}"}"
state = "/run/containerd{suffix}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.nri.v1.nri",
]
[grpc]
address = "{paths / f"containerd{suffix}.sock"}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
disable_apparmor = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{build.GROUPS["cni"].bin}"]
conf_dir = "{paths / "cni"}"
use_internal_loopback = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"""
