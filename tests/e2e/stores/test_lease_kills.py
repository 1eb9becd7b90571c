"""No credential is left, and the run ends as it would have, wherever the operator is killed.

One proxy is before the API server, another before the store. A rehearsal shows which requests there are. Then the
operator is killed at one of them, before it is forwarded or after its answer was lost, and started again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from testing.cluster.base import Cluster, wait_until
from testing.cluster.proxy import ApiProxy
from testing.namespace import condition, make_namespace, phase, python, remove_namespace, team_in
from testing.stores.leases import LeaseTeam, digest, furnish_leases, is_released, leases_of
from testing.stores.openbao import OpenBao
from testing.stores.postgres import Postgres
from testing.stores.proxy import StoreProxy
from tests.conftest import FULL
from tests.e2e.runs.kills import Hit, Kill, Killer, When, play_side_by_side, shape
from tests.e2e.stores.conftest import SETS
from tests.e2e.stores.leased import shared_database
from tests.sampling import sample

__all__ = ["shared_database"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.proof,
    pytest.mark.timeout(7200 if FULL else 900),
]

AT_ONCE = 4
SECONDS = 240
SAMPLE = 8

LEASING = (
    "create serviceaccounts/token",
    "patch workflowruns",
    "patch workflowruns/status",
    "create secrets",
    "delete secrets",
)
"""Writes to the API server between which a lease begins and ends."""

CREDS = "CREDS"
"""In the shape of a request the path of the credentials, which is another in each case."""

WAITS = (
    "import os, hashlib, time\n"
    "print('sha256', hashlib.sha256(os.environ['SECRET_API_TOKEN'].encode()).hexdigest(), flush=True)\n"
    "time.sleep(2)"
)


@dataclass(frozen=True)
class Case:
    """One run with its kills."""

    node: Cluster
    bao: OpenBao
    database: Postgres
    folder: Path
    at_api: tuple[Kill, ...] = ()
    at_store: tuple[Kill, ...] = ()

    def play(
        self, hits: list[Hit], check: Callable[[LeaseTeam], None], *, start_again: bool = True
    ) -> tuple[list[str], list[str]]:
        """Live it and check its end. Returns the shapes of all requests to the API server and to the store."""
        namespace = make_namespace(self.node.client, "lease-kills")
        tokens = self.folder / f"tokens-{namespace}"
        arguments = ("--lease-seconds", "3600", "--store-audience", "bao", "--store-tokens", str(tokens))
        try:
            with (
                ApiProxy(self.node) as api,
                StoreProxy(self.bao) as store,
                team_in(
                    self.node, namespace, self.folder, *arguments, server=api.url, sets=SETS, sources=()
                ) as plain,
            ):
                team = furnish_leases(plain, self.bao, self.database, tokens, store.store(namespace))
                at_store = [
                    Kill(kill.when, kill.shape.replace(CREDS, team.creds), kill.occurrence)
                    for kill in self.at_store
                ]
                killers = [
                    Killer(api, team.operator, self.at_api, hits, start_again=start_again),
                    Killer(store, team.operator, at_store, hits, start_again=start_again),
                ]
                try:
                    team.operator.start()
                    team.make_lease_binding()
                    team.make_store_run(command=python(WAITS))
                    check(team)
                finally:
                    for killer in killers:
                        killer.disarm()
                return (
                    [shape(item) for item in api.requests],
                    [shape(item).replace(team.creds, CREDS) for item in store.requests],
                )
        finally:
            self.node.client.delete("secretstores", namespace, missing_ok=True)
            remove_namespace(self.node, namespace)

    def __str__(self) -> str:
        return " and ".join(map(str, (*self.at_api, *self.at_store))) or "nobody killed"


def check(team: LeaseTeam) -> None:
    """The end of a run in which nobody was killed; the same is asked of all others."""
    found = team.wait_phase("job", "Succeeded", "Failed", timeout=SECONDS)
    assert phase(found) == "Succeeded", found["status"]
    found = team.wait_run("job", is_released, SECONDS, says="everything of it to be gone")
    assert (found["status"]["live"], condition(found, "SecretsReleased")["reason"]) == (0, "Released")
    assert len(found["status"]["tasks"][0]["attempts"]) == 1
    assert team.users == [], "a user is left"
    accessors = team.bao.accessors()
    assert [lease for lease in leases_of(found) if lease["accessor"] in accessors] == []
    assert team.cluster.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []
    # The one container had a credential that the store did create, and that was open while it ran.
    delivered = [lease for lease in leases_of(found) if "ids" in lease]
    made = {item.lease: digest(item) for item in team.credentials()}
    assert team.output(found) in [made[lease["ids"][0]] for lease in delivered]


def kills_of(rehearsed: Sequence[str], shapes: Sequence[str]) -> list[Kill]:
    """Before and after each request of one of these shapes."""
    counts: Counter[str] = Counter()
    found = []
    for text in rehearsed:
        counts[text] += 1
        # How often the store is asked whether it is done is a matter of the machine, and others ask for its health.
        if text in shapes and (counts[text] == 1 or "/v1/sys/" not in text):
            found += [Kill(when, text, counts[text]) for when in When]
    return found


@pytest.mark.usefixtures("crds")
def test_a_kill_at_any_call_leaves_no_credential(
    node: Cluster, shared_bao: OpenBao, shared_database: Postgres, tmp_path: Path
) -> None:
    case = Case(node, shared_bao, shared_database, tmp_path)
    at_api, at_store = case.play([], check)
    first, last = f"get /v1/{CREDS}", "create /v1/auth/token/revoke-accessor"
    assert at_store.count(first) == at_store.count(last) == 1
    assert "create /v1/auth/token/renew-self" in at_store
    api = kills_of(at_api, LEASING)
    store = kills_of(at_store, sorted(set(at_store)))
    surely = [kill for kill in store if kill.shape in (first, last)]
    others = [kill for kill in store if kill not in surely]
    size = SAMPLE // 2
    cases = [
        *(Case(node, shared_bao, shared_database, tmp_path, (), (kill,)) for kill in surely),
        *(
            Case(node, shared_bao, shared_database, tmp_path, (), (kill,))
            for kill in sample(others, size, name="lease kills at the store")
        ),
        *(
            Case(node, shared_bao, shared_database, tmp_path, (kill,))
            for kill in sample(api, size, name="lease kills at the API server")
        ),
    ]
    hits = play_side_by_side(cases, lambda each, hits: each.play(hits, check), AT_ONCE)
    assert len(hits) >= 0.8 * len(cases), "kills that did not come prove nothing"
    assert {hit.kill.when for hit in hits if "creds" in hit.request.path} == set(When)


@pytest.mark.usefixtures("crds")
def test_control_without_an_operator_that_comes_back_the_credential_stays(
    node: Cluster, shared_bao: OpenBao, shared_database: Postgres, tmp_path: Path
) -> None:
    kill = Kill(When.BEFORE, "create /v1/auth/token/revoke-accessor", 1)
    case = Case(node, shared_bao, shared_database, tmp_path, (), (kill,))
    seen: list[list[str]] = []
    hits: list[Hit] = []

    def look(team: LeaseTeam) -> None:
        team.wait_run("job", lambda run: any("ids" in lease for lease in leases_of(run)))
        team.client.wait_for(
            "jobs",
            team.object_name(team.run()),
            team.namespace,
            lambda job: any(item["type"] == "Complete" for item in job["status"].get("conditions", [])),
        )
        wait_until("the kill at the revocation", lambda: bool(hits))
        seen.append(team.users)

    case.play(hits, look, start_again=False)
    assert [hit.kill for hit in hits] == [kill]
    assert [len(users) for users in seen] == [1]
