"""Store or database is away when a lease is due, or when it has to end: it is said, and nothing is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from aiohttp import web

from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.cluster.faults import Request
from testing.cluster.proxy import ApiProxy
from testing.namespace import FINISHES_WHEN_TOLD, HELD_BACK, Team, condition, phase, python
from testing.stores.leases import SECONDS, LeaseTeam, is_released, leases_of
from testing.stores.openbao import OpenBao
from testing.stores.postgres import Postgres
from testing.stores.proxy import StoreProxy
from tests.e2e.stores.conftest import ACCOUNT, open_tokens
from tests.e2e.stores.leased import LeaseTeamMaker, lease_team, own_database, shared_database

__all__ = ["lease_team", "own_database", "shared_database"]

pytestmark = pytest.mark.e2e


def pending(team: LeaseTeam) -> str:
    """Wait until the run has ended and says why its lease is not revoked, and return that."""
    found = team.wait_run(
        "job",
        lambda run: condition(run, "SecretsReleased").get("reason") == "RevocationPending",
        says="RevocationPending",
    )
    assert condition(found, "SecretsReleased")["status"] == "False"
    assert team.live_secrets() == [], "the Secret is gone all the same"
    return str(condition(found, "SecretsReleased")["message"])


def ended_while_the_database_is_away(team: LeaseTeam, run: Object, database: Postgres) -> None:
    """The container ends meanwhile, and the run says so when it is there again."""
    with database.away():
        team.tell_to_finish(run)
        message = pending(team)
        assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"
        (lease,) = leases_of(team.run())
        assert lease["ids"][0] in message
        assert "accepted the revocation and still has it" in message
        assert "revoked" not in lease
        assert team.run()["metadata"]["finalizers"] == ["runkeys.dev/leases"]
        events = team.client.list("events", team.namespace)
        assert [item["type"] for item in events if item["reason"] == "RevocationPending"] == ["Warning"]


def test_the_database_is_away_at_the_end(
    lease_team: LeaseTeamMaker, own_bao: OpenBao, own_database: Postgres
) -> None:
    team = lease_team(bao=own_bao, database=own_database)
    team.make_lease_binding()
    run = team.running()
    (made,) = team.credentials()
    ended_while_the_database_is_away(team, run, own_database)
    found = team.wait_run("job", is_released, says="the lease to be revoked")
    assert (found["status"]["live"], condition(found, "SecretsReleased")["reason"]) == (0, "Released")
    assert "revoked" in leases_of(found)[0]
    assert (team.users, team.logs_in(made)) == ([], False)


class Believed(StoreProxy):
    """A store whose word that it accepts a revocation is taken for the deed: it is never looked whether it is done."""

    async def _exchange(self, incoming: web.Request, request: Request) -> web.Response:
        if request.path == "/v1/sys/leases/lookup":
            return web.json_response({"errors": ["invalid lease"]}, status=400)
        return await super()._exchange(incoming, request)


def test_control_who_believes_the_stores_answer_calls_a_user_gone_that_is_there(
    lease_team: LeaseTeamMaker, own_bao: OpenBao, own_database: Postgres
) -> None:
    with Believed(own_bao) as proxy:
        team = lease_team(bao=own_bao, database=own_database, store_of=proxy.store)
        team.make_lease_binding()
        run = team.running()
        (made,) = team.credentials()
        with own_database.away():
            team.tell_to_finish(run)
            found = team.wait_run("job", is_released, says="the lease to be taken for revoked")
            assert condition(found, "SecretsReleased")["status"] == "True"
            asked = next(
                item.status for item in proxy.requests if item.path == "/v1/auth/token/revoke-accessor"
            )
            assert asked in (200, 204)
            still = own_bao.call("PUT", "sys/leases/lookup", {"lease_id": made.lease})
            assert still["data"]["id"] == made.lease, "the store has it still, and the user lives"


@pytest.mark.parametrize("how", ["sealed", "stopped"])
def test_the_store_is_away_when_the_pod_has_a_node(
    lease_team: LeaseTeamMaker, own_bao: OpenBao, shared_database: Postgres, how: str
) -> None:
    team = lease_team(bao=own_bao, database=shared_database)
    team.make_lease_binding()
    team.make_store_run(pod=HELD_BACK)
    team.pod(team.run())
    with away(own_bao, how):
        team.let_go(team.run())
        found = team.wait_condition("job", "Stalled", "True", "SourceUnavailable")
        text = condition(found, "Stalled")["message"]
        assert ("is sealed; unseal it" if how == "sealed" else "cannot be reached") in text
        assert leases_of(found) == []
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    team.wait_run("job", is_released)
    assert team.users == []


def test_a_store_that_stays_away_fails_the_attempt_at_its_start_deadline(
    lease_team: LeaseTeamMaker, own_bao: OpenBao
) -> None:
    team = lease_team(bao=own_bao)
    team.make_lease_binding()
    team.make_store_run(pod=HELD_BACK, task={"startDeadlineSeconds": 20})
    team.pod(team.run())
    own_bao.stop()
    team.let_go(team.run())
    team.wait_condition("job", "Stalled", "True", "SourceUnavailable")
    found = team.wait_phase("job", "Succeeded", "Failed")
    (attempt, *_) = found["status"]["tasks"][0]["attempts"]
    assert (phase(found), attempt["reason"]) == ("Failed", "StartDeadlineExceeded")
    assert (found["status"]["live"], leases_of(found)) == (0, [])
    own_bao.start()


@pytest.mark.parametrize("how", ["sealed", "stopped"])
def test_the_store_is_away_at_the_end(
    lease_team: LeaseTeamMaker, own_bao: OpenBao, shared_database: Postgres, how: str
) -> None:
    team = lease_team(bao=own_bao, database=shared_database)
    team.make_lease_binding()
    run = team.running()
    (made,) = team.credentials()
    with away(own_bao, how):
        team.tell_to_finish(run)
        message = pending(team)
        assert ("is sealed; unseal it" if how == "sealed" else "cannot be reached") in message
        assert made.password not in message
        assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"
        assert team.logs_in(made), "nobody else ends it"
        # A process that remembers nothing finds it, too.
        team.operator.kill()
        team.operator.start()
    team.wait_run("job", is_released, says="the lease to be revoked")
    assert (team.users, team.logs_in(made)) == ([], False)


def test_what_the_store_does_not_confirm_in_time_is_said_and_the_run_is_let_go(
    lease_team: LeaseTeamMaker, own_bao: OpenBao, proxy: ApiProxy
) -> None:
    team = lease_team(bao=own_bao, options={"server": proxy.url})
    team.make_lease_binding()
    run = team.running()
    (made,) = team.credentials()
    own_bao.stop()
    team.tell_to_finish(run)
    pending(team)
    # The end of its time, brought near: for the operator, and below for the store.
    proxy.ahead = timedelta(hours=1)
    found = team.wait_run(
        "job",
        lambda found: (
            condition(found, "SecretsReleased").get("reason") == "LeaseExpired"
            and not found["metadata"].get("finalizers")
        ),
        says="LeaseExpired",
    )
    assert condition(found, "SecretsReleased")["status"] == "False"
    assert (found["status"]["live"], leases_of(found)[0]["expired"]) == (0, True)
    events = {item["reason"] for item in team.client.list("events", team.namespace)}
    assert {"RevocationPending", "LeaseExpired"} <= events
    own_bao.start()
    own_bao.call("PUT", "sys/leases/renew", {"lease_id": made.lease, "increment": 1})
    wait_until("the store to have ended it by itself", lambda: team.users == [])


def test_the_store_is_away_while_the_run_is_deleted(lease_team: LeaseTeamMaker, own_bao: OpenBao) -> None:
    team = lease_team(bao=own_bao)
    team.make_lease_binding()
    team.running()
    (made,) = team.credentials()
    with away(own_bao, "stopped"):
        team.client.delete("workflowruns", "job", team.namespace)
        assert "cannot be reached" in pending(team), "it is kept, and says why"
    team.client.wait_gone("workflowruns", "job", team.namespace)
    assert (team.users, team.logs_in(made)) == ([], False)


def test_a_namespace_is_deleted_in_the_middle(
    lease_team: LeaseTeamMaker, new_namespace: Callable[[], str]
) -> None:
    other = new_namespace()
    team = lease_team(options={"others": (other,)})
    there = Team(team.cluster, other, team.operator)
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    team.client.create({**account, "metadata": {"name": ACCOUNT, "namespace": other}})
    open_tokens(there, operator=team.namespace)
    there.make_binding(secrets=team.leases(), maxLifetimeSeconds=SECONDS)
    there.wait_running(there.make_run(serviceAccountName=ACCOUNT, command=python(FINISHES_WHEN_TOLD)))
    (made,) = team.credentials()
    assert team.users == [made.user]
    team.client.delete("namespaces", other)
    team.client.wait_gone("namespaces", other, None)
    assert (team.users, team.logs_in(made)) == ([], False)


@contextmanager
def away(bao: OpenBao, how: str) -> Iterator[None]:
    """The store does nothing for a while."""
    if how == "sealed":
        bao.seal()
        yield
        bao.unseal()
    else:
        bao.stop()
        yield
        bao.start()
