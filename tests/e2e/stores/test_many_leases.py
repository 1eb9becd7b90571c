"""Many leases at once: one login and one credential each, and no more writes than the record of them needs."""

from __future__ import annotations

from collections import Counter

import pytest

from testing.cluster.base import Cluster, wait_until
from testing.namespace import Team, phase
from testing.stores.leases import LeaseTeam, is_released
from testing.stores.openbao import OpenBao
from tests.conftest import FULL
from tests.e2e.stores.leased import LeaseTeamMaker, lease_team, shared_database
from tests.e2e.stores.test_values import of, read

__all__ = ["lease_team", "shared_database"]

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.timeout(3600 if FULL else 900)]

RUNS = 100 if FULL else 20
PATIENT = 1800 if FULL else 600
FINALIZER = 2
"""Writes of a run with a lease: the finalizer, and the removal of that."""
MORE = FINALIZER + 1
"""Writes that a lease adds to a run: its record too."""


def writes(team: Team, node: Cluster, mark: int) -> Counter[str]:
    """What the operator wrote in the namespace, by verb and kind, without what is not of one run."""
    user = f"system:serviceaccount:{team.namespace}:runkeys"
    return Counter(
        f"{event.verb} {event.resource}"
        for event in node.audit.events(mark, namespace=team.namespace, user=user)
        if event.verb in ("create", "patch", "update", "delete")
        and event.status < 300
        and event.resource.partition("/")[0] in ("workflowruns", "jobs", "secrets", "podcertificaterequests")
    )


@pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
def test_one_login_and_one_credential_each(
    lease_team: LeaseTeamMaker, node: Cluster, delivery: str, shared_bao: OpenBao
) -> None:
    team = lease_team("--workers", "8", sealed=delivery == "Sealed")
    team.bao.call("POST", team.path, {"data": {"token": team.value}})
    team.make_lease_binding(delivery=delivery)
    team.make_binding("plain", secrets=[team.entry()], delivery=delivery)
    wait_until("the operator to know the bindings", lambda: "serving" in team.operator.text())

    mark = node.audit.mark()
    team.make_store_run("plain", bindings=[{"name": "plain"}])
    assert phase(team.wait_phase("plain", "Succeeded", "Failed")) == "Succeeded"
    team.wait_run("plain", is_released)
    without = sum(writes(team, node, mark).values())
    logins = len(of(team, shared_bao))

    mark = node.audit.mark()
    names = [f"job-{number}" for number in range(RUNS)]
    for name in names:
        team.make_store_run(name)
    for name in names:
        found = team.wait_phase(name, "Succeeded", "Failed", timeout=PATIENT)
        assert phase(found) == "Succeeded", found["status"]
    for name in names:
        team.wait_run(name, is_released, PATIENT)
    assert team.users == []
    assert len(team.credentials()) == RUNS
    assert len(of(team, shared_bao)) - logins == RUNS
    check_calls(team, shared_bao)
    made = writes(team, node, mark)
    more = sum(made.values()) / RUNS - without
    # On a busy machine a run also says in between that it runs, with or without a lease.
    print(f"{delivery}: {without} writes without a lease, {more:+.2f} with one ({MORE} on an idle machine)")
    assert made["patch workflowruns"] == FINALIZER * RUNS


def check_calls(team: LeaseTeam, bao: OpenBao) -> None:
    """Each login renewed itself once and read its path once."""
    found = Counter(read(team, bao))
    assert found[f"read {team.creds}"] == found["update auth/token/renew-self"] == RUNS
