"""What kstatus, by which Flux waits, says of real objects in each state. Needs Go, as the cluster's programs do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from testing.cluster.client import Object
from testing.cluster.golang import build_module
from testing.namespace import FINISHES_WHEN_TOLD, HELD_BACK, SOURCE, Team, python

SOURCES = Path(__file__).parent / "kstatus_go"
Ask = Callable[[Object], str]

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def kstatus() -> Ask:
    """Ask for the status of one object."""
    program = build_module(SOURCES)

    def ask(item: Object) -> str:
        done = subprocess.run(
            [program], input=json.dumps([item]), capture_output=True, text=True, check=False, timeout=180
        )
        assert done.returncode == 0, done.stderr
        (found,) = json.loads(done.stdout)
        return str(found["status"])

    return ask


def binding(team: Team, name: str) -> Object:
    return team.client.get("secretbindings", name, team.namespace)


def test_what_nobody_has_looked_at_is_in_progress_and_then_current(
    new_team: Callable[..., Team], kstatus: Ask
) -> None:
    team = new_team(start=False)
    team.make_source()
    team.make_binding()
    team.make_run()
    assert (kstatus(binding(team, "keys")), kstatus(team.run())) == ("InProgress", "InProgress")
    team.operator.start()
    assert kstatus(team.wait_phase("job", "Succeeded")) == "Current"
    assert kstatus(binding(team, "keys")) == "Current"


def test_a_run_is_in_progress_until_it_has_ended(team: Team, kstatus: Ask) -> None:
    made = team.make_run(command=python(FINISHES_WHEN_TOLD), pod=HELD_BACK)
    team.pod(made)
    assert kstatus(team.wait_phase("job", "Pending", "Waiting")) == "InProgress"
    team.let_go(made)
    team.wait_running(made)
    assert kstatus(team.wait_phase("job", "Running")) == "InProgress"
    team.tell_to_finish(made)
    assert kstatus(team.wait_phase("job", "Succeeded")) == "Current"
    # A limit that docs/gitops.md names: nobody writes the status of a run that has ended.
    later = {"spec": {"ttlSecondsAfterFinished": 86400}}
    assert kstatus(team.client.patch("workflowruns", "job", team.namespace, later)) == "InProgress"


def test_a_run_that_was_cancelled_counts_as_current(team: Team, kstatus: Ask) -> None:
    """The other limit: it is not stalled, and nothing of it is left to do."""
    team.make_run(pod=HELD_BACK)
    team.client.patch("workflowruns", "job", team.namespace, {"spec": {"cancel": True}})
    assert kstatus(team.wait_phase("job", "Cancelled")) == "Current"


def test_what_cannot_go_on_has_failed(team: Team, kstatus: Ask) -> None:
    team.make_run("failing", command=python("raise SystemExit(3)"))
    assert kstatus(team.wait_phase("failing", "Failed")) == "Failed"
    team.make_run("waiting", task={"secrets": [{"name": "api_token", "secret": "nowhere"}]})
    assert kstatus(team.wait_condition("waiting", "Stalled")) == "Failed"
    team.make_binding(
        "broken", secrets=[{"name": "token", "secretKeyRef": {"name": SOURCE, "key": "absent"}}]
    )

    def judged(item: Object) -> bool:
        return bool(item.get("status", {}).get("conditions"))

    assert kstatus(team.client.wait_for("secretbindings", "broken", team.namespace, judged)) == "Failed"
