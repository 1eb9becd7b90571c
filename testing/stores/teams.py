"""Teams whose values and credentials are in a real OpenBao, for tests and for the bench."""

from __future__ import annotations

from typing import Any

from testing.cluster.base import wait_until
from testing.cluster.client import ApiError, KubeClient, Object
from testing.namespace import Team, binding
from testing.operators import RELEASE
from testing.people import give
from testing.stores.openbao import AUDIENCE, BaoError, OpenBao, store

ACCOUNT = "runner"
SETS = ("stores.enabled=true", f"stores.audiences={{{AUDIENCE}}}")
ARGUMENTS = ("--store-audience", AUDIENCE)


def prepare(bao: OpenBao, client: KubeClient) -> None:
    """Have it trust the cluster, with a KV engine of each version."""
    bao.trust(client)
    bao.engine("kv", "kv", options={"version": "2"})
    bao.engine("old", "kv", options={"version": "1"})
    wait_until("the engine kv to be upgraded", lambda: _writes(bao))


def _writes(bao: OpenBao) -> bool:
    try:
        bao.call("POST", "kv/data/probe", {"data": {"a": "b"}})
    except BaoError:
        return False
    return True


class StoreTeam(Team):
    """A team with a SecretStore of its own, named as its namespace."""

    bao: OpenBao

    @property
    def path(self) -> str:
        """Where its value is, under ``token``."""
        return f"kv/data/{self.namespace}/api"

    def entry(self, name: str = "token", **changed: Any) -> Object:
        """An entry of a binding that is its value, changed by fields of ``value``."""
        value = {"store": self.namespace, "role": self.namespace, "path": self.path, "field": "token"}
        return {"name": name, "value": {**value, **changed}}

    def make_store_run(self, name: str = "job", **changed: Any) -> Object:
        """A run as the account that the namespace opens to stores."""
        return self.make_run(name, serviceAccountName=ACCOUNT, **changed)


def furnish(team: Team, bao: OpenBao, **changed: Any) -> StoreTeam:
    """Put the value into the store, and make store, role, account and the right to tokens of it.

    :param changed: see :func:`testing.stores.openbao.store`.
    """
    found = StoreTeam(team.cluster, team.namespace, team.operator, team.value)
    found.bao = bao
    bao.call("POST", found.path, {"data": {"token": found.value, "count": 3}})
    bao.policy(found.namespace, f"kv/data/{found.namespace}/*", f"old/{found.namespace}/*")
    bao.role(found.namespace, found.namespace)
    found.client.create(store(bao, found.namespace, **changed))
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    found.client.create({**account, "metadata": {"name": ACCOUNT, "namespace": found.namespace}})
    open_tokens(found)
    wait_known(found)
    return found


def wait_known(team: StoreTeam) -> None:
    """Wait until the policies know the kind SecretStore. For some seconds after its creation they do not."""
    probe = binding(team.namespace, "probe", secrets=[team.entry()])

    def known() -> bool:
        try:
            team.client.create(probe, dryRun="All")
        except ApiError as error:
            return "paramKind" not in error.message
        return True

    wait_until("policies to know SecretStores", known)


def open_tokens(team: Team, *accounts: str, operator: str = "") -> None:
    """Let the operator request tokens of accounts, as examples/store-role.yaml does.

    :param operator: its namespace; empty: that of the team.
    """
    rule = {
        "apiGroups": [""],
        "resources": ["serviceaccounts/token"],
        "resourceNames": list(accounts or (ACCOUNT,)),
        "verbs": ["create"],
    }
    give(team, "runkeys-stores", f"system:serviceaccount:{operator or team.namespace}:{RELEASE}", [rule])
