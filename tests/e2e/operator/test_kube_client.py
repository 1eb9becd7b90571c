"""The operator's client and its login against a real API server."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from yarl import URL

from runkeys_operator.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from runkeys_operator.kube import JOBS, METADATA_ONLY, PODS, RUNS, SECRETS, Kube, Resource, credentials
from runkeys_operator.kube.login import Login
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import KubeClient
from testing.cluster.faults import Answer, LoseAnswer, Reset, matching
from testing.cluster.proxy import ApiProxy

CONFIG_MAPS = Resource("", "v1", "configmaps")
RUN_SECRET = "runkeys.dev/run-secret"


@asynccontextmanager
async def connected(load: Callable[[], credentials.Access]) -> AsyncIterator[Kube]:
    session = Login(load)
    try:
        yield Kube(session)
    finally:
        await session.close()


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[Kube]:
    """An administrator."""
    async with connected(credentials.find(str(cluster.kubeconfig), None)) as client:
        yield client


@pytest.fixture
def token(client: KubeClient, namespace: str) -> str:
    """A token of an account that may do nothing."""
    return client.token(namespace, "default")


@pytest.fixture
async def through_proxy(cluster: Cluster, proxy: ApiProxy, token: str, tmp_path: Path) -> AsyncIterator[Kube]:
    """The account of `token`, which may write in its namespace, by way of the proxy."""
    file = cluster.kubeconfig_for(token, tmp_path / "kubeconfig", server=proxy.url)
    async with connected(credentials.find(str(file), None)) as client:
        yield client


def allow_all(client: KubeClient, namespace: str) -> None:
    client.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "all", "namespace": namespace},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        }
    )
    # The server learns of a new right by a watch of its own.
    attributes = {"namespace": namespace, "verb": "create", "resource": "secrets"}
    spec = {"user": f"system:serviceaccount:{namespace}:default", "resourceAttributes": attributes}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    wait_until(
        "the right to be known",
        lambda: client.request("POST", path, body=review)["status"]["allowed"],
    )


def secret(name: str, value: str = "x", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, **metadata},
        "type": RUN_SECRET,
        "immutable": True,
        "stringData": {"V": value},
    }


def job(name: str) -> dict[str, Any]:
    container = {"name": "main", "image": "localhost/none:1"}
    pod = {"restartPolicy": "Never", "nodeSelector": {"no": "node"}, "containers": [container]}
    return {"metadata": {"name": name, "labels": {"a": "b"}}, "spec": {"template": {"spec": pod}}}


async def test_an_object_from_creation_to_deletion(kube: Kube, namespace: str) -> None:
    made = await kube.create(JOBS, namespace, job("one"))
    assert made["spec"]["template"]["spec"]["containers"][0]["name"] == "main"
    assert (await kube.get(JOBS, namespace, "one"))["metadata"]["uid"] == made["metadata"]["uid"]
    await kube.create(JOBS, namespace, job("two"))
    found = await kube.list(JOBS, namespace, label_selector="a=b", field_selector="metadata.name=two")
    assert [item["metadata"]["name"] for item in found] == ["two"]
    assert {"one", "two"} <= {
        item["metadata"]["name"]
        for item in await kube.list(JOBS, None)
        if item["metadata"]["namespace"] == namespace
    }
    assert (await kube.delete(JOBS, namespace, "one", propagation="Background")).gone
    with pytest.raises(NotFound) as absent:
        await kube.delete(JOBS, namespace, "one")
    assert str(absent.value) == f'delete jobs.batch {namespace}/one: 404 NotFound: jobs.batch "one" not found'


async def test_a_long_list_comes_in_pages(
    client: KubeClient, kube: Kube, through_proxy: Kube, proxy: ApiProxy, namespace: str
) -> None:
    allow_all(client, namespace)
    names = {f"n-{number:03}" for number in range(70)}
    for some in (sorted(names)[at : at + 40] for at in range(0, len(names), 40)):
        await asyncio.gather(*(kube.create(CONFIG_MAPS, namespace, {"metadata": {"name": n}}) for n in some))
    found = await through_proxy.list(CONFIG_MAPS, namespace)
    # Every namespace has one more, which Kubernetes puts there.
    assert {item["metadata"]["name"] for item in found} - {"kube-root-ca.crt"} == names
    assert len(found) == len({item["metadata"]["name"] for item in found})
    pages = proxy.wait_for(matching("list", "configmaps"), count=3)
    assert [(page.query["limit"], "continue" in page.query) for page in pages] == [
        ("25", False),
        ("25", True),
        ("25", True),
    ]
    found = await through_proxy.list(CONFIG_MAPS, namespace, metadata_only=True)
    assert len(found) == len(names) + 1
    assert proxy.requests[-1].query["limit"] == "250"


async def test_a_deletion_may_insist_on_the_uid(kube: Kube, namespace: str) -> None:
    uid = (await kube.create(JOBS, namespace, job("one")))["metadata"]["uid"]
    with pytest.raises(Conflict) as other:
        await kube.delete(JOBS, namespace, "one", uid="00000000-0000-0000-0000-000000000000")
    assert other.value.retryable
    assert (await kube.delete(JOBS, namespace, "one", uid=uid, propagation="Background")).gone


async def test_a_deletion_that_waits_for_dependents_is_not_gone(kube: Kube, namespace: str) -> None:
    await kube.create(JOBS, namespace, job("one"))
    deleted = await kube.delete(JOBS, namespace, "one", propagation="Foreground")
    assert (deleted.gone, deleted.finalizers) == (False, ("foregroundDeletion",))


async def test_a_pod_in_its_grace_period_is_not_gone(client: KubeClient, kube: Kube, namespace: str) -> None:
    container = {"name": "main", "image": "localhost/none:1"}
    pod = {
        "metadata": {"name": "p"},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 30},
    }
    await kube.create(PODS, namespace, pod)
    await asyncio.to_thread(
        client.wait_for, "pods", "p", namespace, lambda found: found["spec"].get("nodeName"), timeout=180
    )
    assert await kube.delete(PODS, namespace, "p") == (False, ())


async def test_the_value_of_a_secret_never_comes_back(kube: Kube, namespace: str) -> None:
    canary = secrets.token_urlsafe(24)
    held = secret("rk-one", canary, finalizers=["example.com/hold"])
    made = await kube.create(SECRETS, namespace, held)
    assert made["metadata"]["uid"]
    assert "data" not in made
    answer = await kube._call("delete", "DELETE", SECRETS, namespace, "rk-one", accept=METADATA_ONLY)
    assert answer["kind"] == "PartialObjectMetadata"
    assert "data" not in answer
    deleted = await kube.delete(SECRETS, namespace, "rk-one")
    assert (deleted.gone, deleted.finalizers) == (False, ("example.com/hold",))
    # Reading it is another thing: that is how a source Secret is read.
    assert "data" in await kube.get(SECRETS, namespace, "rk-one")


async def test_what_the_server_says_about_a_secret_is_dropped(kube: Kube, namespace: str) -> None:
    canary = "Canary-" + secrets.token_hex(12)
    with pytest.raises(Invalid) as about_job:
        await kube.create(JOBS, namespace, job(canary))
    assert canary in about_job.value.message  # the server does quote what it refuses
    body = {"metadata": {"name": canary}, "type": "kubernetes.io/tls", "stringData": {"V": canary}}
    with pytest.raises(Invalid) as about_secret:
        await kube.create(SECRETS, namespace, body)
    error = about_secret.value
    assert (error.status, error.reason, error.message) == (422, "Invalid", "")
    assert {cause.field for cause in error.causes} == {"metadata.name", "data[tls.crt]", "data[tls.key]"}
    assert canary not in repr(error.args)
    with pytest.raises(ApiError) as malformed:
        await kube.create(SECRETS, namespace, {**secret("rk-one"), "data": {"V": canary}})
    assert (malformed.value.status, malformed.value.message) == (400, "")


async def test_names_that_are_taken(kube: Kube, namespace: str) -> None:
    await kube.create(SECRETS, namespace, secret("rk-one"))
    with pytest.raises(AlreadyExists) as taken:
        await kube.create(SECRETS, namespace, secret("rk-one"))
    assert str(taken.value) == f"create secrets {namespace}/rk-one: 409 AlreadyExists"
    assert not taken.value.retryable


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "%2e%2e"])
async def test_no_name_climbs_the_path(kube: Kube, namespace: str, name: str) -> None:
    with pytest.raises(Invalid):
        await kube.get(SECRETS, namespace, name)


async def test_who_may_not_and_who_is_unknown(
    cluster: Cluster, token: str, namespace: str, tmp_path: Path
) -> None:
    file = cluster.kubeconfig_for(token, tmp_path / "kubeconfig")
    async with connected(credentials.find(str(file), None)) as nobody:
        with pytest.raises(Forbidden) as refused:
            await nobody.list(PODS, namespace)
        assert 'cannot list resource "pods"' in refused.value.message
        assert not refused.value.namespace_terminating
    file = cluster.kubeconfig_for("no." + "such." + "token", tmp_path / "kubeconfig")
    async with connected(credentials.find(str(file), None)) as unknown:
        with pytest.raises(Unauthorized):
            await unknown.list(PODS, namespace)


async def test_a_namespace_on_its_way_out_takes_nothing_in(
    kube: Kube, client: KubeClient, namespace: str
) -> None:
    await kube.create(
        CONFIG_MAPS, namespace, {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    )
    client.delete("namespaces", namespace)
    with pytest.raises(Forbidden) as refused:
        await kube.create(SECRETS, namespace, secret("rk-one"))
    assert refused.value.namespace_terminating
    client.patch("configmaps", "held", namespace, {"metadata": {"finalizers": None}})


@pytest.mark.usefixtures("crds")
async def test_a_status_is_merged_into_the_version_that_was_read(
    kube: Kube, client: KubeClient, namespace: str
) -> None:
    template = {"spec": {"containers": [{"name": "main", "image": "localhost/none:1"}]}}
    run = client.create(
        {
            "apiVersion": "runkeys.dev/v1alpha1",
            "kind": "WorkflowRun",
            "metadata": {"name": "r", "namespace": namespace},
            "spec": {"tasks": [{"name": "t", "template": template}]},
        }
    )
    read = run["metadata"]["resourceVersion"]
    status = {"phase": "Pending", "observedGeneration": 1, "tasks": [{"name": "t", "state": "Pending"}]}
    patched = await kube.patch_status(RUNS, namespace, "r", status, resource_version=read)
    assert patched["status"]["tasks"][0]["state"] == "Pending"
    with pytest.raises(Conflict) as stale:
        await kube.patch_status(RUNS, namespace, "r", {"phase": "Running"}, resource_version=read)
    assert stale.value.retryable
    now = patched["metadata"]["resourceVersion"]
    changes: dict[str, Any] = {"phase": None, "tasks": []}
    patched = await kube.patch_status(RUNS, namespace, "r", changes, resource_version=now)
    assert "phase" not in patched["status"]
    assert patched["status"]["tasks"] == []
    assert patched["status"]["observedGeneration"] == 1


async def test_faults_on_the_way(
    client: KubeClient, through_proxy: Kube, proxy: ApiProxy, namespace: str
) -> None:
    allow_all(client, namespace)
    creation = matching("create", "secrets")
    proxy.rule(creation, Reset())
    with pytest.raises(Unreachable) as lost:
        await through_proxy.create(SECRETS, namespace, secret("rk-one"))
    assert lost.value.retryable
    proxy.rule(creation, Answer(429, "TooManyRequests", retry_after=7))
    with pytest.raises(TooManyRequests) as slow_down:
        await through_proxy.create(SECRETS, namespace, secret("rk-one"))
    assert slow_down.value.retry_after == 7.0
    proxy.rule(creation, Answer(503, "ServiceUnavailable"))
    with pytest.raises(ServerError) as down:
        await through_proxy.create(SECRETS, namespace, secret("rk-one"))
    assert down.value.retryable
    proxy.rule(creation, LoseAnswer())
    with pytest.raises(Unreachable):
        await through_proxy.create(SECRETS, namespace, secret("rk-one"))
    with pytest.raises(AlreadyExists):  # it did arrive
        await through_proxy.create(SECRETS, namespace, secret("rk-one"))
    assert len([request for request in proxy.requests if creation(request)]) == 5  # nothing is tried twice


async def test_a_server_that_is_not_there(cluster: Cluster, token: str, tmp_path: Path) -> None:
    file = cluster.kubeconfig_for(token, tmp_path / "kubeconfig", server="http://127.0.0.1:1")
    async with connected(credentials.find(str(file), None)) as kube:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
            await kube.list(PODS, None)


async def test_a_server_that_is_not_trusted(cluster: Cluster, token: str, tmp_path: Path) -> None:
    file = cluster.kubeconfig_for(token, tmp_path / "kubeconfig")
    config = yaml.safe_load(file.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority"]
    file.write_text(yaml.safe_dump(config))
    async with connected(credentials.find(str(file), None)) as kube:
        with pytest.raises(Unreachable) as untrusted:
            await kube.list(PODS, None)
        assert untrusted.value.untrusted


async def test_a_pods_account_and_the_rotation_of_its_token(
    cluster: Cluster, token: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.ca_file is not None
    (tmp_path / "ca.crt").write_bytes(cluster.ca_file.read_bytes())
    (tmp_path / "token").write_text(token + "\n")
    server = URL(cluster.server)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(server.host))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    account = Resource("authentication.k8s.io", "v1", "selfsubjectreviews")
    async with connected(lambda: credentials.in_cluster(tmp_path)) as kube:
        who = await kube.create(account, None, {})
        assert who["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"
        # Unreadable for a moment: the token that is known still serves.
        (tmp_path / "token").unlink()
        await kube.create(account, None, {})
        # Void, in the operator's memory as in the file: it is refused, and read again each time that it is.
        (tmp_path / "token").write_text("void")
        kube._login = fresh = Login(lambda: credentials.in_cluster(tmp_path))
        with pytest.raises(Unauthorized):
            await kube.create(account, None, {})
        (tmp_path / "token").write_text(token)
        await kube.create(account, None, {})
        await fresh.close()


async def test_a_token_of_an_exec_plugin(
    cluster: Cluster, token: str, namespace: str, tmp_path: Path
) -> None:
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    file = cluster.kubeconfig_for("", tmp_path / "kubeconfig")
    config = yaml.safe_load(file.read_text())
    config["users"][0]["user"] = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-c", f"print({json.dumps(json.dumps(credential))})"],
            "interactiveMode": "Never",
        }
    }
    file.write_text(yaml.safe_dump(config))
    async with connected(credentials.find(str(file), None)) as kube:
        with pytest.raises(Forbidden, match=f"system:serviceaccount:{namespace}:default"):
            await kube.list(PODS, namespace)


async def test_refused_credentials_are_replaced_once(
    cluster: Cluster, token: str, namespace: str, tmp_path: Path
) -> None:
    file = cluster.kubeconfig_for("void", tmp_path / "kubeconfig")
    session = Login(credentials.find(str(file), None))
    kube = Kube(session)
    stale = session.current()
    cluster.kubeconfig_for(token, file)
    with pytest.raises(Forbidden):  # known, and may not
        await kube.list(PODS, namespace)
    assert session.current() is not stale
    assert not stale.http.closed  # others may be under way in it
    await session.close()
    assert stale.http.closed


async def test_no_text_of_the_client_shows_a_secret(kube: Kube, namespace: str) -> None:
    canary = secrets.token_hex(16)
    with pytest.raises(ApiError) as refused:
        await kube.create(SECRETS, namespace, secret("No-Name", canary))
    for text in (repr(kube), repr(refused.value), str(refused.value), repr(refused.value.__dict__)):
        assert canary not in text
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
