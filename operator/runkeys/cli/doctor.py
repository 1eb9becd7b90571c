"""`runkeys doctor`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runkeys import policies
from runkeys._text.words import kubectl, line, shell
from runkeys._version import __version__
from runkeys.api import SecretStore
from runkeys.api.binding import SEALED
from runkeys.api.common import API_VERSION
from runkeys.cli._framework import Settings, command
from runkeys.cli._output import print_object, print_table
from runkeys.cli._printing import echo
from runkeys.cli._stores import STORES, all_stored, leases_not_ready, not_ready, read_store, unbound_roles
from runkeys.client import Client
from runkeys.client.rights import (
    CLUSTER_ROLE,
    OF_THE_ROLE,
    OF_THE_STORE,
    MissingRight,
    Right,
    bound_to_role,
    granted,
)
from runkeys.client.trusted_keys import TrustedKeys
from runkeys.names import KEY_VALUES
from runkeys.planning.access import USE
from runkeys.planning.requirements import StoreValue
from runkeys.policies import MUTATING, VALIDATING, Account
from runkeys.problems import Denied, Invalid, NotFound, Problem, Unreachable

OK, WARNING, PROBLEM, UNKNOWN = "ok", "warning", "problem", "unknown"

_OLDEST = 34
_KINDS = ("workflowruns", "secretbindings", "secretreveals")
_POLICY_KINDS = {
    VALIDATING: "validatingadmissionpolicies",
    f"{VALIDATING}Binding": "validatingadmissionpolicybindings",
    MUTATING: "mutatingadmissionpolicies",
    f"{MUTATING}Binding": "mutatingadmissionpolicybindings",
}
_UNSEEN_SECONDS = 30
"""Seconds after which a run without any status is one that the operator does not get to, or fails on."""
_SHOWN = 5
_READS = ("get", "list", "watch")
_CHANGES = ("update", "patch", "delete", "deletecollection")


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    :ivar remedy: what to do; empty if there is nothing to do.
    :ivar kind: kind of the problem, for the exit code.
    """

    check: str
    state: str
    found: str
    remedy: str = ""
    kind: type[Problem] = Invalid


@command()
def doctor(settings: Settings) -> None:
    """Check the cluster, operator, keys, policies, sealed delivery, stores, your rights and unfinished runs.

    The first problem found decides the exit code: 6 the cluster or the operator does not answer, 4 a right is missing
    or the cluster's key is not one that you trust, 5 another problem. A check that you lack the rights for is
    `unknown`, which is not a problem.
    """
    findings = list(_findings(settings))
    if settings.output in ("json", "yaml"):
        items = [{"check": f.check, "state": f.state, "found": f.found, "remedy": f.remedy} for f in findings]
        print_object(settings, {"findings": items})
    else:
        rows = [[item.check, item.state, item.found] for item in findings]
        print_table(settings, ["CHECK", "STATE", "FOUND"], rows)
        for item in findings:
            if item.remedy:
                echo(f"{item.check}: {item.remedy}")
    problem = next((item for item in findings if item.state == PROBLEM), None)
    if problem is not None:
        raise problem.kind("")


def _findings(settings: Settings) -> Iterator[Finding]:
    """Check which cluster is used, then the cluster."""
    try:
        found = settings.config()
        client = found.client()
    except Problem as error:
        yield Finding("configuration", PROBLEM, str(error), "see `runkeys config show`", type(error))
        for name in ("cluster", *CHECKS):
            yield Finding(name, UNKNOWN, "no cluster was asked")
        return
    yield Finding("configuration", OK, f"{found.source}, namespace {client.namespace}")
    yield from examine(client)


def examine(client: Client) -> Iterator[Finding]:
    """Run all checks. They change nothing, and no key becomes trusted."""
    try:
        yield _cluster(client)
    except Problem as error:
        remedy = "check whether `kubectl version` answers; --context chooses another cluster"
        yield Finding("cluster", PROBLEM, str(error), remedy, Unreachable)
        for name in CHECKS:
            yield Finding(name, UNKNOWN, "the cluster does not answer")
        return
    for name, check in CHECKS.items():
        try:
            yield from check(client)
        except Denied as error:
            what = error.what if isinstance(error, MissingRight) else str(error)
            yield Finding(name, UNKNOWN, f"you are not allowed to see this: {what}")
        except Problem as error:
            yield Finding(name, PROBLEM, str(error), kind=type(error))


def _cluster(client: Client) -> Finding:
    version = client.read("/version")
    minor = int(re.sub(r"\D.*", "", str(version.get("minor", "0"))) or 0)
    found = f"{client.server}, Kubernetes {version.get('gitVersion')}"
    if minor < _OLDEST:
        return Finding("cluster", WARNING, found, f"Runkeys requires Kubernetes 1.{_OLDEST} or later")
    return Finding("cluster", OK, found)


