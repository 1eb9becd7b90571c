"""What is not leased: the pod waits and says why, and what was opened on the way there is revoked."""

from __future__ import annotations

import pytest

from testing.cluster.base import wait_until
from testing.namespace import condition, phase
from testing.people import may_use
from testing.stores.leases import SECONDS, LeaseTeam, furnish_leases, leases_of
from testing.stores.openbao import BaoError, OpenBao, store
from testing.stores.postgres import Postgres
from tests.e2e.delivery.conftest import IMAGE
from tests.e2e.pods.conftest import asking, wait_asking
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.stores.conftest import ACCOUNT, ARGUMENTS, PODS_SETS, SEALED_SETS, binding_of
from tests.e2e.stores.leased import LeaseTeamMaker, lease_team, shared_database

__all__ = ["lease_team", "shared_database"]

pytestmark = pytest.mark.e2e


def stalled(team: LeaseTeam, reason: str) -> str:
    """Wait until the run says why it waits, and return that. Nothing of it is left open."""
    found = team.wait_condition("job", "Stalled", "True", reason)
    assert team.live_secrets() == []
    return str(condition(found, "Stalled")["message"])


def check_nothing_is_open(team: LeaseTeam) -> None:
    wait_until("what was opened to be revoked", lambda: team.users == [])
    team.wait_run("job", lambda run: run["status"]["live"] == 0 and not run["metadata"].get("finalizers"))
    accessors = team.bao.accessors()
    assert [lease for lease in leases_of(team.run()) if lease["accessor"] in accessors] == []


def test_a_role_that_lets_a_login_live_for_less_time_leases_nothing(lease_team: LeaseTeamMaker) -> None:
    team = lease_team(token_explicit_max_ttl=SECONDS - 200)
    team.make_lease_binding()
    team.make_store_run()
    message = stalled(team, "LeaseTooShort")
    assert "lets a login live for" in message
    assert f"the task may run for {SECONDS} s; raise token_max_ttl or token_explicit_max_ttl" in message
    assert team.credentials() == [], "nothing was read"
    check_nothing_is_open(team)

    team.bao.role(team.namespace, team.namespace, token_explicit_max_ttl=0)
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"


def test_an_engine_that_creates_for_less_time_is_refused_and_its_user_goes(
    lease_team: LeaseTeamMaker,
) -> None:
    team = lease_team()
    role = team.bao.call("GET", f"{team.namespace}/roles/{team.engine_role}")["data"]
    team.bao.call("POST", f"{team.namespace}/roles/{team.engine_role}", {**role, "default_ttl": 60})
    team.make_lease_binding()
    team.make_store_run()
    assert "creates a credential for 60 s, and the task may run for" in stalled(team, "LeaseTooShort")
    assert len(team.credentials()) >= 1
    check_nothing_is_open(team)


def test_a_path_without_a_right(lease_team: LeaseTeamMaker) -> None:
    team = lease_team()
    team.bao.policy(team.namespace, "kv/data/other")
    team.make_lease_binding()
    team.make_store_run()
    assert f"may not read path {team.creds}" in stalled(team, "SourceForbidden")
    check_nothing_is_open(team)


def test_a_role_for_another_audience(lease_team: LeaseTeamMaker) -> None:
    team = lease_team(bound_audiences=["vault"])
    team.make_lease_binding()
    team.make_store_run()
    assert "does not accept audience 'bao'" in stalled(team, "StoreLoginRefused")
    assert leases_of(team.run()) == []


def test_a_path_that_gives_no_lease_is_named_under_value_instead(lease_team: LeaseTeamMaker) -> None:
    team = lease_team()
    team.bao.call("POST", team.path, {"data": {"token": team.value}})
    entry = {"store": team.namespace, "role": team.namespace, "path": team.path, "field": "token"}
    team.client.create(binding_of(team, {"name": "token", "lease": entry}))
    team.make_store_run()
    message = stalled(team, "SourceUnavailable")
    assert "creates no credential with a lease; name it under value instead of lease" in message
    check_nothing_is_open(team)


