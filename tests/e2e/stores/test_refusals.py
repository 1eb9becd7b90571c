"""What a store does not give: the pod waits, its status says what was found and what to do, and no value is shown."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testing.cluster.client import Object
from testing.namespace import HELD_BACK, condition, phase
from testing.stores.openbao import OpenBao, store
from tests.e2e.stores.conftest import ACCOUNT, StoreTeam, binding_of, open_tokens

pytestmark = pytest.mark.e2e


def stalled(team: StoreTeam, name: str, reason: str) -> str:
    """Wait until the run says why it waits, and return that."""
    found = team.wait_condition(name, "Stalled", "True", reason)
    assert team.live_secrets() == []
    return str(condition(found, "Stalled")["message"])


def test_a_store_that_is_away_when_the_pod_is_bound_is_waited_for(
    store_team: Callable[..., StoreTeam], own_bao: OpenBao
) -> None:
    team = store_team(own_bao)
    team.client.create(binding_of(team, team.entry()))
    for name in ("stopped", "sealed"):
        team.make_store_run(name, pod=HELD_BACK)
        team.pod(team.run(name))

    own_bao.stop()
    team.let_go(team.run("stopped"))
    message = stalled(team, "stopped", "SourceUnavailable")
    assert f"SecretStore {team.namespace}: {own_bao.address} cannot be reached: Connection refused" in message
    own_bao.start()
    assert phase(team.wait_phase("stopped", "Succeeded", "Failed")) == "Succeeded"

    own_bao.seal()
    team.let_go(team.run("sealed"))
    assert f"{own_bao.address} is sealed; unseal it" in stalled(team, "sealed", "SourceUnavailable")
    own_bao.unseal()
    assert phase(team.wait_phase("sealed", "Succeeded", "Failed")) == "Succeeded"
    assert team.output(team.run("sealed")) == f"sha256 {team.digest}\n"


def test_what_the_store_refuses_is_said_with_its_remedy_and_never_the_value(team: StoreTeam) -> None:
    bao, here = team.bao, team.namespace
    bao.call("POST", f"kv/data/others-{here}/api", {"data": {"token": "x"}})
    bao.role(f"{here}-other-audience", here, bound_audiences=["vault"])
    bao.role(f"{here}-other-account", here, bound_subject="system:serviceaccount:other:runner")
    bao.role(f"{here}-batch", here, token_type="batch")
    cases: dict[str, tuple[Object, str, str]] = {
        "field": (
            team.entry(field="tokn"),
            "SourceKeyMissing",
            f"path {team.path} of SecretStore {here} has no field 'tokn'; its fields: count, token",
        ),
        "right": (
            team.entry(path=f"kv/data/others-{here}/api"),
            "SourceForbidden",
            f"role {here} may not read path kv/data/others-{here}/api of SecretStore {here};"
            " give its policy read on it",
        ),
        "nothing": (
            team.entry(path=f"kv/data/{here}/none"),
            "SourceNotFound",
            f"nothing is at path kv/data/{here}/none of SecretStore {here}; write it there",
        ),
        "audience": (
            team.entry(role=f"{here}-other-audience"),
            "StoreLoginRefused",
            "does not accept audience 'bao'; spec.vault.auth.audience of the SecretStore and the role's"
            " bound_audiences must be the same",
        ),
        "account": (
            team.entry(role=f"{here}-other-account"),
            "StoreLoginRefused",
            f"role {here}-other-account of auth/jwt refused the login (400: ",
        ),
        "batch": (
            team.entry(role=f"{here}-batch"),
            "StoreLoginRefused",
            "gives batch tokens, which cannot be revoked; set its token_type to service",
        ),
    }
    for name, (entry, _, _) in cases.items():
        team.client.create(binding_of(team, entry, name=name))
        team.make_store_run(name, bindings=[{"name": name}])
    for name, (_, reason, words) in cases.items():
        message = stalled(team, name, reason)
        assert words in message, message
        assert f"entry 'token' of SecretBinding {name}" in message
        assert team.value not in message
    # What is known without a pod is said before there is one.
    for name in cases:
        assert team.pod(team.run(name))
    team.client.create(binding_of(team, team.entry(role="nobody"), name="early"))
    found = team.client.wait_for(
        *("secretbindings", "early", here), lambda item: condition(item, "Ready").get("status") == "False"
    )
    assert "auth/jwt has no role nobody; create it, or name another" in condition(found, "Ready")["message"]
    team.make_store_run("early", bindings=[{"name": "early"}])
    assert "auth/jwt has no role nobody" in stalled(team, "early", "StoreLoginRefused")
    assert team.object_name(team.run("early")) not in team.jobs()
    assert team.value not in team.operator.text()

    # It is mended in the store, or in the binding, and the pod has its value.
    bao.role(f"{here}-other-audience", here, bound_audiences=["vault", "bao"])
    assert phase(team.wait_phase("audience", "Succeeded", "Failed")) == "Succeeded"


def test_a_namespace_opens_each_account_to_the_operator(team: StoreTeam) -> None:
    team.client.create(binding_of(team, team.entry()))
    team.client.delete("rolebindings", "runkeys-stores", team.namespace)
    team.client.delete("roles", "runkeys-stores", team.namespace)
    team.make_store_run()
    message = stalled(team, "job", "SourceForbidden")
    assert (
        f"a token of service account {ACCOUNT} for SecretStore {team.namespace} may not be requested"
        in message
    )
    assert (
        f"opt in with: kubectl -n {team.namespace} create role runkeys-store-{ACCOUNT} --verb=create"
        f" --resource=serviceaccounts/token --resource-name={ACCOUNT} && kubectl -n {team.namespace} create rolebinding"
        f" runkeys-store-{ACCOUNT} --role=runkeys-store-{ACCOUNT} --serviceaccount={team.namespace}:runkeys"
        in message
    )
    open_tokens(team)
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"


def test_a_store_that_is_not_there_and_one_of_another_audience(team: StoreTeam) -> None:
    team.client.create(binding_of(team, team.entry(store="no-such-store"), name="none"))
    team.make_store_run("none", bindings=[{"name": "none"}])
    assert "there is no SecretStore no-such-store; an administrator" in stalled(team, "none", "StoreNotFound")

    other = f"{team.namespace}-other"
    team.client.create(store(team.bao, other, audience="other"))
    try:
        found = team.client.wait_for(
            *("secretstores", other, None), lambda item: condition(item, "Ready").get("status") == "False"
        )
        words = f"SecretStore {other} has audience 'other', and the operator may request tokens only for: "
        # As whichever operator of this cluster was the first has it; those of other tests have other audiences, too.
        assert words in condition(found, "Ready")["message"]
        team.client.create(binding_of(team, team.entry(store=other), name="other"))
        team.make_store_run("other", bindings=[{"name": "other"}])
        assert f"{words}bao" in stalled(team, "other", "StoresUnavailable")
    finally:
        team.client.delete("secretstores", other)


def test_a_store_whose_certificate_is_of_another_authority_is_not_believed(team: StoreTeam) -> None:
    import trustme

    false = f"{team.namespace}-false"
    made = store(team.bao, false)
    made["spec"]["vault"]["caBundle"] = trustme.CA().cert_pem.bytes().decode()
    team.client.create(made)
    try:
        found = team.client.wait_for(
            *("secretstores", false, None), lambda item: condition(item, "Ready").get("status") == "False"
        )
        assert condition(found, "Ready")["reason"] == "SourceUnavailable"
        assert "has a certificate that is not accepted" in condition(found, "Ready")["message"]
    finally:
        team.client.delete("secretstores", false)


def test_a_lease_of_a_store_without_a_revoker_is_refused(team: StoreTeam) -> None:
    entry = team.entry()
    team.client.create(binding_of(team, {"name": "token", "lease": entry["value"]}))
    team.make_store_run()
    message = stalled(team, "job", "LeasesUnavailable")
    assert "has no spec.vault.revoker, so that the operator could revoke no lease" in message
    assert team.jobs() == [], "nothing starts"