def _kinds(client: Client) -> Iterator[Finding]:
    try:
        served = {item["name"] for item in client.read(f"/apis/{API_VERSION}").get("resources") or []}
    except (NotFound, Unreachable):
        served = set()
    missing = [name for name in _KINDS if name not in served]
    if missing:
        found = f"the cluster does not know {', '.join(missing)} of {API_VERSION}"
        remedy = (
            "an administrator of the cluster can install them: kubectl apply -f crds/, or install the chart"
        )
        yield Finding("kinds", PROBLEM, found, remedy, Unreachable)
    else:
        yield Finding("kinds", OK, f"{API_VERSION}: {', '.join(_KINDS)}")


def _operator(client: Client) -> Iterator[Finding]:
    where = client.operator_namespace
    deployments = _deployments(client)
    if not deployments:
        remedy = "install the chart, or say where it is with --operator-namespace"
        yield Finding("operator", PROBLEM, f"there is no operator in namespace {where}", remedy, Unreachable)
        return
    metadata, status = deployments[0]["metadata"], deployments[0].get("status") or {}
    name = metadata["name"]
    if not status.get("availableReplicas"):
        remedy = f"{kubectl(where, 'describe', 'deploy', name)}; {kubectl(where, 'logs', f'deploy/{name}')}"
        yield Finding("operator", PROBLEM, f"{name} in {where} is down", remedy, Unreachable)
    else:
        yield Finding("operator", OK, f"{name} in {where} runs")
    version = (metadata.get("labels") or {}).get("app.kubernetes.io/version", "")
    if version.split(".")[:2] != __version__.split(".")[:2]:
        found = f"the operator has version {version or 'unknown'}, this command line {__version__}"
        yield Finding("versions", WARNING, found, "install the same minor version of both")
    else:
        yield Finding("versions", OK, f"operator {version}, command line {__version__}")


def _keys(client: Client) -> Iterator[Finding]:
    key, known = client.published_key(), TrustedKeys().of(client.server)
    if known and key.fingerprint not in known:
        found = f"you do not trust the cluster's key {key.fingerprint}; you trust {known[-1]}"
        trust = shell("runkeys", "config", "trust-key", key.fingerprint)
        remedy = f"compare it with the fingerprint that an administrator sees, then: {trust}"
        yield Finding("keys", PROBLEM, found, remedy, Denied)
    else:
        trusted = "trusted" if known else "not trusted yet; the first use trusts it"
        yield Finding("keys", OK, f"{key.key_id}, {trusted}")


def _policies(client: Client) -> Iterator[Finding]:
    installed, mutating = _installed(client)
    first = f"runkeys-use.{client.operator_namespace}."
    names = [
        name.removeprefix(first) for kind, name in installed if kind == VALIDATING and name.startswith(first)
    ]
    remedy = (
        "install the policies of the operator's version again: helm upgrade, or kubectl apply -f policies/"
    )
    if not names:
        found = f"there are no policies for an operator in namespace {client.operator_namespace}"
        yield Finding("policies", PROBLEM, found, remedy)
        return
    account = Account.service_account(client.operator_namespace, names[0])
    wrong = []
    expected = policies.build(account, mutating=mutating)
    for item in expected:
        key = item["kind"], item["metadata"]["name"]
        if key not in installed:
            wrong.append(f"{key[0]} {key[1]} is missing")
            continue
        served = policies.served(installed[key])
        wanted = policies.build(account, served or (), mutating=mutating)
        spec = next(i["spec"] for i in wanted if (i["kind"], i["metadata"]["name"]) == key)
        different = policies.difference(spec, installed[key].get("spec"))
        if different is not None:
            wrong.append(f"{key[0]} {key[1]} differs from this version's in {different}")
    if wrong:
        yield Finding("policies", PROBLEM, "; ".join(wrong), remedy)
    else:
        yield Finding("policies", OK, f"{len(expected)} objects are in force and match this version")


