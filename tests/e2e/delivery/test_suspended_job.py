"""A queue suspends the Job of a sealed task and resumes it: another attempt, with an answer of its own."""

from __future__ import annotations

import pytest

from testing.cluster.base import wait_until
from testing.namespace import FINISHES_WHEN_TOLD, Team, phase, python
from testing.workflows import outcomes, pod_of

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "operator-away"])
def test_the_next_attempt_gets_the_values(team: Team, seen: bool) -> None:
    found = team.make_run(command=python(FINISHES_WHEN_TOLD))
    first = team.wait_running(found)["metadata"]["name"]
    team.wait_run("job", lambda run: run.get("status", {}).get("tasks", [{}])[0].get("attempts"))
    with team.without_policies("names"):
        if not seen:
            team.operator.stop_cleanly()
        for on in (True, False) if not seen else (True,):
            spec = {"suspend": on}
            team.client.patch("jobs", team.object_name(found), team.namespace, {"spec": spec})
            team.client.wait_gone("pods", first, team.namespace)
        if not seen:
            wait_until("the next pod to ask", lambda: len(requests(team)) > 0)
    if not seen:
        team.operator.start()
    pod = pod_of(team, found, "work", 2)["metadata"]["name"]
    team.client.wait_for("pods", pod, team.namespace, lambda item: item["status"]["phase"] == "Running")
    team.tell_pod_to_finish(pod)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert (phase(found), outcomes(found, "work")) == ("Succeeded", ["Disrupted", "Succeeded"]), found[
        "status"
    ]
    assert team.client.logs(pod, team.namespace) == f"sha256 {team.digest}\n"
    assert team.secret_story() == []
    assert requests(team) == []


def requests(team: Team) -> list[str]:
    return team.cluster.etcd.keys(f"/registry/podcertificaterequests/{team.namespace}/")
