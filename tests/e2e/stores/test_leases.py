"""A database user lives as long as the containers that need it: created at bind, on record, revoked and looked for."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from testing.cluster.base import Cluster, free_port, wait_until
from testing.cluster.client import Object
from testing.cluster.faults import Request
from testing.examples import database_user
from testing.namespace import FINISHES_WHEN_TOLD, HELD_BACK, condition, phase, python
from testing.stores.leases import LeaseTeam, digest, is_released, leases_of
from testing.stores.openbao import OpenBao
from testing.stores.proxy import StoreProxy
from tests.e2e.delivery.test_main_path import places_of
from tests.e2e.runs.test_metrics import Watched
from tests.e2e.stores.leased import LeaseTeamMaker, lease_team, shared_database
from tests.e2e.stores.test_values import check_tokens_are_nowhere, of, read

__all__ = ["lease_team", "shared_database"]

pytestmark = pytest.mark.e2e


def wait_released(team: LeaseTeam, name: str = "job") -> Object:
    return team.wait_run(name, is_released, says="everything of it to be gone")


@pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
def test_a_database_user_is_there_from_bind_to_the_end(
    lease_team: LeaseTeamMaker, delivery: str, node: Cluster
) -> None:
    team = lease_team(sealed=delivery == "Sealed")
    mark = node.audit.mark()
    team.make_lease_binding(delivery=delivery)
    run = team.make_store_run(pod=HELD_BACK, command=python(FINISHES_WHEN_TOLD))
    team.pod(run)
    assert (team.users, of(team, team.bao)) == ([], []), "nothing is created before the pod has a node"

    team.let_go(run)
    team.wait_running(run)
    (made,) = team.credentials()
    assert team.users == [made.user]
    assert team.logs_in(made)
    found = team.run()
    (lease,) = leases_of(found)
    assert lease["accessor"] in team.bao.accessors()
    assert (lease["paths"], lease["ids"], "revoked" in lease) == ([team.creds], [made.lease], False)
    assert found["metadata"]["finalizers"] == ["runkeys.dev/leases"]
    assert condition(found, "SecretsReleased")["status"] == "False"
    pod = team.pod(run)["metadata"]
    (login,) = of(team, team.bao)
    assert login["response"]["auth"]["metadata"]["pod_uid"] == pod["uid"]

    team.tell_to_finish(run)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.output(found) == digest(made)
    assert team.users == []
    assert not team.logs_in(made)
    (lease,) = leases_of(found)
    assert lease["accessor"] not in team.bao.accessors()
    (attempt,) = found["status"]["tasks"][0]["attempts"]
    assert attempt["startTime"] <= lease["revoked"] <= found["status"]["completionTime"]
    assert datetime.fromisoformat(lease["expires"]) > datetime.fromisoformat(lease["revoked"])
    found = wait_released(team)
    assert (found["status"]["live"], condition(found, "SecretsReleased")["reason"]) == (
        0,
        "Released" if delivery == "Secret" else condition(found, "SecretsReleased")["reason"],
    )
    # one login, one renewal, one read
    assert read(team, team.bao) == ["update auth/token/renew-self", f"read {team.creds}"]

    # neither what was created nor what opened it is anywhere
    check_tokens_are_nowhere(team, node, mark)
    team.value = made.password
    if delivery == "Sealed":
        assert places_of(team, node) == set()
        assert team.secret_story() == []
    else:
        assert team.secret_story() == ["made", "gone"]
        assert made.password not in json.dumps(team.run())
    assert made.password not in team.operator.text()


def test_nothing_is_created_before_its_login_is_on_record_nor_delivered_before_it_is_itself(
    lease_team: LeaseTeamMaker, shared_bao: OpenBao
) -> None:
    seen: dict[str, Any] = {}
    with StoreProxy(shared_bao) as proxy:
        team = lease_team(store_of=proxy.store)

        async def before(request: Request) -> None:
            if request.path == f"/v1/{team.creds}":
                seen["before"] = team.run()

        proxy.before_forward = before
        team.make_lease_binding()
        run = team.running()
        (lease,) = leases_of(seen["before"])
        assert "ids" not in lease
        assert lease["accessor"] in shared_bao.accessors()
        assert seen["before"]["status"]["live"] == 1
        team.tell_to_finish(run)
        wait_released(team)

    versions = team.cluster.etcd.history(
        f"/registry/runkeys.dev/workflowruns/{team.namespace}/job", since=team.since
    )
    with_ids = [
        item.revision
        for item in versions
        if item.value is not None and any("ids" in lease for lease in leases_of(json.loads(item.value)))
    ]
    (made, gone) = team.cluster.etcd.history(f"/registry/secrets/{team.namespace}/rk-", since=team.since)
    assert min(with_ids) < made.revision < gone.revision
    # the Secret is gone before the revocation is asked for, and that before it is said to be done
    asked = [request.path for request in proxy.requests]
    assert asked.index("/v1/auth/token/revoke-accessor") < asked.index("/v1/sys/leases/lookup")


def test_with_on_start_the_secret_goes_and_the_user_stays(lease_team: LeaseTeamMaker) -> None:
    team = lease_team()
    team.make_lease_binding(releasePolicy="OnStart")
    run = team.running()
    wait_until("the Secret to go", lambda: team.live_secrets() == [])
    assert len(team.users) == 1
    team.tell_to_finish(run)
    wait_released(team)
    assert team.users == []


def test_each_attempt_has_a_user_of_its_own(lease_team: LeaseTeamMaker) -> None:
    team = lease_team()
    team.make_lease_binding()
    code = (
        "import hashlib, os, sys\n"
        "print('sha256', hashlib.sha256(os.environ['SECRET_API_TOKEN'].encode()).hexdigest())\n"
        "sys.exit(1)"
    )
    team.make_store_run(command=python(code), task={"backoffLimit": 1})
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Failed"
    found = wait_released(team)
    first, second = team.credentials()
    assert [lease["ids"] for lease in leases_of(found)] == [[first.lease], [second.lease]]
    assert all("revoked" in lease for lease in leases_of(found))
    assert (team.users, team.logs_in(first), team.logs_in(second)) == ([], False, False)


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
def test_a_run_that_is_cancelled_or_deleted_leaves_no_user(lease_team: LeaseTeamMaker, how: str) -> None:
    team = lease_team()
    team.make_lease_binding()
    team.running()
    (made,) = team.credentials()
    if how == "cancelled":
        team.client.patch("workflowruns", "job", team.namespace, {"spec": {"cancel": True}})
        wait_released(team)
    else:
        team.client.delete("workflowruns", "job", team.namespace)
        team.client.wait_gone("workflowruns", "job", team.namespace)
    assert team.users == []
    assert not team.logs_in(made)


def test_control_without_the_operator_the_user_stays_until_the_store_ends_it(
    lease_team: LeaseTeamMaker,
) -> None:
    team = lease_team()
    team.make_lease_binding()
    run = team.running()
    team.operator.kill()
    (made,) = team.credentials()
    team.tell_to_finish(run)
    team.wait_pod(run, lambda pod: pod["status"]["phase"] in ("Failed", "Succeeded"))
    assert team.users == [made.user], "nobody revokes it"
    # The end of its time, brought near.
    team.bao.call("PUT", "sys/leases/renew", {"lease_id": made.lease, "increment": 1})
    wait_until("the store to end what nobody revoked", lambda: team.users == [])
    assert not team.logs_in(made)
    team.operator.start()
    found = wait_released(team)
    assert "revoked" in leases_of(found)[0]


def test_the_example(lease_team: LeaseTeamMaker) -> None:
    team = lease_team()
    place = {"store": team.namespace, "role": team.namespace, "path": team.creds}
    for manifest in database_user(team.namespace, place):
        team.client.create(manifest)
    found = team.wait_phase("database-user", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.output(found) == "DATABASE_URL is set\n"
    found = wait_released(team, "database-user")
    assert [lease["paths"] for lease in leases_of(found) if "revoked" in lease] == [[team.creds]]


def test_metrics_say_what_is_open(lease_team: LeaseTeamMaker) -> None:
    port = free_port()
    team = lease_team("--health-port", str(port))
    watched = Watched(team, port)
    team.make_lease_binding()
    run = team.running()
    wait_until("the metric of an open lease", lambda: watched.value("runkeys_open_leases") == 1)
    assert watched.value("runkeys_live_secrets") == 1
    team.tell_to_finish(run)
    wait_released(team)
    wait_until("no lease to be open", lambda: watched.value("runkeys_open_leases") == 0)
    assert watched.value("runkeys_lease_revocation_seconds_count") == 1
    assert watched.value("runkeys_pending_revocations") == 0