def _installed(client: Client) -> tuple[dict[tuple[str, str], dict[str, Any]], bool]:
    """Return policies and their bindings by kind and name, and whether the server has mutating policies."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    mutating = True
    for kind, plural in _POLICY_KINDS.items():
        try:
            items = client.items(f"/apis/{policies.API}/{plural}")
        except NotFound:
            items, mutating = [], False
        found |= {(kind, item["metadata"]["name"]): item for item in items}
    return found, mutating


def _rights(client: Client) -> Iterator[Finding]:
    """Check the rights that the commands need: most of them are in the chart's ClusterRole for users."""
    user, here = client.requester["username"], f"in namespace {client.namespace}"
    missing = _missing(client, OF_THE_ROLE)
    if missing:
        role = _users_role(client)
        remedy = (
            bound_to_role(client.namespace, user, role)
            if role is not None
            else granted(client.namespace, user, CLUSTER_ROLE, OF_THE_ROLE)
        )
        lacking = ", ".join(str(right) for right in missing)
        yield Finding("rights", PROBLEM, f"{user} may not {here}: {lacking}", remedy, Denied)
    else:
        yield Finding("rights", OK, f"{user} may start and see runs, and set and read secrets, {here}")
    missing = _missing(client, OF_THE_STORE)
    if missing:
        lacking = ", ".join(str(right) for right in missing)
        remedy = f"only if you need `runkeys kv`: {granted(client.namespace, user, KEY_VALUES, OF_THE_STORE)}"
        yield Finding("rights for kv", WARNING, f"{user} may not {here}: {lacking}", remedy)
    else:
        yield Finding("rights for kv", OK, f"{user} may store values {here}")


def _missing(client: Client, rights: Iterable[Right]) -> list[Right]:
    return [
        right
        for right in rights
        if not client.may(right.verb, right.resource, group=right.group, name=right.name)
    ]


