"""An operator that was away while things happened, paused or stopped, comes to the same end as if it had seen them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testing.cluster.client import Object
from testing.namespace import FINISHES_WHEN_TOLD, HELD_BACK, Team, condition, exposures, phase, python

pytestmark = pytest.mark.e2e


def pause(team: Team) -> None:
    team.operator.pause()


def resume(team: Team) -> None:
    team.operator.resume()


def stop(team: Team) -> None:
    team.operator.stop_cleanly()


def start(team: Team) -> None:
    team.operator.start()


Step = Callable[[Team], None]
AWAY = pytest.mark.parametrize(
    ("leave", "come_back"), [(pause, resume), (stop, start)], ids=["paused", "stopped"]
)


def check_nothing_is_left(team: Team) -> None:
    assert team.cluster.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []


def check_it_ended_well(team: Team) -> None:
    found = team.wait_phase("job", "Succeeded", "Failed", "Cancelled")
    assert phase(found) == "Succeeded", found["status"]
    assert condition(found, "SecretsReleased")["status"] == "True"
    assert [exposure["created"] <= exposure["deleted"] for exposure in exposures(found)] == [True]
    assert team.printed(found) == [f"sha256 {team.digest}\n"]
    assert team.secret_story() == ["made", "gone"]
    check_nothing_is_left(team)


def ended(job: Object) -> bool:
    return any(item["type"] == "Complete" for item in job["status"].get("conditions", []))


def waits_for_its_secret(pod: Object) -> bool:
    states = [item.get("state", {}) for item in pod["status"].get("containerStatuses", [])]
    return any(state.get("waiting", {}).get("reason") == "CreateContainerConfigError" for state in states)


@AWAY
def test_it_was_away_while_the_pod_ended(team: Team, leave: Step, come_back: Step) -> None:
    found = team.make_run(command=python(FINISHES_WHEN_TOLD))
    team.wait_running(found)
    leave(team)
    team.tell_to_finish(found)
    team.client.wait_for("jobs", team.object_name(found), team.namespace, ended)
    # the twin: without the operator the Secret is there, and the check sees it
    with pytest.raises(AssertionError):
        check_nothing_is_left(team)
    come_back(team)
    check_it_ended_well(team)


@AWAY
def test_it_was_away_while_the_pod_got_its_node(team: Team, leave: Step, come_back: Step) -> None:
    found = team.make_run(pod=HELD_BACK)
    team.wait_condition("job", "Reconciling", reason="Unschedulable")
    pod = team.pod(found)
    leave(team)
    team.let_go(found)
    team.wait_pod(found, waits_for_its_secret)
    # the twin: no container starts without, and none will as long as nobody makes the Secret
    assert (team.secret_story(), team.printed(found)) == ([], [])
    come_back(team)
    check_it_ended_well(team)
    assert team.pod(found)["metadata"]["uid"] == pod["metadata"]["uid"]


@AWAY
def test_it_was_away_while_the_run_was_cancelled(team: Team, leave: Step, come_back: Step) -> None:
    found = team.make_run(command=python(FINISHES_WHEN_TOLD))
    team.wait_running(found)
    leave(team)
    team.client.patch("workflowruns", "job", team.namespace, {"spec": {"cancel": True}})
    with pytest.raises(AssertionError):
        check_nothing_is_left(team)
    come_back(team)
    team.wait_phase("job", "Cancelled")
    check_nothing_is_left(team)
    assert team.secret_story() == ["made", "gone"]
    team.client.wait_gone("jobs", team.object_name(found), team.namespace)
