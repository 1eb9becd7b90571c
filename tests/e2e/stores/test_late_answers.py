"""A sealed answer that arrives after its lease was revoked: its pod has a dead credential, and the next one a live one.

The first answer is held back by the proxy, and the operator ends. The next one revokes that lease, since nobody is
known to have it. Then what was held back arrives.
"""

from __future__ import annotations

import pytest

from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.cluster.faults import Hold, matching
from testing.cluster.proxy import ApiProxy
from testing.namespace import FINISHES_WHEN_TOLD, phase, python
from testing.stores.leases import LeaseTeam, digest, is_released
from tests.e2e.stores.leased import LeaseTeamMaker, lease_team, shared_database

__all__ = ["lease_team", "shared_database"]

pytestmark = pytest.mark.e2e

ANSWERS = "podcertificaterequests/status"


def held_back(lease_team: LeaseTeamMaker, proxy: ApiProxy) -> tuple[LeaseTeam, Hold]:
    """A run whose first answer is on its way; the operator that sent it has ended."""
    team = lease_team(sealed=True, options={"server": proxy.url})
    answer = Hold()
    proxy.rule(matching("patch", ANSWERS, team.namespace), answer, times=1)
    team.make_lease_binding(delivery="Sealed")
    team.make_store_run(command=python(FINISHES_WHEN_TOLD))
    answer.wait_arrived()
    assert len(team.users) == 1
    team.operator.kill()
    return team, answer


def attempts(found: Object) -> list[Object]:
    tasks = found.get("status", {}).get("tasks", [{}])
    return [{"outcome": "", **item} for item in tasks[0].get("attempts", [])]


def check_the_next_attempt_has_one_that_works(team: LeaseTeam) -> None:
    found = team.wait_run(
        "job",
        lambda run: [item["outcome"] for item in attempts(run)] == ["Disrupted", ""],
        says="a second attempt",
    )
    first, second = attempts(found)
    assert first["reason"] == "LeaseLost"

    def pods() -> list[Object]:
        of_it = f"batch.kubernetes.io/job-name={second['job']}"
        return team.client.list("pods", team.namespace, labels=of_it)

    wait_until("its pod to run", lambda: [pod["status"]["phase"] for pod in pods()] == ["Running"])
    made = team.credentials()[-1]
    assert (team.users, team.logs_in(made)) == ([made.user], True)
    (pod,) = pods()
    team.tell_pod_to_finish(pod["metadata"]["name"])
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.client.logs(pod["metadata"]["name"], team.namespace) == digest(made)
    team.wait_run("job", is_released, says="everything of it to be gone")
    assert team.users == []


def test_it_arrives_before_the_next_login(lease_team: LeaseTeamMaker, proxy: ApiProxy) -> None:
    team, answer = held_back(lease_team, proxy)
    team.bao.policy(team.namespace, "kv/data/other")  # nothing is created for a while
    team.operator.start()
    wait_until("the lease to be revoked", lambda: team.users == [])
    answer.release()
    proxy.wait_for(lambda request: request.resource == ANSWERS and request.status == 200)
    team.bao.policy(team.namespace, f"{team.namespace}/creds/*")
    check_the_next_attempt_has_one_that_works(team)


def test_it_arrives_before_the_next_answer(lease_team: LeaseTeamMaker, proxy: ApiProxy) -> None:
    team, answer = held_back(lease_team, proxy)
    second = Hold()
    proxy.rule(matching("patch", ANSWERS, team.namespace), second, times=1)
    team.operator.start()
    second.wait_arrived()
    assert len(team.users) == 1, "the first is revoked, the second is there"
    answer.release()
    proxy.wait_for(lambda request: request.resource == ANSWERS and request.status == 200)
    second.release()
    proxy.wait_for(lambda request: request.resource == ANSWERS and request.status == 409)
    check_the_next_attempt_has_one_that_works(team)
