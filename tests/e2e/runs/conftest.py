"""Fixtures: a team's namespace with the operator running in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import Cluster
from testing.namespace import SOURCE, Team
from testing.operators import install_rights, operator_of

TeamMaker = Callable[..., Team]


@contextmanager
def team_in(
    cluster: Cluster,
    namespace: str,
    folder: Path,
    *arguments: str,
    server: str | None = None,
    sources: tuple[str, ...] = (SOURCE,),
    others: tuple[str, ...] = (),
    sets: tuple[str, ...] = (),
) -> Iterator[Team]:
    """A team in ``namespace``: rights, the sources' opt-in, an operator that is not started yet.

    :param others: further namespaces that the operator serves.
    :param sets: further values of the chart.
    """
    account = install_rights(cluster, namespace, sources, others, sets=sets)
    arguments += tuple(part for name in others for part in ("--namespace", name))
    with operator_of(cluster, namespace, folder, *arguments, account=account, server=server) as operator:
        yield Team(cluster, namespace, operator)


@pytest.fixture
def new_team(
    cluster: Cluster,
    crds: None,  # noqa: ARG001 -- the kinds have to be known first
    new_namespace: Callable[[], str],
    tmp_path: Path,
) -> Iterator[TeamMaker]:
    """Make teams with namespaces of their own; ``start=False`` leaves the operator stopped."""
    with ExitStack() as ends:

        def make(*arguments: str, start: bool = True, **options: Any) -> Team:
            scope: AbstractContextManager[Team] = team_in(
                cluster, new_namespace(), tmp_path, *arguments, **options
            )
            team = ends.enter_context(scope)
            if start:
                team.operator.start()
            return team

        yield make


@pytest.fixture
def team(new_team: TeamMaker) -> Team:
    """A team with the operator running, a source and a binding."""
    team = new_team()
    team.make_source()
    team.make_binding()
    return team
