"""The files, addresses and options of a node."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from testing.cluster.base import ClusterError
from testing.cluster.cache import cache_dir

# A network for documentation (RFC 5737): nothing outside this machine is reachable by these addresses.
NETWORK = "198.51.100"
SLOTS = 64
SERVICE_IP = "10.96.0.1"
# Paths inside a node are its own, so every node can use the same pod network.
POD_NETWORK = "10.88.0.0/22"
# A longer path does not fit into a Unix socket's address.
_SOCKET_PATH_LIMIT = 104


@dataclass(frozen=True)
class NodeOptions:
    """Options of a node. The defaults are those of the shared one."""

    audit: str = "default"
    """``default``: whole bodies for runkeys.dev and batch, metadata for the rest. ``RequestResponse``: whole bodies for
    everything. Else the path of a policy in YAML."""
    admission_plugins: tuple[str, ...] = ("NodeRestriction", "OwnerReferencesPermissionEnforcement")
    """Admission plugins on top of the API server's default ones."""
    api_server: tuple[str, ...] = ()
    controller_manager: tuple[str, ...] = ()
    """Further flags of both, such as ``--feature-gates=X=true``. A repeated flag overrides ours."""
    max_pods: int = 500
    api_server_program: str = "kube-apiserver"
    """File name of the built program, for example of another version."""
    api_server_only: bool = False
    """Run only etcd and the API server: no controllers, no kubelet, no pods."""

    @classmethod
    def load(cls, data: dict[str, object]) -> NodeOptions:
        """Read the options back. Unknown options, from the nodes of another checkout, are left out."""
        known = {field.name for field in fields(cls)}
        data = {key: value for key, value in data.items() if key in known}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})  # type: ignore[arg-type]


@dataclass(frozen=True)
class NodePaths:
    """The files of one node, all in one state folder."""

    state: Path

    @classmethod
    def of(cls, name: str) -> NodePaths:
        """Return the paths of a node.

        :raises ClusterError: the name cannot be used, or the path of the cache folder is too long.
        """
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?", name):
            raise ClusterError(f"{name!r} cannot name a node: use up to 24 small letters, digits and dashes.")
        state = cache_dir() / "nodes" / name
        if len(str(state / "containerd.sock.ttrpc")) > _SOCKET_PATH_LIMIT:
            raise ClusterError(
                f"{state} is too long a path for sockets: set RUNKEYS_CACHE to a shorter folder."
            )
        return cls(state)

    def __truediv__(self, part: str) -> Path:
        return self.state / part

    @property
    def record(self) -> Path:
        return self.state / "node.json"

    @property
    def control(self) -> Path:
        return self.state / "control.sock"

    @property
    def etcd(self) -> Path:
        return self.state / "etcd.sock"

    @property
    def containerd(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def audit(self) -> Path:
        return self.state / "audit.jsonl"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "admin.kubeconfig"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def commands(self) -> Path:
        return self.state / "commands.json"


@dataclass(frozen=True)
class NodeRecord:
    """The record of a running node, by which any process can find, use and end it."""

    name: str
    slot: int
    pid: int
    """The node's first process, as seen from outside."""
    born: int
    """That process's start time in clock ticks since boot, since a process number may be used again."""
    launcher: int
    options: NodeOptions

    @property
    def link(self) -> str:
        return link_name(self.slot)

    @property
    def cgroup(self) -> str:
        return f"runkeys-{self.name}-{self.pid}"

    @property
    def mark(self) -> str:
        """The alias of the link, to distinguish an ended node's link from that of the next node in its slot."""
        return f"runkeys test node {self.name} {self.pid} {self.born}"

    @property
    def outside(self) -> str:
        return f"{NETWORK}.{4 * self.slot + 1}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{4 * self.slot + 2}"

    @property
    def server(self) -> str:
        return f"https://{self.address}:6443"

    def alive(self) -> bool:
        return process_birth(self.pid) == self.born

    def save(self, path: Path) -> None:
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(asdict(self)))
        unfinished.rename(path)

    @classmethod
    def load(cls, path: Path) -> NodeRecord | None:
        """Read the record back; None if there is no such node."""
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        return cls(**(data | {"options": NodeOptions.load(data["options"])}))


def link_name(slot: int) -> str:
    return f"rkn{slot}"


def process_birth(pid: int) -> int | None:
    """Return a process's start time in clock ticks since boot; None if it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