def test_without_a_token_of_its_own_the_operator_opens_nothing(lease_team: LeaseTeamMaker) -> None:
    team = lease_team()
    for file in team.tokens.iterdir():
        file.unlink()
    team.make_lease_binding()
    team.make_store_run()
    message = stalled(team, "LeasesUnavailable")
    assert "the operator has no token of its own for audience 'bao'" in message
    assert team.jobs() == []
    assert team.credentials() == []


def test_a_revoker_that_the_store_does_not_let_in(lease_team: LeaseTeamMaker) -> None:
    # From the beginning: the operator logs in when it learns of the store, and keeps that login.
    team = lease_team(revoker={"bound_subject": "system:serviceaccount:other:operator"})
    team.make_lease_binding()
    team.make_store_run()
    message = stalled(team, "StoreLoginRefused")
    assert f"the revoker of SecretStore {team.namespace} cannot log in" in message
    assert team.credentials() == []
    team.allow_revoker()
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"


def test_a_revoker_that_may_not_revoke_is_said_at_the_end(lease_team: LeaseTeamMaker) -> None:
    team = lease_team()
    team.make_lease_binding()
    team.running()
    team.bao.policy(f"{team.namespace}-revoker", "sys/leases/lookup", capabilities=("update",))
    team.tell_to_finish(team.run())
    found = team.wait_condition("job", "SecretsReleased", "False", "RevocationPending")
    message = condition(found, "SecretsReleased")["message"]
    assert "its policy needs update on auth/token/revoke-accessor" in message
    team.allow_revoker()
    check_nothing_is_open(team)


def test_the_revoker_can_read_no_secret(lease_team: LeaseTeamMaker) -> None:
    team = lease_team()
    team.make_lease_binding()
    team.running()
    login = team.bao.call(
        "POST",
        "auth/jwt/login",
        {"role": f"{team.namespace}-revoker", "jwt": next(team.tokens.iterdir()).read_text()},
    )
    token = login["auth"]["client_token"]
    for path in (team.creds, team.path, f"{team.namespace}/roles/{team.engine_role}"):
        with pytest.raises(BaoError, match="403"):
            team.bao.call("GET", path, token=token)


def test_a_pod_that_asks_itself_gets_no_lease(
    new_team: TeamMaker,
    shared_bao: OpenBao,
    shared_database: Postgres,
    unsealer: None,  # noqa: ARG001
    opener: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tokens = tmp_path_factory.mktemp("tokens")
    plain = new_team(
        *(*ARGUMENTS, *IMAGE, "--pods", "--store-tokens", str(tokens)),
        sets=(*SEALED_SETS, *PODS_SETS),
        sources=(),
    )
    try:
        team = furnish_leases(plain, shared_bao, shared_database, tokens, store(shared_bao, plain.namespace))
        may_use(team, f"system:serviceaccount:{team.namespace}:{ACCOUNT}", "keys", "use-keys-by-pods")
        team.make_lease_binding(delivery="Sealed", access=[{"pods": {}}])
        wait_asking(team)
        team.client.create(asking(team))
        words = "is a lease, and only a WorkflowRun has a status that says what to revoke"
        wait_until(
            "the pod to be told",
            lambda: any(words in item["message"] for item in team.client.list("events", team.namespace)),
        )
        assert team.credentials() == []
    finally:
        plain.client.delete("secretstores", plain.namespace, missing_ok=True)


def test_where_stores_are_off_nothing_is_leased(new_team: TeamMaker) -> None:
    team = new_team(sources=())
    team.client.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}, team.namespace
    )
    lease = {"store": "s", "role": "r", "path": "database/creds/a", "field": "f"}
    team.make_binding(secrets=[{"name": "token", "lease": lease}])
    team.make_run(serviceAccountName=ACCOUNT)
    found = team.wait_condition("job", "Stalled", "True", "StoresUnavailable")
    assert "values of stores are not enabled here" in condition(found, "Stalled")["message"]
