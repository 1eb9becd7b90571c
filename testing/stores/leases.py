"""Teams whose credentials a real OpenBao creates in a real PostgreSQL, and revokes."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from runkeys_operator.values.revoker import token_file
from testing.cluster.client import Object
from testing.namespace import FINISHES_WHEN_TOLD, Team, binding, condition, python
from testing.operators import RELEASE
from testing.stores.openbao import AUDIENCE, OpenBao, store
from testing.stores.postgres import Postgres
from testing.stores.teams import ACCOUNT, StoreTeam, open_tokens, wait_known

REVOKES = ("auth/token/revoke-accessor", "auth/token/lookup-accessor", "sys/leases/lookup")
"""What the operator's own role may update: docs/stores.md says the same."""

SECONDS = 300
"""How long the credentials of these tests may live: ``maxLifetimeSeconds`` of their bindings."""


class Credential(NamedTuple):
    """What the store created, as its audit log tells."""

    user: str
    password: str
    lease: str


class LeaseTeam(StoreTeam):
    """A team with an engine of its own, whose users are known by the name of its role."""

    database: Postgres
    engine_role: str
    tokens: Path

    @property
    def creds(self) -> str:
        """The path; each read of it creates a user."""
        return f"{self.namespace}/creds/{self.engine_role}"

    @property
    def users(self) -> list[str]:
        """The users of the database that the store has created for this team."""
        return [name for name in self.database.leased() if f"-{self.engine_role}-" in name]

    def credentials(self) -> list[Credential]:
        """All that were ever created, in order."""
        asked = [item for item in self.bao.audited("response") if item["request"]["path"] == self.creds]
        # What was refused has data, too: the error.
        answers = [item.get("response") or {} for item in asked if not item.get("error")]
        return [
            Credential(found["data"]["username"], found["data"]["password"], found["secret"]["lease_id"])
            for found in answers
            if "username" in (found.get("data") or {})
        ]

    def logs_in(self, made: Credential) -> bool:
        """Whether the database lets its user in."""
        where = f"127.0.0.1:{self.database.port}/postgres"
        return self.database.logs_in(f"postgresql://{made.user}:{made.password}@{where}")

    def leases(self, *, role: str = "", template: str = "{{ db-user }}:{{ db-password }}") -> list[Object]:
        """The entries of a binding: two fields of one lease, and ``token`` made of them."""
        common = {"store": self.namespace, "role": role or self.namespace, "path": self.creds}
        return [
            {"name": "db-user", "lease": {**common, "field": "username"}},
            {"name": "db-password", "lease": {**common, "field": "password"}},
            {"name": "token", "template": template},
        ]

    def make_lease_binding(self, name: str = "keys", **spec: Any) -> Object:
        """A binding whose ``token`` is user and password."""
        spec = {"maxLifetimeSeconds": SECONDS, **spec}
        return self.client.create(binding(self.namespace, name, secrets=self.leases(), **spec))

    def running(self, name: str = "job", **changed: Any) -> Object:
        """A run whose container has its credential, and runs until `tell_to_finish`."""
        found = self.make_store_run(name, command=python(FINISHES_WHEN_TOLD), **changed)
        self.wait_running(found)
        return found

    def allow_revoker(self, **role: Any) -> None:
        """The operator's own role in the store, and its token, as the chart's Deployment gives it one."""
        self.bao.policy(f"{self.namespace}-revoker", *REVOKES, capabilities=("update",))
        self.bao.role(
            f"{self.namespace}-revoker",
            f"{self.namespace}-revoker",
            **{
                "bound_claims": {},
                "bound_subject": f"system:serviceaccount:{self.namespace}:{RELEASE}",
                "token_ttl": 3600,
                **role,
            },
        )

    def give_token(self) -> None:
        """The operator's own token for the store. In a cluster it is in the file of a projected volume."""
        self.tokens.mkdir(exist_ok=True)
        token = self.client.token(self.namespace, RELEASE, audience=AUDIENCE)
        token_file(self.tokens, AUDIENCE).write_text(token)


def digest(made: Credential) -> str:
    """What a task prints that was given it."""
    return f"sha256 {hashlib.sha256(f'{made.user}:{made.password}'.encode()).hexdigest()}\n"


def leases_of(found: Object) -> list[Object]:
    """All leases that the status tells of."""
    return [
        lease
        for task in found.get("status", {}).get("tasks", [])
        for attempt in task.get("attempts", [])
        for lease in attempt.get("leases", [])
    ]


def is_released(found: Object) -> bool:
    """Whether the run says that everything of it is gone, and is kept by nothing any more."""
    return condition(found, "SecretsReleased").get("status") == "True" and not found["metadata"].get(
        "finalizers"
    )


def furnish_leases(
    team: Team,
    bao: OpenBao,
    database: Postgres,
    tokens: Path,
    made: Object | None = None,
    revoker: Mapping[str, Any] | None = None,
    **role: Any,
) -> LeaseTeam:
    """Make the team's engine, its roles in the store, its SecretStore and its account.

    :param made: the SecretStore, if it is another than the store's own.
    :param revoker: fields of the role of the operator.
    :param role: fields of the pods' role.
    """
    found = LeaseTeam(team.cluster, team.namespace, team.operator, team.value)
    found.bao, found.database, found.tokens = bao, database, tokens
    found.engine_role = secrets.token_hex(4)
    database.serve(bao, found.namespace, found.engine_role)
    bao.policy(found.namespace, f"{found.namespace}/creds/*", f"kv/data/{found.namespace}/*")
    bao.role(found.namespace, found.namespace, **role)
    found.allow_revoker(**(revoker or {}))
    found.give_token()
    made = made or store(bao, found.namespace)
    made["spec"]["vault"]["revoker"] = {"role": f"{found.namespace}-revoker"}
    found.client.create(made)
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    found.client.create({**account, "metadata": {"name": ACCOUNT, "namespace": found.namespace}})
    open_tokens(found)
    wait_known(found)
    return found
