"""Fixtures: a team whose values are in a real OpenBao."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import KubeClient, Object
from testing.namespace import Team, binding
from testing.operators import RELEASE
from testing.people import give
from testing.stores.openbao import AUDIENCE, BaoError, OpenBao, running, store
from tests.e2e.delivery.conftest import IMAGE, opener
from tests.e2e.pods import conftest as pods
from tests.e2e.pods.conftest import unsealer
from tests.e2e.runs.conftest import TeamMaker, new_team

__all__ = ["new_team", "opener", "unsealer"]

ACCOUNT = "runner"
SETS = ("stores.enabled=true", f"stores.audiences={{{AUDIENCE}}}")
ARGUMENTS = ("--store-audience", AUDIENCE)
SEALED_SETS = (*SETS, "sealedDelivery.enabled=true")
PODS_SETS = tuple(item for item in pods.SETS if not item.startswith("sealedDelivery"))
SEALED_ARGUMENTS = (*ARGUMENTS, *IMAGE)


@pytest.fixture(scope="session")
def shared_bao(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A server for all tests that let it run."""
    with running(tmp_path_factory.mktemp("bao")) as bao:
        prepare(bao, cluster.client)
        yield bao


@pytest.fixture
def own_bao(cluster: Cluster, tmp_path: Path) -> Iterator[OpenBao]:
    """A server for one test alone, which may seal and stop it."""
    with running(tmp_path / "bao") as bao:
        prepare(bao, cluster.client)
        yield bao


def prepare(bao: OpenBao, client: KubeClient) -> None:
    """Have it trust the cluster, with a KV engine of each version."""
    bao.trust(client)
    bao.engine("kv", "kv", options={"version": "2"})
    bao.engine("old", "kv", options={"version": "1"})
    wait_until("the engine kv to be upgraded", lambda: _writes(bao))


def _writes(bao: OpenBao) -> bool:
    try:
        bao.call("POST", "kv/data/probe", {"data": {"a": "b"}})
    except BaoError:
        return False
    return True


class StoreTeam(Team):
    """A team with a SecretStore of its own, named as its namespace."""

    bao: OpenBao

    @property
    def path(self) -> str:
        """Where its value is, under ``token``."""
        return f"kv/data/{self.namespace}/api"

    def entry(self, name: str = "token", **changed: Any) -> Object:
        """An entry of a binding that is its value, changed by fields of ``value``."""
        value = {"store": self.namespace, "role": self.namespace, "path": self.path, "field": "token"}
        return {"name": name, "value": {**value, **changed}}

    def make_store_run(self, name: str = "job", **changed: Any) -> Object:
        """A run as the account that the namespace opens to stores."""
        return self.make_run(name, serviceAccountName=ACCOUNT, **changed)


def furnish(team: Team, bao: OpenBao, **changed: Any) -> StoreTeam:
    """Put the value into the store, and make store, role, account and the right to tokens of it.

    :param changed: see :func:`testing.stores.openbao.store`.
    """
    found = StoreTeam(team.cluster, team.namespace, team.operator, team.value)
    found.bao = bao
    bao.call("POST", found.path, {"data": {"token": found.value, "count": 3}})
    bao.policy(found.namespace, f"kv/data/{found.namespace}/*", f"old/{found.namespace}/*")
    bao.role(found.namespace, found.namespace)
    found.client.create(store(bao, found.namespace, **changed))
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    found.client.create({**account, "metadata": {"name": ACCOUNT, "namespace": found.namespace}})
    open_tokens(found)
    return found


def open_tokens(team: Team, *accounts: str, operator: str = "") -> None:
    """Let the operator request tokens of accounts, as examples/store-role.yaml does.

    :param operator: its namespace; empty: that of the team.
    """
    rule = {
        "apiGroups": [""],
        "resources": ["serviceaccounts/token"],
        "resourceNames": list(accounts or (ACCOUNT,)),
        "verbs": ["create"],
    }
    give(team, "runkeys-stores", f"system:serviceaccount:{operator or team.namespace}:{RELEASE}", [rule])


@pytest.fixture
def store_team(
    new_team: TeamMaker, shared_bao: OpenBao, cluster: Cluster
) -> Iterator[Callable[..., StoreTeam]]:
    """Make teams whose value is in a store."""
    made: list[str] = []

    def make(bao: OpenBao = shared_bao, **changed: Any) -> StoreTeam:
        team = furnish(new_team(*ARGUMENTS, sets=SETS, sources=()), bao, **changed)
        made.append(team.namespace)
        return team

    yield make
    _delete(cluster, made)


@pytest.fixture
def sealed_store_team(
    new_team: TeamMaker,
    shared_bao: OpenBao,
    cluster: Cluster,
    opener: None,  # noqa: ARG001
) -> Iterator[Callable[..., StoreTeam]]:
    """The same, delivered sealed. Further arguments and values of the chart come after those."""
    made: list[str] = []

    def make(*arguments: str, sets: tuple[str, ...] = ()) -> StoreTeam:
        team = new_team(*SEALED_ARGUMENTS, *arguments, sets=(*SEALED_SETS, *sets), sources=())
        made.append(team.namespace)
        return furnish(team, shared_bao)

    yield make
    _delete(cluster, made)


def _delete(cluster: Cluster, names: list[str]) -> None:
    for name in names:
        cluster.client.delete("secretstores", name, missing_ok=True)


@pytest.fixture
def team(store_team: Callable[..., StoreTeam]) -> StoreTeam:
    """Such a team, with the operator running."""
    return store_team()


def binding_of(team: StoreTeam, *entries: Object, name: str = "keys", **spec: Any) -> Object:
    """A binding with these entries, for every run."""
    return binding(team.namespace, name, secrets=list(entries), **spec)
