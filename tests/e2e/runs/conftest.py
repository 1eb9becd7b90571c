"""Fixtures: a team's namespace with the operator running in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import Cluster
from testing.namespace import Team, team_in

TeamMaker = Callable[..., Team]


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
