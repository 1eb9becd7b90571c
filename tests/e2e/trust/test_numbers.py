"""Which numbers of a run's input the API server keeps: those that the client sends."""

from __future__ import annotations

from typing import Any

import pytest

from runkeys._text.documents import altered
from testing.namespace import Team, run

pytestmark = pytest.mark.e2e

KEPT = [2**53 + 1, 2**63 - 1, -(2**63), 0, -0.0, 0.1, 1.0, 1e19, 1e300]
ROUNDED = [2**63 + 1, -(2**63) - 1, 2**64 + 1, 10**20 + 1]


def test_what_the_client_sends_is_kept_and_what_it_refuses_is_rounded(team: Team) -> None:
    """The second half is the control: without the check these would be other numbers, and nobody would say so."""
    none: dict[str, Any] = {"bindings": [], "task": {"secrets": []}, "suspend": True}
    team.client.create(run(team.namespace, "kept", input={"n": KEPT}, **none))
    team.client.create(run(team.namespace, "rounded", input={"n": ROUNDED}, **none))
    assert team.run("kept")["spec"]["input"]["n"] == KEPT
    assert not set(team.run("rounded")["spec"]["input"]["n"]) & set(ROUNDED)
    assert list(altered(KEPT)) == []
    assert len(list(altered(ROUNDED))) == len(ROUNDED)
