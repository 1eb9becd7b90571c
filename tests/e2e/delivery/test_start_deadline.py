"""The start deadline counts for the task's containers: that ours has opened the values is no start of theirs."""

from __future__ import annotations

import pytest

from testing.namespace import TASK_IMAGE, Team, condition, phase, python

pytestmark = pytest.mark.e2e

MISSING = {"name": "main", "image": "localhost/nowhere:1", "imagePullPolicy": "Never"}
HERE = {"name": "main", "image": TASK_IMAGE, "command": python("import time; time.sleep(25)")}


def test_a_missing_image_is_told_and_ends_the_attempt_although_the_values_were_opened(team: Team) -> None:
    team.make_run(task={"startDeadlineSeconds": 20}, pod={"containers": [MISSING]})
    waiting = team.wait_condition("job", "Reconciling", reason="ErrImageNeverPull")
    (told,) = waiting["status"]["tasks"]
    assert told["state"] == "Waiting"
    assert "container main (localhost/nowhere:1) of pod " in told["message"]
    assert condition(waiting, "Reconciling")["message"] == told["message"]
    assert told["attempts"][0]["sealed"].get("opened")

    found = team.wait_phase("job", "Failed", "Succeeded")
    (told,) = found["status"]["tasks"]
    assert (told["state"], told["reason"]) == ("Failed", "StartDeadlineExceeded")
    assert "container main did not start within 20 s (ErrImageNeverPull: " in told["message"]


def test_control_a_container_that_starts_may_run_for_longer(team: Team) -> None:
    team.make_run(task={"startDeadlineSeconds": 20}, pod={"containers": [HERE]})
    found = team.wait_phase("job", "Failed", "Succeeded")
    assert phase(found) == "Succeeded", found["status"]
