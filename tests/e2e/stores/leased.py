"""Fixtures: a team whose credentials a real OpenBao creates in a real PostgreSQL, and revokes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.stores.leases import LeaseTeam, furnish_leases
from testing.stores.openbao import OpenBao
from testing.stores.postgres import Postgres, postgres
from testing.stores.teams import ARGUMENTS, SETS
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.stores.conftest import SEALED_ARGUMENTS, SEALED_SETS

LeaseTeamMaker = Callable[..., LeaseTeam]


@pytest.fixture(scope="session")
def shared_database() -> Iterator[Postgres]:
    """A database for all tests that let it run."""
    with postgres() as database:
        yield database


@pytest.fixture
def own_database() -> Iterator[Postgres]:
    """A database for one test alone, which may stop it."""
    with postgres() as database:
        yield database


@pytest.fixture
def lease_team(
    request: pytest.FixtureRequest,
    new_team: TeamMaker,
    shared_bao: OpenBao,
    shared_database: Postgres,
    cluster: Cluster,
    tmp_path: Path,
) -> Iterator[LeaseTeamMaker]:
    """Make teams with leases.

    ``sealed``: able to deliver sealed. ``revoker``: fields of its role. Others: of ``new_team`` and the pods' role.
    """
    made: list[str] = []

    def make(
        *arguments: str,
        bao: OpenBao = shared_bao,
        database: Postgres = shared_database,
        sealed: bool = False,
        store_of: Callable[[str], Object] | None = None,
        options: dict[str, Any] | None = None,
        revoker: Mapping[str, Any] | None = None,
        **role: Any,
    ) -> LeaseTeam:
        if sealed:
            request.getfixturevalue("opener")
        tokens = tmp_path / f"tokens-{secrets.token_hex(3)}"
        team = new_team(
            *(SEALED_ARGUMENTS if sealed else ARGUMENTS),
            *("--store-tokens", str(tokens)),
            *arguments,
            **{"sets": SEALED_SETS if sealed else SETS, "sources": (), **(options or {})},
        )
        made.append(team.namespace)
        special = store_of(team.namespace) if store_of is not None else None
        return furnish_leases(team, bao, database, tokens, special, revoker, **role)

    yield make
    for name in made:
        cluster.client.delete("secretstores", name, missing_ok=True)
