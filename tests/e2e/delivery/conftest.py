"""Fixtures: teams whose operator delivers sealed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from testing.cluster import images
from testing.cluster.base import Cluster
from testing.namespace import Team
from testing.people import sealed_entry
from tests.e2e.runs.conftest import TeamMaker, new_team

__all__ = ["new_team"]

SEALED_TEAM: dict[str, Any] = {"sets": ("sealedDelivery.enabled=true",), "sources": ()}
IMAGE = ("--sealed-delivery-image", images.OPERATOR_IMAGE)


@pytest.fixture(scope="session")
def opener(cluster: Cluster) -> None:
    """The image that opens in pods is on the node."""
    cluster.load_image(images.operator_image())


@pytest.fixture
def sealed_team(new_team: TeamMaker, opener: None) -> Callable[..., Team]:  # noqa: ARG001
    """Make a team whose one value is sealed in its binding, and delivered so."""

    def make(*, value: str | None = None, delivery: str = "Sealed", **options: Any) -> Team:
        team = new_team(*IMAGE, **{**SEALED_TEAM, **options})
        if value is not None:
            team.value = value
        if options.get("start", True):
            team.make_binding(secrets=[sealed_entry(team, team.value)], delivery=delivery)
        return team

    return make


@pytest.fixture
def team(sealed_team: Callable[..., Team]) -> Team:
    """Such a team, with the operator running."""
    return sealed_team()
