"""One namespace's crowd of runs does not keep another's one run waiting."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from testing.cluster.faults import Request, matching
from testing.cluster.proxy import ApiProxy
from testing.namespace import HELD_BACK, Team, run
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

CROWD = 40
WORKERS = 4
CREATE = matching("create", "jobs")


def makes_job(request: Request) -> bool:
    return CREATE(request) and request.status == 201


def make_run(team: Team, namespace: str, name: str) -> None:
    """A run whose pod stays without a node: nothing follows its Job."""
    team.client.create(run(namespace, name, pod=HELD_BACK, bindings=[], task={"secrets": []}))


def places(team: Team, proxy: ApiProxy, namespace: str) -> list[int]:
    """Of the Jobs that a crowd and one more run get, in their order, the places of that run's.

    All runs are there, and seen, before any of them has its Job.
    """
    for number in range(CROWD):
        make_run(team, team.namespace, f"crowd-{number:02}")
    make_run(team, namespace, "mine")
    held = proxy.hold(CREATE, times=WORKERS)
    team.operator.start()
    held.wait_arrived()
    team.operator.wait_says("ready")
    held.release()
    made = proxy.wait_for(makes_job, count=CROWD + 1)
    runs = [json.loads(request.body)["metadata"]["labels"]["runkeys.dev/run"] for request in made]
    return [place for place, name in enumerate(runs) if name == "mine"]


def test_a_run_in_another_namespace_has_its_turn_at_once(
    new_team: TeamMaker, new_namespace: Callable[[], str], proxy: ApiProxy
) -> None:
    other = new_namespace()
    team = new_team(start=False, server=proxy.url, others=(other,))
    (place,) = places(team, proxy, other)
    # What has begun comes first, and then at most as many turns as it takes four workers to come to it.
    assert place < 2 * WORKERS


def test_control_in_the_same_namespace_it_stands_in_line(new_team: TeamMaker, proxy: ApiProxy) -> None:
    team = new_team(start=False, server=proxy.url)
    (place,) = places(team, proxy, team.namespace)
    assert place > CROWD - WORKERS
