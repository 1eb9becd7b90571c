"""Jobs of tasks that are due together are made side by side: what befalls one of them is not the others' trouble."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.cluster.faults import Answer, LoseAnswer, Request, matching
from testing.cluster.proxy import ApiProxy
from testing.namespace import Team, phase
from testing.workflows import make, object_name, states, task
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

NAMES = ("a", "b", "c", "d")
CREATE, DELETE = matching("create", "jobs"), matching("delete", "jobs")


@pytest.fixture
def team(new_team: TeamMaker, proxy: ApiProxy) -> Team:
    """A team whose operator goes through the proxy."""
    team = new_team(server=proxy.url)
    team.make_source()
    team.make_binding()
    return team


def made(proxy: ApiProxy) -> Counter[str]:
    """How often each Job was made, by its name."""
    return Counter(named(request) for request in proxy.requests if CREATE(request) and request.status == 201)


def named(request: Request) -> str:
    return str(json.loads(request.body)["metadata"]["name"])


def check_succeeded(team: Team) -> Object:
    found = team.wait_phase("flow", "Succeeded", "Failed", "Cancelled")
    assert (phase(found), states(found)) == ("Succeeded", dict.fromkeys(NAMES, "Succeeded"))
    return found


def test_one_that_takes_long_keeps_no_other_back(team: Team, proxy: ApiProxy) -> None:
    held = proxy.hold(CREATE)
    run = make(team, *(task(name) for name in NAMES))
    held.wait_arrived()
    wait_until("the other Jobs", lambda: len(team.jobs()) == len(NAMES) - 1)
    first = next(named(request) for request in proxy.requests if CREATE(request))
    assert first not in team.jobs()
    held.release()
    check_succeeded(team)
    assert made(proxy) == {object_name(run, name): 1 for name in NAMES}


def test_one_that_fails_is_made_later_and_the_others_stay(team: Team, proxy: ApiProxy) -> None:
    proxy.rule(CREATE, Answer(500))
    run = make(team, *(task(name) for name in NAMES))
    check_succeeded(team)
    assert made(proxy) == {object_name(run, name): 1 for name in NAMES}
    assert not [request for request in proxy.requests if DELETE(request)]


def test_control_one_whose_answer_is_lost_is_made_anew_and_only_that(team: Team, proxy: ApiProxy) -> None:
    """Nobody remembers to have made it, and it was to get a secret. The others, of the same moment, are remembered."""
    proxy.rule(CREATE, LoseAnswer())
    run = make(team, *(task(name, secret=True) for name in NAMES))
    check_succeeded(team)
    lost = next(named(request) for request in proxy.requests if CREATE(request))
    assert made(proxy) == {object_name(run, name): 1 + (object_name(run, name) == lost) for name in NAMES}
    assert [request.name for request in proxy.requests if DELETE(request)] == [lost]
