"""What the operator finds out before it starts, and says in one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from runkeys.planning.requirements import SealedSupport
from runkeys_operator.checks import preflight
from runkeys_operator.errors import StartError
from runkeys_operator.kube import Json, Kube, Resource, credentials
from runkeys_operator.kube.login import Login
from runkeys_operator.leader_election import LeaseName
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import ApiError as ClientError
from testing.cluster.client import KubeClient
from testing.cluster.faults import Answer, matching
from testing.cluster.proxy import ApiProxy
from testing.namespace import has_right
from testing.operators import RELEASE, install_rights

pytestmark = pytest.mark.usefixtures("crds")


@pytest.fixture
def account(cluster: Cluster, namespace: str) -> str:
    """The chart's account, with the chart's rights in `namespace`."""
    made = install_rights(cluster, namespace, policies=False)
    rights = (*preflight.NEEDED, *preflight.rights_on(LeaseName(namespace, RELEASE)))

    def has(right: preflight.Right) -> bool:
        resource = f"{right.resource.plural}/{right.subresource}".rstrip("/")
        who = {"user": f"system:serviceaccount:{namespace}:{made}"}
        kind = f"{resource}.{right.resource.group}".rstrip(".")
        return has_right(cluster.client, who, namespace, right.verb, kind, right.name)

    def known() -> bool:
        return all(map(has, rights))

    wait_until("the API server to know of the rights", known)
    return made


@pytest.fixture
async def kube(
    cluster: Cluster, proxy: ApiProxy, namespace: str, account: str, tmp_path: Path
) -> AsyncIterator[Kube]:
    """That account, by way of the proxy."""
    token = cluster.client.token(namespace, account)
    file = cluster.kubeconfig_for(token, tmp_path / "kubeconfig", server=proxy.url)
    session = Login(credentials.find(str(file), None))
    yield Kube(session)
    await session.close()


async def refusal(kube: Kube, *namespaces: str) -> str:
    with pytest.raises(StartError) as refused:
        await preflight.check(kube, namespaces, patience=0)
    return str(refused.value)


async def test_the_charts_rights_are_enough(kube: Kube, namespace: str, proxy: ApiProxy) -> None:
    assert await preflight.check(kube, (namespace,), patience=0) == (namespace,)
    assert len(proxy.requests) == 3  # the kinds, the rights, what can be selected


async def test_kinds_of_an_earlier_version_are_said_to_be(
    kube: Kube, namespace: str, proxy: ApiProxy
) -> None:
    proxy.rule(matching("list", "workflowruns"), Answer(400, "BadRequest"))
    assert "of an earlier version: kubectl apply -f crds/" in await refusal(kube, namespace)


def test_control_a_field_that_is_not_selectable_is_a_bad_request(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(ClientError) as refused:
        cluster.client.list("secretbindings", namespace, fields="status.phase!=Failed")
    assert refused.value.status == 400


@pytest.mark.parametrize("right", preflight.NEEDED, ids=lambda right: f"{right.verb} {right.kind}")
async def test_each_right_that_is_taken_away_is_missed(
    kube: Kube, client: KubeClient, namespace: str, account: str, right: preflight.Right
) -> None:
    [role] = [item for item in client.list("roles", namespace) if item["metadata"]["name"] == account]
    for rule in role["rules"]:
        granted = [(group, resource) for group in rule["apiGroups"] for resource in rule["resources"]]
        if (right.resource.group, f"{right.resource.plural}/{right.subresource}".rstrip("/")) in granted:
            rule["verbs"] = [verb for verb in rule["verbs"] if verb != right.verb] or ["none"]
    client.patch("roles", account, namespace, {"rules": role["rules"]})
    async with asyncio.timeout(120):
        while await preflight._allowed(kube, namespace, right):  # noqa: ASYNC110 -- until the server knows
            await asyncio.sleep(0.05)
    assert f"in namespace {namespace}" in (text := await refusal(kube, namespace))
    assert text.endswith(f": {right.verb} {right.kind}")


@pytest.mark.parametrize(
    "right", preflight.rights_on(LeaseName("any", RELEASE)), ids=lambda right: f"{right.verb} {right.kind}"
)
async def test_each_right_on_the_lease_that_is_taken_away_is_missed(
    kube: Kube, client: KubeClient, namespace: str, account: str, right: preflight.Right
) -> None:
    lease = LeaseName(namespace, RELEASE)
    assert await preflight.check(kube, (namespace,), lease, patience=0) == (namespace,)
    role = client.get("roles", f"{account}-lease", namespace)
    for rule in role["rules"]:
        rule["verbs"] = [verb for verb in rule["verbs"] if verb != right.verb] or ["none"]
    client.patch("roles", f"{account}-lease", namespace, {"rules": role["rules"]})
    refused: list[str] = []
    async with asyncio.timeout(120):
        while not refused:  # until the server knows
            try:
                await preflight.check(kube, (namespace,), lease, patience=0)
            except StartError as error:
                refused.append(str(error))
    assert f"in namespace {namespace}" in refused[0]
    assert refused[0].endswith(f": {right.verb} {right.kind}")


async def test_rights_on_another_lease_are_none_on_this_one(kube: Kube, namespace: str) -> None:
    with pytest.raises(StartError, match=r"get, update leases\.coordination\.k8s\.io another$"):
        await preflight.check(kube, (namespace,), LeaseName(namespace, "another"), patience=0)


async def test_a_namespace_without_rights_does_not_keep_the_others_waiting(
    kube: Kube, namespace: str, new_namespace: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    other = new_namespace()
    assert await preflight.check(kube, (other, namespace), patience=0) == (namespace,)
    assert f"in namespace {other}" in caplog.text
    assert "get, list, watch pods" in caplog.text
    assert f"in namespace {other}" in await refusal(kube, other)


async def test_rights_in_one_namespace_are_not_rights_in_all(kube: Kube) -> None:
    assert "lacks rights in all namespaces" in await refusal(kube)


async def test_an_administrator_may_serve_all(cluster: Cluster) -> None:
    session = Login(credentials.find(str(cluster.kubeconfig), None))
    assert await preflight.check(Kube(session), (), patience=0) == ()
    await session.close()


async def test_rules_that_cannot_be_listed_are_asked_about_one_by_one(
    kube: Kube, namespace: str, proxy: ApiProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = kube.create

    async def by_a_webhook(resource: Resource, where: str | None, body: Json) -> Json:
        answer = await create(resource, where, body)
        if resource.plural == "selfsubjectrulesreviews":
            answer["status"] = {"resourceRules": [], "incomplete": True}
        return answer

    monkeypatch.setattr(kube, "create", by_a_webhook)
    assert await preflight.check(kube, (namespace,), patience=0) == (namespace,)
    asked = [request for request in proxy.requests if request.resource == "selfsubjectaccessreviews"]
    assert len(asked) == len(preflight.NEEDED)


async def test_the_kinds_are_missing(kube: Kube, namespace: str, proxy: ApiProxy) -> None:
    proxy.rule(
        lambda request: request.path == "/apis/runkeys.dev/v1alpha1", Answer(404, "NotFound"), times=None
    )
    assert await refusal(kube, namespace) == (
        "the CRDs of runkeys.dev/v1alpha1 are not installed: kubectl apply -f crds/"
    )


async def test_it_waits_for_what_is_being_installed(kube: Kube, namespace: str, proxy: ApiProxy) -> None:
    proxy.rule(lambda request: request.path == "/apis/runkeys.dev/v1alpha1", Answer(404, "NotFound"), times=1)
    assert await preflight.check(kube, (namespace,), patience=10) == (namespace,)


async def test_one_lost_answer_about_what_is_optional_does_not_end_the_start(
    kube: Kube, namespace: str, proxy: ApiProxy
) -> None:
    kinds = proxy.rule(lambda request: request.path.startswith("/apis/certificates.k8s.io/"), Answer(503))
    wanted = SealedSupport(image="registry.example/runkeys")
    support = await preflight.sealed_support(kube, wanted, (namespace,))
    assert "lacks rights" in support.problem  # as the chart has it without sealedDelivery.enabled
    rights = proxy.rule(matching("create", "selfsubjectrulesreviews"), Answer(503))
    assert await preflight.store_audiences(kube, ("vault",)) == ()
    assert (len(kinds.hits), len(rights.hits)) == (1, 1)


async def test_refused_credentials(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    session = Login(credentials.find(str(cluster.kubeconfig_for("void", tmp_path / "kubeconfig")), None))
    assert "refuses the operator's credentials" in await refusal(Kube(session), namespace)
    await session.close()


async def test_no_server(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    file = cluster.kubeconfig_for("void", tmp_path / "kubeconfig", server="http://127.0.0.1:1")
    session = Login(credentials.find(str(file), None))
    assert "the API server cannot be reached: Cannot connect to host 127.0.0.1:1" in await refusal(
        Kube(session), namespace
    )
    await session.close()