def _users_role(client: Client) -> str | None:
    """Name of the chart's ClusterRole for users; None if the chart was told to install none."""
    role = CLUSTER_ROLE
    with suppress(Denied, NotFound):
        role = next((f"{name}-user" for name in map(_name, _deployments(client))), role)
    try:
        client.read(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{role}")
    except Denied:
        return role  # only administrators see that
    except NotFound:
        return None
    return role


def _sealed_delivery(client: Client) -> Iterator[Finding]:
    """Check whether `delivery: Sealed` works here, and who asks for it."""
    check = "sealed delivery"
    arguments = [
        argument
        for deployment in _deployments(client)
        for container in deployment["spec"]["template"]["spec"]["containers"]
        for argument in container.get("args") or ()
    ]
    enabled = any(argument.startswith("--sealed-delivery-image=") for argument in arguments)
    asking = [f"SecretBinding {i.metadata.name}" for i in client.bindings() if i.spec.delivery == SEALED]
    asking += [
        f"run {run.metadata.name}"
        for run in client.runs()
        if not run.status.finished and any(task.delivery == SEALED for task in run.spec.tasks)
    ]
    if not enabled:
        if asking:
            found = f"off, and in namespace {client.namespace} these ask for it: {', '.join(asking)}"
            remedy = "install the chart with sealedDelivery.enabled=true, or choose `delivery: Secret` there"
            yield Finding(check, PROBLEM, found, remedy)
        else:
            yield Finding(check, OK, "off (sealedDelivery.enabled of the chart)")
        return
    try:
        served = {item["name"] for item in client.read("/apis/certificates.k8s.io/v1").get("resources") or []}
    except NotFound:
        served = set()
    if "podcertificaterequests" not in served:
        found = "on, and the API server does not serve PodCertificateRequests in v1"
        remedy = "it takes Kubernetes 1.37 or later with the feature gate PodCertificateRequest on"
        yield Finding(check, PROBLEM, found, remedy)
    else:
        yield Finding(check, OK, f"on; asked for here by: {', '.join(asking) or 'nobody'}")


def _stores(client: Client) -> Iterator[Finding]:
    """Check whether SecretStores are ready, and what the bindings here need of them."""
    check = "stores"
    used: dict[str, list[StoreValue]] = {}
    for binding in client.bindings():
        for source in all_stored(client.namespace, binding):
            used.setdefault(source.store, []).append(source)
    try:
        names = {_name(item) for item in client.items(f"/apis/{API_VERSION}/{STORES}")}
    except NotFound:
        names = set()
    except Denied:
        names = set(used)
    if not names and not used:
        yield Finding(check, OK, f"no binding in namespace {client.namespace} reads from one")
        return
    for name in sorted({*names, *used}):
        yield from _store(client, check, name, used.get(name, []))


def _store(client: Client, check: str, name: str, sources: list[StoreValue]) -> Iterator[Finding]:
    user, here = client.requester["username"], f"in namespace {client.namespace}"
    try:
        store = read_store(client, name)
    except NotFound:
        remedy = "an administrator of the cluster can create it"
        yield Finding(check, PROBLEM, f"there is no SecretStore {name}, and bindings {here} name it", remedy)
        return
    except Denied:
        found = f"whether SecretStore {name} is ready, you may not see (get {STORES})"
        yield Finding(check, UNKNOWN, found)
        return
    problem = not_ready(store)
    if problem:
        yield Finding(check, PROBLEM if sources else WARNING, problem, kind=Unreachable)
    else:
        may = "may" if client.may(USE, STORES, name=name) else "may not"
        found = f"SecretStore {name} is ready; {len(sources)} values {here}; {user} {may} write entries of it"
        yield Finding(check, OK, found)
        if any(item.leased for item in sources):
            problem = leases_not_ready(store)
            found = problem or f"leases of SecretStore {name} are revoked as {_revoker(store)}"
            yield Finding(check, PROBLEM if problem else OK, found)
    for note in unbound_roles(store, sorted({item.role for item in sources})) if sources else ():
        yield Finding(check, WARNING if note.problem else UNKNOWN, note.text)


def _revoker(store: SecretStore) -> str:
    revoker = store.spec.revoker
    return f"role {revoker.role}" if revoker is not None else "nobody"


def _runs(client: Client) -> Iterator[Finding]:
    """Check for runs that the operator did not look at, or cannot go on with."""
    now = datetime.now(UTC)
    runs = [run for run in client.runs() if not run.status.finished]
    unseen = [
        run.metadata.name
        for run in runs
        # The API server itself writes -1 into a status that nobody has written yet.
        if (run.status.observed_generation or 0) <= 0
        and run.metadata.creation_timestamp is not None
        and (now - run.metadata.creation_timestamp).total_seconds() > _UNSEEN_SECONDS
    ]
    if unseen:
        found = f"the operator has given no status for more than {_UNSEEN_SECONDS} s to: {_some(unseen)}"
        logs = kubectl(client.operator_namespace, "logs", "-l", "app.kubernetes.io/name=runkeys", "--tail=-1")
        remedy = f"see what it says of {line(unseen[0])}: {logs} | grep {shell(unseen[0])}"
        yield Finding("runs", PROBLEM, found, remedy, Unreachable)
    stalled = [
        (run.metadata.name, condition)
        for run in runs
        for condition in run.status.conditions
        if condition.type == "Stalled" and condition.status == "True"
    ]
    if stalled:
        found = f"these wait for somebody to act: {_some([name for name, _ in stalled])}"
        name, condition = stalled[0]
        yield Finding("runs", WARNING, found, f"{name}: {condition.reason}, {condition.message}")
    if not unseen and not stalled:
        yield Finding("runs", OK, f"{len(runs)} unfinished in namespace {client.namespace}, none stalled")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _deployments(client: Client) -> list[dict[str, Any]]:
    path = f"/apis/apps/v1/namespaces/{client.operator_namespace}/deployments"
    return client.items(path, labelSelector="app.kubernetes.io/name=runkeys")


def _name(item: dict[str, Any]) -> str:
    return str(item["metadata"]["name"])


def _secrets(client: Client) -> Iterator[Finding]:
    """Check for rights that allow reading Secrets although they do not look like it."""
    user, here = client.requester["username"], f"Secrets in namespace {client.namespace}"
    reads, changes = (
        [verb for verb in verbs if client.may(verb, "secrets", group="")] for verbs in (_READS, _CHANGES)
    )
    if changes and not reads:
        found = f"{user} may {', '.join(changes)} {here}: that is as good as reading them"
        remedy = (
            "the API server's answer to these can be the whole Secret; an administrator of the namespace should"
            f" remove these rights from users who may not read {here} (docs/hardening.md)"
        )
        yield Finding("secrets", WARNING, found, remedy)
    elif reads:
        yield Finding(
            "secrets", OK, f"{user} may {', '.join([*reads, *changes])} {here}, and so can read them"
        )
    else:
        yield Finding("secrets", OK, f"{user} has no right to all {here}")


def _encryption(client: Client) -> Iterator[Finding]:
    servers = client.items("/api/v1/namespaces/kube-system/pods", labelSelector="component=kube-apiserver")
    words = [
        word
        for pod in servers
        for container in pod["spec"]["containers"]
        for word in (*(container.get("command") or ()), *(container.get("args") or ()))
    ]
    check = "encryption at rest"
    if not servers:
        yield Finding(
            check,
            UNKNOWN,
            "the API server's own settings cannot be seen from inside the cluster; ask an administrator of the cluster",
        )
    elif any(word.startswith("--encryption-provider-config") for word in words):
        yield Finding(check, OK, "the API server has an encryption configuration")
    else:
        remedy = (
            "Secrets, and their old versions in etcd's history, are stored in the clear: docs/hardening.md"
        )
        yield Finding(check, WARNING, "the API server has no --encryption-provider-config", remedy)


CHECKS: Mapping[str, Callable[[Client], Iterator[Finding]]] = {
    "kinds": _kinds,
    "operator": _operator,
    "keys": _keys,
    "policies": _policies,
    "sealed delivery": _sealed_delivery,
    "stores": _stores,
    "rights": _rights,
    "runs": _runs,
    "secrets": _secrets,
    "encryption at rest": _encryption,
}
"""What is checked once the cluster answers, by the name of its row."""
