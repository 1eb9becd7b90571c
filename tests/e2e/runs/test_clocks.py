"""The operator's machine may show another time than the API server's: nothing that is decided depends on it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from testing.cluster.proxy import ApiProxy
from testing.namespace import Team, phase
from testing.operators import ROOT, Operator
from testing.workflows import attempts, make, outcomes, task
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.sealed.test_reveal import ask, asker

pytestmark = pytest.mark.e2e

HOUR = 3600
SKEWED = ROOT / "tests" / "e2e" / "operator" / "skewed.py"


def start_skewed(operator: Operator, seconds: int) -> None:
    operator.script = SKEWED
    operator.arguments = [str(seconds), *operator.arguments]
    operator.start()


def begun(team: Team, seconds: int) -> None:
    team.make_source()
    team.make_binding()
    start_skewed(team.operator, seconds)
    team.operator.wait_serving()


@pytest.mark.parametrize("seconds", [-HOUR, HOUR], ids=["behind", "ahead"])
def test_runs_and_questions_are_treated_as_if_the_clocks_agreed(new_team: TeamMaker, seconds: int) -> None:
    team = new_team(start=False)
    begun(team, seconds)
    make(team, task("fails", "sys.exit(1)", secret=True, backoffLimit=1), name="again")
    make(team, task("writes", "write({'n': 1})", secret=True, recordOutput=True), name="writes")
    question = ask(asker(team, "alice", reveal=("keys",)))
    assert question.open(question.answer()["sealed"]) == team.value

    found = team.wait_phase("writes", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert found["status"]["tasks"][0]["output"] == {"n": 1}
    again = team.wait_phase("again", "Succeeded", "Failed")
    assert outcomes(again, "fails") == ["Failed", "Failed"], "the second attempt is not an hour later"
    assert {item["reason"] for item in attempts(again, "fails")} == {"JobFailed"}
    for run in (found, again):
        made = datetime.fromisoformat(run["metadata"]["creationTimestamp"])
        ended = datetime.fromisoformat(run["status"]["completionTime"])
        assert timedelta() <= ended - made + timedelta(seconds=3) < timedelta(seconds=HOUR / 2)
    assert "the API server's clock differs from this machine's by" in team.operator.text()


def test_control_an_operator_that_is_not_told_the_time_goes_by_its_own(
    new_team: TeamMaker, proxy: ApiProxy
) -> None:
    proxy.ahead = timedelta(seconds=HOUR)
    team = new_team(start=False, server=proxy.url)
    begun(team, HOUR)
    make(team, task("work", secret=True))
    found = team.wait_run("flow", lambda found: any(outcomes(found, "work")), says="an attempt to have ended")
    first = attempts(found, "work")[0]
    # By its clock an hour is over: for the kubelet to take the pod, or, if the pod had no node when it was seen, for it
    # to start.
    assert first["reason"] in ("NodeUnreachable", "StartDeadlineExceeded")
    began = datetime.fromisoformat(found["status"]["startTime"])
    assert began > datetime.now(UTC) + timedelta(seconds=HOUR / 2)
