"""Suspended, resumed and cancelled in every state that a run can be in, with the operator there and away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testing.cluster.client import Object
from testing.namespace import HELD_BACK, Team, condition, exposures, phase
from testing.workflows import make, object_name, outcomes, pod_of, states, task, wait_pod

pytestmark = pytest.mark.e2e

WAITS = """
print("sha256", sha(os.environ["SECRET_API_TOKEN"]), flush=True)
while not os.path.exists("/tmp/finish"): time.sleep(0.05)
"""
FAILS = "sys.exit(1)"


def waits_for_its_binding(team: Team) -> Object:
    team.client.delete("secretbindings", "keys", team.namespace)
    run = make(team, task("a", secret=True), task("b", dependsOn=["a"]))
    team.wait_condition("flow", "Stalled", reason="BindingNotFound")
    return run


def waits_for_a_node(team: Team) -> Object:
    run = make(team, task("a", secret=True, pod=HELD_BACK), task("b", dependsOn=["a"]))
    pod_of(team, run, "a")
    team.wait_condition("flow", "Reconciling", reason="Unschedulable")
    return run


def runs(team: Team) -> Object:
    run = make(team, task("a", WAITS, secret=True), task("b", dependsOn=["a"]))
    wait_pod(team, run, "a")
    team.wait_phase("flow", "Running")
    return run


def is_between_two_tasks(team: Team) -> Object:
    """The first is over; the second, which has the secret, runs."""
    run = make(team, task("a"), task("b", WAITS, secret=True, dependsOn=["a"]))
    wait_pod(team, run, "b")
    team.wait_run("flow", lambda found: states(found).get("a") == "Succeeded", says="a to have succeeded")
    return run


def waits_for_its_next_attempt(team: Team) -> Object:
    run = make(team, task("a", FAILS, secret=True, backoffLimit=5), task("b", dependsOn=["a"]))
    team.wait_run("flow", lambda found: outcomes(found, "a")[:1] == ["Failed"], says="a failed attempt")
    return run


STATES = pytest.mark.parametrize(
    "bring",
    [waits_for_its_binding, waits_for_a_node, runs, is_between_two_tasks, waits_for_its_next_attempt],
    ids=lambda bring: bring.__name__.replace("_", "-"),
)
AWAY = pytest.mark.parametrize("away", [False, True], ids=["operator-there", "operator-away"])


def say(team: Team, *, away: bool, **spec: bool) -> None:
    """Change the run's spec, with the operator there, or stopped before and started after."""
    if away:
        team.operator.stop_cleanly()
    team.client.patch("workflowruns", "flow", team.namespace, {"spec": spec})
    if away:
        team.operator.start()
        team.operator.wait_serving()


def check_nothing_is_left(team: Team, found: Object) -> None:
    assert found["status"]["live"] == 0
    assert team.cluster.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []
    assert all(item["created"] <= item["deleted"] for item in exposures(found))


def check_no_job_runs(team: Team) -> None:
    for job in team.client.list("jobs", team.namespace):
        name = job["metadata"]["name"]
        ended = any(item["type"] in ("Complete", "Failed") for item in job["status"].get("conditions", []))
        if not ended:
            team.client.wait_gone("jobs", name, team.namespace)


@AWAY
@STATES
def test_cancelled(team: Team, bring: Callable[[Team], Object], away: bool) -> None:
    bring(team)
    say(team, away=away, cancel=True)
    found = team.wait_phase("flow", "Succeeded", "Failed", "Cancelled")
    assert phase(found) == "Cancelled", found["status"]
    assert condition(found, "SecretsReleased")["status"] == "True"
    assert set(states(found).values()) <= {"Cancelled", "Succeeded"}
    check_nothing_is_left(team, found)
    check_no_job_runs(team)


@AWAY
@STATES
def test_suspended_and_resumed(team: Team, bring: Callable[[Team], Object], away: bool) -> None:
    run = bring(team)
    say(team, away=away, suspend=True)
    found = team.wait_phase("flow", "Suspended") if bring is not waits_for_its_binding else team.run("flow")
    check_nothing_is_left(team, found)
    check_no_job_runs(team)
    made = len(team.secret_story())
    say(team, away=away, suspend=False)
    if bring is waits_for_its_binding:
        team.make_binding()
    if bring is waits_for_a_node:
        # resumed, it waits for a node once more; nothing is made for it
        pod_of(team, run, "a", 1 + len(outcomes(found, "a")))
        assert len(team.secret_story()) == made
        return
    name = "b" if bring is is_between_two_tasks else "a"
    attempt = 1 if bring is waits_for_its_binding else 2
    secret = object_name(run, name, attempt)
    team.client.wait_for("jobs", secret, team.namespace, bool)
    team.client.wait_for("secrets", secret, team.namespace, bool)


def test_control_a_run_that_nobody_suspends_goes_on(team: Team) -> None:
    """The same checks see a Secret and a Job that run."""
    runs(team)
    with pytest.raises(AssertionError):
        check_nothing_is_left(team, team.run("flow"))
