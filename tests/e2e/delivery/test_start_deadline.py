"""The start deadline counts for the task's containers: that ours has opened the values is no start of theirs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from testing.cluster.faults import matching
from testing.cluster.proxy import ApiProxy
from testing.namespace import FINISHES_WHEN_TOLD, TASK_IMAGE, Team, condition, phase, python

pytestmark = pytest.mark.e2e

SECONDS = 150
MISSING = {"name": "main", "image": "localhost/nowhere:1", "imagePullPolicy": "Never"}
HERE = {"name": "main", "image": TASK_IMAGE, "command": python(FINISHES_WHEN_TOLD)}


@pytest.fixture
def team(sealed_team: Callable[..., Team], proxy: ApiProxy) -> Team:
    """A team whose operator hears the time from the proxy."""
    return sealed_team(server=proxy.url)


def let_the_deadline_pass(team: Team, proxy: ApiProxy) -> None:
    """From outside, once all that a slow machine needs time for has happened."""
    proxy.ahead = timedelta(seconds=SECONDS + 10)
    team.operator.wait_says("the API server's clock differs")
    team.client.patch("workflowruns", "job", team.namespace, {"metadata": {"labels": {"look": "again"}}})


def test_a_missing_image_is_told_and_ends_the_attempt_although_the_values_were_opened(
    team: Team, proxy: ApiProxy
) -> None:
    team.make_run(task={"startDeadlineSeconds": SECONDS}, pod={"containers": [MISSING]})
    waiting = team.wait_condition("job", "Reconciling", reason="ErrImageNeverPull")
    (told,) = waiting["status"]["tasks"]
    assert told["state"] == "Waiting"
    assert "container main (localhost/nowhere:1) of pod " in told["message"]
    assert condition(waiting, "Reconciling")["message"] == told["message"]
    assert told["attempts"][0]["sealed"].get("opened")

    let_the_deadline_pass(team, proxy)
    found = team.wait_phase("job", "Failed", "Succeeded")
    (told,) = found["status"]["tasks"]
    assert (told["state"], told["reason"]) == ("Failed", "StartDeadlineExceeded")
    assert f"container main did not start within {SECONDS} s (ErrImageNeverPull: " in told["message"]


def test_control_a_container_that_starts_may_run_for_longer(team: Team, proxy: ApiProxy) -> None:
    team.make_run(task={"startDeadlineSeconds": SECONDS}, pod={"containers": [HERE]})
    run = team.run()
    team.wait_running(run)
    let_the_deadline_pass(team, proxy)
    number = proxy.requests[-1].number
    looks = matching("get", "workflowruns", team.namespace)
    proxy.wait_for(lambda request: request.number > number and looks(request) and request.answered)
    team.tell_to_finish(run)
    found = team.wait_phase("job", "Failed", "Succeeded")
    assert phase(found) == "Succeeded", found["status"]
