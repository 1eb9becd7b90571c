"""One node with everything on record, on which the load is played and searched for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testing.cluster import images
from testing.cluster.base import free_port
from testing.cluster.node import NodeCluster
from testing.cluster.node_config import NODE_NAME
from testing.cluster.node_layout import NodeOptions
from testing.cluster.proxy import ApiProxy
from testing.namespace import Team, make_namespace, team_in
from testing.operators import Operator, install_crds
from testing.people import public_key
from testing.stores.leases import LeaseTeam, furnish_leases
from testing.stores.openbao import running
from testing.stores.postgres import postgres
from testing.stores.teams import prepare
from tests.e2e.pods.conftest import ARGUMENTS, SETS, wait_asking
from tests.e2e.stores.conftest import SEALED_ARGUMENTS as LEASED_ARGUMENTS
from tests.e2e.stores.conftest import SEALED_SETS as LEASED_SETS

from .allowed import ALLOWED, Allowance
from .canaries import Mint
from .load import Entry, Scene, Stage, play_all
from .places import (
    Audit,
    CommandLines,
    Endpoints,
    EtcdFiles,
    EtcdKeys,
    Files,
    Log,
    Source,
    Texts,
    fetched,
    inside,
)
from .planting import Planting, served
from .scan import Report, scan

EVERYTHING = NodeOptions(audit="RequestResponse", api_server=("--v=4",), controller_manager=("--v=4",))
COMPONENTS = NodeCluster.components
OPERATOR = ("/healthz", "/readyz", "/metrics", "/")
API_SERVER = (
    "/metrics",
    *(f"/api/v1/nodes/{NODE_NAME}/proxy/{path}" for path in ("metrics", "metrics/cadvisor")),
)


@dataclass
class World:
    """Operators for the load, and all places in which a value of it may have been kept."""

    node: NodeCluster
    folder: Path
    planting: Planting
    planted_url: str
    mint: Mint
    ends: ExitStack
    told: list[tuple[str, str]] = field(default_factory=list, repr=False)
    operators: dict[int, Operator] = field(default_factory=dict)
    """By the port of their health endpoint."""

    def play(self, chosen: Sequence[Entry]) -> Callable[[], None]:
        """Plant, and play these entries; what is returned plays the part of them that comes after the search."""
        self.planting.begin()
        go_on = play_all([pair for stage in Stage for pair in self._scenes(stage, chosen)])
        self.planting.end()
        return go_on

    def _scenes(self, stage: Stage, chosen: Sequence[Entry]) -> Iterator[tuple[Entry, Scene]]:
        """The entries of a stage, with an operator for them."""
        here = [entry for entry in chosen if entry.stage is stage]
        if not here:
            return
        calm = stage is Stage.CALM
        troubled = stage in (Stage.FAULTY, Stage.KILLED)
        proxy = self.ends.enter_context(ApiProxy(self.node)) if troubled else None
        others = (make_namespace(self.node.client, "doomed"),) if calm else ()
        team = self._team(stage, tuple(entry.name for entry in here), proxy, others)
        for entry in here:
            yield entry, Scene(entry.name, team, self.node, self.mint, proxy, others, self.told)

    def _team(
        self, stage: Stage, names: tuple[str, ...], proxy: ApiProxy | None, others: tuple[str, ...]
    ) -> Team:
        port, style = free_port(), "text" if proxy is None else "json"
        arguments: tuple[str, ...] = ("--health-port", str(port), "--log-format", style)
        sets: tuple[str, ...] = ()
        tokens = self.folder / f"tokens-{port}"
        if stage in (Stage.SEALED, Stage.LEASED):
            self.node.load_image(images.operator_image())
        if stage is Stage.SEALED:
            arguments, sets = (*arguments, *ARGUMENTS), SETS
        elif stage is Stage.LEASED:
            arguments, sets = (*arguments, *LEASED_ARGUMENTS, "--store-tokens", str(tokens)), LEASED_SETS
        scope = team_in(
            self.node,
            make_namespace(self.node.client, f"load-{stage}"),
            self.folder,
            *arguments,
            server=None if proxy is None else proxy.url,
            sources=names,
            others=others,
            sets=sets,
        )
        team = self.ends.enter_context(scope)
        if stage is Stage.LEASED:
            team = self._with_leases(team, tokens)
        self.operators[port] = team.operator
        team.operator.start()
        public_key(team)
        if stage is Stage.SEALED:
            wait_asking(team)
        return team

    def _with_leases(self, team: Team, tokens: Path) -> LeaseTeam:
        bao = self.ends.enter_context(running(self.folder / "bao"))
        prepare(bao, self.node.client)
        return furnish_leases(team, bao, self.ends.enter_context(postgres()), tokens)

    def search(self, allowed: Sequence[Allowance] = ALLOWED) -> Report:
        """Search all of it for everything."""
        logs = [self.node.log_file(name) for name in COMPONENTS]
        for path in (*logs, *(operator.log for operator in self.operators.values())):
            with path.open("a") as log:
                log.write(f"{self.planting.text}\n")
        return scan(self._sources(), self.mint, self.planting.canaries, allowed)

    def _sources(self) -> Iterator[Source]:
        node = self.node
        yield EtcdKeys(node.etcd)
        yield EtcdFiles(node)
        for name in COMPONENTS:
            yield Log(name, node.log_file(name))
        yield Files("logs of containers", (node.paths / "pod-logs",))
        yield Files("log of the operator", tuple(operator.log for operator in self.operators.values()))
        yield Audit(node.paths.audit)
        answers = {"planted": fetched(self.planted_url)}
        for port in self.operators:
            assert b"runkeys_" in fetched(f"http://127.0.0.1:{port}/metrics")(), "there is nothing to search"
        for port in self.operators:
            answers |= {f"operator {path}": fetched(f"http://127.0.0.1:{port}{path}") for path in OPERATOR}
        answers |= {path: self._asked(path) for path in API_SERVER}
        yield Endpoints(answers)
        yield Texts([*self.told, *self.planting.told])
        yield CommandLines(node)
        containerd = (inside(node, node.paths / "containerd"), inside(node, Path("/run/containerd")))
        yield Files("containerd's files", containerd, skipped=("rootfs",))
        yield Files("kubelet's files", (inside(node, node.paths / "kubelet"),))

    def _asked(self, path: str) -> Callable[[], bytes]:
        return lambda: str(self.node.client.request("GET", path)).encode()


@contextmanager
def world(node: NodeCluster, folder: Path) -> Iterator[World]:
    """A fresh node's world; operators and proxies end with it."""
    install_crds(node)
    with ExitStack() as ends:
        mint = Mint()
        planting = Planting(node, make_namespace(node.client, "planted"), mint)
        url = ends.enter_context(served(lambda: planting.text))
        yield World(node, folder, planting, url, mint, ends)
