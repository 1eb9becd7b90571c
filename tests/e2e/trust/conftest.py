"""Fixtures: the same teams as for the runs."""

from __future__ import annotations

from tests.e2e.delivery.conftest import opener, sealed_team
from tests.e2e.runs.conftest import new_team, team

__all__ = ["new_team", "opener", "sealed_team", "team"]
