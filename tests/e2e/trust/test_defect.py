"""A defect in the operator costs the run that meets it, which says so, and no other; and its Secret is deleted.

The defect comes from outside: `broken_operator.py` is the operator with a function that raises.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from testing.cluster.base import wait_until
from testing.cluster.client import ApiError, Object
from testing.mutations import any_value, changed, places, rich_pod
from testing.namespace import FINISHES_WHEN_TOLD, TASK_IMAGE, Team, condition, phase, python, run
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.trust.test_hostile_objects import check_healthy

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).with_name("broken_operator.py")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Names the runs whose planning raises."""
    path = tmp_path / "broken"
    path.write_text("")
    return path


def with_defect(new_team: TeamMaker, broken: Path) -> Team:
    team = new_team(start=False)
    team.operator.script = SCRIPT
    team.operator.arguments = [str(broken), team.value, *team.operator.arguments]
    team.operator.start()
    team.operator.wait_serving()
    team.make_source()
    team.make_binding()
    return team


def test_the_run_says_what_happened_and_no_other_notices(new_team: TeamMaker, broken: Path) -> None:
    team = with_defect(new_team, broken)
    broken.write_text("bad")
    team.make_run("bad")
    found = team.wait_condition("bad", "Stalled", "True", "Defect")
    check_healthy(team, "beside")
    message = condition(found, "Stalled")["message"]
    assert message.startswith("the operator raised ValueError in __main__.raises:"), message
    assert "called by runkeys.planning.plan." in message, message
    assert (phase(found), found["status"]["live"]) == ("Pending", 0)
    assert team.value not in str(team.run("bad"))
    assert team.value not in team.operator.text()
    assert "Traceback" not in team.operator.text()
    [event] = team.client.list("events", team.namespace, fields="involvedObject.name=bad,reason=Defect")
    assert event["message"] == message[:1024]
    # once it is mended, nobody has to do anything
    broken.write_text("")
    assert phase(team.wait_phase("bad", "Succeeded", "Failed")) == "Succeeded"
    assert condition(team.run("bad"), "Stalled")["status"] == "False"


@pytest.mark.parametrize("ends", ["by the defect", "by cancel", "by deletion", "after a restart"])
def test_a_secret_that_exists_is_deleted_all_the_same(new_team: TeamMaker, broken: Path, ends: str) -> None:
    team = with_defect(new_team, broken)
    team.wait_running(team.make_run("bad", command=python(FINISHES_WHEN_TOLD)))
    assert team.secret_story() == ["made"]
    if ends == "after a restart":
        team.operator.kill()
    broken.write_text("bad")
    if ends == "after a restart":
        team.operator.start()
    if ends == "by cancel":
        team.client.patch("workflowruns", "bad", team.namespace, {"spec": {"cancel": True}})
    elif ends == "by deletion":
        team.client.delete("workflowruns", "bad", team.namespace)
    elif ends == "by the defect":
        team.client.patch("workflowruns", "bad", team.namespace, {"spec": {"ttlSecondsAfterFinished": 600}})
    wait_until("the Secret to be deleted", lambda: team.secret_story() == ["made", "gone"])
    if ends in ("by cancel", "by deletion"):
        wait_until("the Job to be deleted", lambda: not team.jobs())
        return
    found = team.wait_condition("bad", "Stalled", "True", "Defect")
    assert found["status"]["live"] == 0
    assert len(team.jobs()) == 1


MUTATED = 100


def test_any_json_at_any_place_gives_a_run_an_answer(new_team: TeamMaker) -> None:
    """The API server refuses it, or its status says something; the operator meets no exception."""
    team = new_team()
    team.make_source()
    team.make_binding()
    made = mutated_runs(team)
    check_healthy(team, "beside")
    for name, found in made.items():
        team.wait_run(name, lambda item: item.get("status", {}).get("conditions"))
        assert found["metadata"]["name"] == name
    assert len(made) > MUTATED // 4, "hardly any of them was a run at all"
    said = [condition(team.run(name), "Stalled")["reason"] for name in made]
    assert "Defect" not in said, said
    assert said.count("TemplateRefused") > MUTATED // 10, said
    log = team.operator.text()
    assert "Traceback" not in log
    assert not [line for line in log.splitlines() if " ERROR " in line and "failed, retrying" in line]


def mutated_runs(team: Team) -> dict[str, Object]:
    """Create runs with another value at one place each; return those that the API server took."""
    chance = random.Random(os.environ["RUNKEYS_SEED"])
    made: dict[str, Object] = {}
    for number in range(MUTATED):
        name = f"mutated-{number}"
        pod = {**rich_pod(TASK_IMAGE), "hostPID": None}
        good = run(team.namespace, name, pod=pod, input={"a": {"b": [1]}}, task=takes_input())
        paths = [path for path in places(good) if path[0] == "spec" or path[:2] == ("metadata", "labels")]
        found = changed(good, chance.choice(paths), any_value(chance))
        try:
            made[name] = team.client.create(found)
        except ApiError as refused:
            if refused.status >= 500:
                raise
    return made


def takes_input() -> Object:
    return {"input": [{"name": "a", "from": "input.a"}], "env": [{"name": "E", "value": "f"}]}
