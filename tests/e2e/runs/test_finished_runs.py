"""A run that has finished costs nothing: no watch shows it, no sweep lists it; what it still needs it gets."""

from __future__ import annotations

from typing import Any

import pytest

from testing.cluster.faults import Request, matching
from testing.cluster.proxy import ApiProxy
from testing.namespace import HELD_BACK, Team
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e


def swept(team: Team, proxy: ApiProxy, times: int) -> list[Request]:
    """What the operator asked for until it had listed the runs so many times more."""
    before = len(proxy.requests)
    lists = matching("list", "workflowruns")
    done = sum(lists(request) and request.ended is not None for request in proxy.requests)
    proxy.wait_for(lists, count=done + times)
    assert team.operator.running
    return proxy.requests[before:]


def about(requests: list[Request], name: str) -> list[str]:
    """Those that name the run, its Job, its pod or its Secret."""
    return [str(request) for request in requests if request.name == name or f"rk-{name}-" in request.path]


@pytest.fixture
def swept_team(new_team: TeamMaker, proxy: ApiProxy) -> Team:
    """A team whose operator goes through the proxy and sweeps each second."""
    team = new_team("--sweep-seconds", "1", server=proxy.url)
    team.make_source()
    team.make_binding()
    return team


def test_nothing_is_asked_for_a_run_that_has_finished(swept_team: Team, proxy: ApiProxy) -> None:
    team = swept_team
    team.make_run()
    team.make_run("waits", pod=HELD_BACK)
    team.wait_phase("job", "Succeeded")
    team.wait_condition("waits", "Reconciling", reason="Unschedulable")
    swept(team, proxy, 2)
    assert team.jobs(), "the Job is left for its logs"
    # it is changed, and its pod too: still no concern of the operator
    for name in ("job", "waits"):
        team.client.patch("workflowruns", name, team.namespace, {"metadata": {"labels": {"seen": "yes"}}})
    for pod in team.client.list("pods", team.namespace, labels="runkeys.dev/run=job"):
        labels = {"metadata": {"labels": {"seen": "yes"}}}
        team.client.patch("pods", pod["metadata"]["name"], team.namespace, labels)
    asked = swept(team, proxy, 3)
    assert about(asked, "job") == []
    assert about(asked, "waits") != [], "the twin: what is asked for a run that goes on is seen"
    assert sum(len(item) for item in listed(team)) == 1, "of the two runs the sweep is told of one"


def listed(team: Team) -> list[list[str]]:
    """Names of the runs that the operator's selectors choose: as its sweep asks, and its watch."""
    from runkeys_operator.kube.selectors import OPEN

    return [
        [item["metadata"]["name"] for item in team.client.list("workflowruns", team.namespace, fields=OPEN)]
    ]


def test_a_restart_settles_what_has_finished(new_team: TeamMaker, proxy: ApiProxy) -> None:
    team = new_team("--sweep-seconds", "1", server=proxy.url)
    team.make_source()
    team.make_binding()
    team.make_run()
    team.wait_phase("job", "Succeeded")
    team.operator.kill()
    before = len(proxy.requests)
    team.operator.start()
    swept(team, proxy, 3)
    reads = [text for text in about(proxy.requests[before:], "job") if " get " in text]
    assert len(reads) <= 2, "for the Job, and for the pod if that comes while the first is under way"
    assert about(swept(team, proxy, 2), "job") == []


def test_a_time_to_live_that_ended_while_the_operator_was_away(new_team: TeamMaker, proxy: ApiProxy) -> None:
    team = new_team(server=proxy.url)
    team.make_source()
    team.make_binding()
    times: dict[str, dict[str, Any]] = {
        "short": {"ttlSecondsAfterFinished": 1800},
        "long": {"ttlSecondsAfterFinished": 3600},
        "none": {},
    }
    for name, spec in times.items():
        team.make_run(name, **spec)
    for name in ("short", "long", "none"):
        team.wait_phase(name, "Succeeded")
    team.operator.kill()
    team.client.patch("workflowruns", "short", team.namespace, {"spec": {"ttlSecondsAfterFinished": 0}})
    team.operator.start()
    team.client.wait_gone("workflowruns", "short", team.namespace)
    assert {run["metadata"]["name"] for run in team.client.list("workflowruns", team.namespace)} == {
        "long",
        "none",
    }


def test_a_time_to_live_that_is_set_after_the_end(new_team: TeamMaker) -> None:
    team = new_team()
    team.make_source()
    team.make_binding()
    team.make_run()
    team.wait_phase("job", "Succeeded")
    team.client.patch("workflowruns", "job", team.namespace, {"spec": {"ttlSecondsAfterFinished": 0}})
    # noticed within ten minutes, or at the next start
    team.operator.kill()
    team.operator.start()
    team.client.wait_gone("workflowruns", "job", team.namespace)
