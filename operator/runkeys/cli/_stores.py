"""SecretStores for `runkeys plan` and `runkeys doctor`: which are used, whether they work, and what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runkeys.api import SecretBinding, SecretStore
from runkeys.api.common import API_VERSION, describe_invalid
from runkeys.api.store import JWT
from runkeys.client import Client
from runkeys.local.stores import UserStore
from runkeys.names import SERVICE_ACCOUNT
from runkeys.planning.refusal import Refusal
from runkeys.planning.requirements import SecretReference, StoreValue, read_by, reference_to
from runkeys.planning.stores import misfit, token_grant
from runkeys.problems import Denied, Invalid, NotFound, Problem

STORES = SecretStore.CRD.plural
POD_UID = "/kubernetes.io/pod/uid"
"""Claim of tokens that are bound to a pod, as a JSON pointer, as roles of the method jwt name it."""


@dataclass(frozen=True)
class Note:
    """Something about a store. ``problem``: the kind of the problem; None if it only needs a look."""

    text: str
    problem: type[Problem] | None = None


def stored(references: Iterable[SecretReference]) -> list[StoreValue]:
    """The values that stores have, each once: those of templates too."""
    found = (item.source for item in read_by(references))
    return list(dict.fromkeys(source for source in found if isinstance(source, StoreValue)))


def needs(client: Client, account: str, sources: Iterable[StoreValue]) -> Iterator[Note]:
    """What pods of a service account need to read from stores, and what of it is missing."""
    by_store: dict[str, list[StoreValue]] = {}
    for source in sources:
        by_store.setdefault(source.store, []).append(source)
    for name, found in by_store.items():
        roles = ", ".join(sorted({item.role for item in found if item.role}))
        with_role = f", with the store's role {roles}" if roles else ""
        yield Note(f"service account {account} reads from SecretStore {name}{with_role}")
        paths = sorted({item.path for item in found if item.leased})
        if paths:
            yield Note(
                f"a credential is created at {', '.join(paths)} of SecretStore {name}, and revoked when the task's"
                " containers have terminated"
            )
        yield from _problems_of(client, name, found)
    if by_store:
        yield from _token_right(client, account)


def _problems_of(client: Client, name: str, sources: list[StoreValue]) -> Iterator[Note]:
    try:
        store = read_store(client, name)
    except NotFound:
        yield Note(
            f"there is no SecretStore {name}; an administrator of the cluster can create it", problem=Invalid
        )
    except Denied:
        yield Note(
            f"whether SecretStore {name} is ready, you may not see (get {STORES}); its state is in the binding's status"
        )
    except Invalid as error:
        yield Note(str(error), problem=Invalid)
    else:
        leases = store.spec.csi is None and any(source.leased for source in sources)
        problem = not_ready(store) or (leases_not_ready(store) if leases else "")
        if problem:
            yield Note(problem, problem=Invalid)
        for found in dict.fromkeys(filter(None, (misfit(store, source) for source in sources))):
            yield Note(found[1], problem=Invalid)


def read_store(client: Client, name: str) -> SecretStore:
    """Read a store. Raises NotFound, Denied; Invalid if it cannot be read."""
    raw = client.read(f"/apis/{API_VERSION}/{STORES}/{name}")
    try:
        return SecretStore.parse(raw)
    except ValidationError as error:
        problem = Invalid(f"SecretStore {name} cannot be read: {describe_invalid(error)}")
    raise problem


def not_ready(store: SecretStore) -> str:
    """Why a store is not ready, as its status says; empty if it is."""
    name = store.metadata.name
    ready = next((item for item in store.status.conditions if item.type == "Ready"), None)
    if ready is None:
        return f"SecretStore {name} has no status yet: is stores.enabled set in the chart, and does the operator run?"
    return (
        "" if ready.status == "True" else f"SecretStore {name} is not ready: {ready.reason}, {ready.message}"
    )


def leases_not_ready(store: SecretStore) -> str:
    """Why leases of a store cannot be used, as far as its spec and its status say; empty if they can."""
    name = store.metadata.name
    if store.spec.revoker is None:
        return (
            f"SecretStore {name} has no spec.vault.revoker, so that its leases could not be revoked and are not opened;"
            " an administrator of the cluster can name a role there (docs/stores.md)"
        )
    ready = next((item for item in store.status.conditions if item.type == "LeasesReady"), None)
    if ready is None or ready.status == "True":
        return ""
    return f"leases of SecretStore {name} could not be revoked: {ready.reason}, {ready.message}"


def _token_right(client: Client, account: str) -> Iterator[Note]:
    operator = operator_account(client)
    grant = token_grant(
        client.namespace, account, operator or f"{SERVICE_ACCOUNT}{client.operator_namespace}:runkeys"
    )
    what = f"the operator must be allowed to request tokens of service account {account}"
    may = _may_request(client, account, operator) if operator is not None else None
    if may is None:
        yield Note(f"{what}; if it is not: {grant}")
    elif not may:
        yield Note(f"{what}, and is not; an administrator of the namespace: {grant}", problem=Denied)


def operator_account(client: Client) -> str | None:
    """Username of the operator; None if it cannot be seen."""
    path = f"/apis/apps/v1/namespaces/{client.operator_namespace}/deployments"
    with suppress(Denied, NotFound):
        for item in client.items(path, labelSelector="app.kubernetes.io/name=runkeys"):
            account = item["spec"]["template"]["spec"].get("serviceAccountName", "default")
            return f"{SERVICE_ACCOUNT}{client.operator_namespace}:{account}"
    return None


def _may_request(client: Client, account: str, operator: str) -> bool | None:
    """Whether the operator may request tokens of an account; None if this user may not ask that."""
    attributes = {
        "namespace": client.namespace,
        "verb": "create",
        "resource": "serviceaccounts",
        "subresource": "token",
        "name": account,
    }
    namespace = operator.removeprefix(SERVICE_ACCOUNT).partition(":")[0]
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    body: dict[str, Any] = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": operator, "groups": groups, "resourceAttributes": attributes},
    }
    try:
        answer = client.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
    except Denied:
        return None
    return bool((answer.get("status") or {}).get("allowed"))


def all_stored(namespace: str, binding: SecretBinding) -> list[StoreValue]:
    """What the entries of a binding read from stores. Entries that are refused are said elsewhere."""
    found: list[StoreValue] = []
    for entry in binding.spec.secrets:
        selector = entry.value or entry.lease
        if selector is not None:
            leased = entry.lease is not None
            found.append(
                StoreValue(selector.store, selector.role or "", selector.path, selector.field or "", leased)
            )
        elif entry.template is not None:
            reference = reference_to(namespace, binding, entry, "spec.secrets")
            if not isinstance(reference, Refusal):
                found += stored([reference])
    return list(dict.fromkeys(found))


def unbound_roles(store: SecretStore, roles: Iterable[str]) -> Iterator[Note]:
    """Roles in the store that would also let a token in that is bound to no pod, as far as this user may see them."""
    if store.spec.vault is None:
        return  # it has no roles; its cloud says which subjects of tokens it accepts
    auth, name = store.spec.vault.auth, store.metadata.name
    if auth.method != JWT:
        yield Note(
            f"SecretStore {name} has the method {auth.method}, which accepts tokens that are bound to no pod; the"
            " method jwt can demand it"
        )
        return
    cannot = f"whether roles of SecretStore {name} demand tokens that are bound to a pod cannot be seen"
    try:
        user = UserStore(os.environ, Path.home())
        if not user.is_at(store.spec.vault.address):
            yield Note(f"{cannot}: VAULT_ADDR is not its address, {store.spec.vault.address}")
            return
        for role in roles:
            found = user.role(auth.mount, role)
            bound = found.get("bound_claims")
            if not isinstance(bound, dict) or not bound.get(POD_UID):
                yield Note(
                    f"role {role} of auth/{auth.mount} in SecretStore {name} has no bound_claims on {POD_UID}, so it"
                    " also lets in tokens of the account that are bound to no pod; set bound_claims_type to glob and"
                    f' bound_claims to {{"{POD_UID}": "*"}}',
                    problem=Invalid,
                )
    except Problem as error:
        yield Note(f"{cannot} with your login: {error}")
