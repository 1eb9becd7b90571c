"""The health checks for Argo CD, on real objects in each state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testing.cluster.client import Object
from testing.namespace import FINISHES_WHEN_TOLD, HELD_BACK, SOURCE, Team, python
from tests.e2e.gitops.lua import health

pytestmark = pytest.mark.e2e


def of_run(team: Team, name: str) -> str:
    return health(team.run(name)).status


def of_binding(team: Team, name: str) -> str:
    return health(team.client.get("secretbindings", name, team.namespace)).status


def test_what_nobody_has_looked_at_is_progressing(new_team: Callable[..., Team]) -> None:
    team = new_team(start=False)
    team.make_source()
    team.make_binding()
    team.make_run()
    assert (of_binding(team, "keys"), of_run(team, "job")) == ("Progressing", "Progressing")
    team.operator.start()
    team.wait_phase("job", "Succeeded")
    team.wait_condition("job", "SecretsReleased")
    assert (of_binding(team, "keys"), of_run(team, "job")) == ("Healthy", "Healthy")


def test_a_run_that_waits_runs_and_succeeds(team: Team) -> None:
    made = team.make_run(command=python(FINISHES_WHEN_TOLD), pod=HELD_BACK)
    team.pod(made)
    queued = health(team.wait_condition("job", "Reconciling", reason="Unschedulable"))
    assert queued.status == "Progressing"
    assert queued.message.startswith("Waits: ")
    team.let_go(made)
    team.wait_running(made)
    assert of_run(team, "job") == "Progressing"
    team.tell_to_finish(made)
    done = health(team.wait_condition("job", "SecretsReleased"))
    assert done.status == "Healthy"
    assert done.message.startswith("Succeeded; secrets were in the cluster for ")
    # Changed in Git after its end; nobody writes its status any more.
    later = {"spec": {"ttlSecondsAfterFinished": 86400}}
    changed = team.client.patch("workflowruns", "job", team.namespace, later)
    assert changed["metadata"]["generation"] != changed["status"]["observedGeneration"]
    assert health(changed) == done


def test_a_run_that_waits_for_somebody_is_not_given_up(team: Team) -> None:
    team.make_run(task={"secrets": [{"name": "api_token", "secret": "nowhere"}]})
    found = health(team.wait_condition("job", "Stalled"))
    assert found.status == "Progressing"
    assert found.message.startswith("Waits: ")
    assert "nowhere" in found.message


def test_a_run_that_has_failed_says_why(team: Team) -> None:
    team.make_run(command=python("raise SystemExit(3)"))
    team.wait_phase("job", "Failed")
    found = health(team.wait_condition("job", "SecretsReleased"))
    assert found.status == "Degraded"
    assert found.message.startswith("Failed: ")


@pytest.mark.parametrize(
    ("field", "phase", "expected"),
    [("suspend", "Suspended", "Suspended"), ("cancel", "Cancelled", "Degraded")],
)
def test_a_run_that_was_stopped(team: Team, field: str, phase: str, expected: str) -> None:
    made = team.make_run(command=python(FINISHES_WHEN_TOLD))
    team.wait_running(made)
    team.client.patch("workflowruns", "job", team.namespace, {"spec": {field: True}})
    found = team.wait_phase("job", phase)
    assert health(found).status == expected


def test_a_binding_whose_value_cannot_be_had(team: Team) -> None:
    entry = {"name": "token", "secretKeyRef": {"name": SOURCE, "key": "absent"}}
    team.make_binding("broken", secrets=[entry])

    def judged(item: Object) -> bool:
        return bool(item.get("status", {}).get("conditions"))

    found = health(team.client.wait_for("secretbindings", "broken", team.namespace, judged))
    assert found.status == "Degraded"
    assert "absent" in found.message
