"""Fixtures: a team whose values are in a real OpenBao."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.namespace import binding
from testing.stores.openbao import OpenBao, running
from testing.stores.teams import ACCOUNT, ARGUMENTS, SETS, StoreTeam, furnish, open_tokens, prepare
from tests.e2e.delivery.conftest import IMAGE, opener
from tests.e2e.pods import conftest as pods
from tests.e2e.pods.conftest import unsealer
from tests.e2e.runs.conftest import TeamMaker, new_team

__all__ = ["ACCOUNT", "ARGUMENTS", "SETS", "StoreTeam", "new_team", "open_tokens", "opener", "unsealer"]

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
