"""Whoever asks for what is not theirs gets nothing, and the run says so."""

from __future__ import annotations

import base64
import re

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runkeys.sealing import unseal as opening
from testing.cluster.base import wait_until
from testing.cluster.client import ApiError, Object
from testing.namespace import (
    CHECKS_ITS_VARIABLE,
    FINISHES_WHEN_TOLD,
    TASK_IMAGE,
    Team,
    condition,
    phase,
    python,
)
from tests.e2e.delivery.test_outages import check_ended_well, held

pytestmark = pytest.mark.e2e

GROUP = "certificates.k8s.io"
REQUESTS = "podcertificaterequests"


def path(team: Team, name: str = "") -> str:
    return f"/apis/{GROUP}/v1/namespaces/{team.namespace}/{REQUESTS}/{name}".rstrip("/")


def key_of_ours() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return key, request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def forged(team: Team, pod: Object, request: bytes, **changes: str) -> Object:
    """A request as the kubelet makes it for the pod, with a key of somebody else's."""
    account = team.client.get("serviceaccounts", "default", team.namespace)
    node = team.client.get("nodes", pod["spec"]["nodeName"])
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "PodCertificateRequest",
        "metadata": {"generateName": "req-", "namespace": team.namespace},
        "spec": {
            "signerName": "runkeys.dev/recipient",
            "podName": pod["metadata"]["name"],
            "podUID": pod["metadata"]["uid"],
            "serviceAccountName": "default",
            "serviceAccountUID": account["metadata"]["uid"],
            "nodeName": node["metadata"]["name"],
            "nodeUID": node["metadata"]["uid"],
            "maxExpirationSeconds": 691200,
            "stubPKCS10Request": base64.b64encode(request).decode(),
            **changes,
        },
    }


def make(team: Team, request: Object) -> str:
    return str(team.client.request("POST", path(team), body=request)["metadata"]["name"])


def certificates(team: Team, name: str = "") -> list[bytes]:
    """Every certificate that etcd ever held in a request."""
    key = f"/registry/{REQUESTS}/{team.namespace}/{name}"
    values = [item.value or b"" for item in team.cluster.etcd.history(key, since=team.since)]
    pem = rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----"
    return [found for value in values for found in re.findall(pem, value, re.DOTALL)]


def check_empty(team: Team, name: str) -> None:
    """The request was answered as that of a kubelet that asks again: with a certificate that holds nothing."""

    def conditions() -> list[Object]:
        return list(team.client.request("GET", path(team, name)).get("status", {}).get("conditions", []))

    wait_until("its answer", lambda: bool(conditions()))
    assert [(item["type"], item["reason"]) for item in conditions()] == [("Issued", "NothingToDeliver")]
    (found,) = set(certificates(team, name))
    assert list(x509.load_pem_x509_certificate(found).extensions) == []


def check_refused(team: Team, name: str, says: str) -> None:
    """The run tells of the refusal, and the request never had an answer."""

    def is_told(found: Object) -> bool:
        return name in condition(found, "RequestsRefused").get("message", "")

    found = team.wait_run("job", is_told, says="the refusal")
    message = condition(found, "RequestsRefused")["message"]
    assert says in message
    assert certificates(team, name) == []


def test_who_reads_all_requests_learns_nothing(team: Team) -> None:
    team.make_run()
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    (sealed,) = set(certificates(team))
    pod = team.pod(found)
    other, _ = key_of_ours()
    key = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(InvalidTag):
        opening.open_bundle(key + sealed + b"\n", team.namespace, pod["metadata"]["uid"])


def test_nobody_but_a_kubelet_may_ask(team: Team) -> None:
    team.make_run(command=python(FINISHES_WHEN_TOLD))
    found = team.run()
    pod = team.wait_running(found)
    _, request = key_of_ours()
    with pytest.raises(ApiError, match="only the kubelet of the pod's node can create"):
        make(team, forged(team, pod, request))
    # other signers are none of our business
    make(team, forged(team, pod, request, signerName="example.org/other"))
    team.tell_to_finish(found)
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"


SECOND = {"nodeName": "zz-second", "nodeUID": "5ec07d00-0000-4000-8000-000000000000"}


def asked_by(team: Team, pod: Object, *groups: str, **changes: str) -> str:
    """A request for a pod by the kubelet of a node on which it is not, with a key of that kubelet's."""
    second = team.client.as_user(f"system:node:{SECOND['nodeName']}", *groups)
    _, request = key_of_ours()
    return str(
        second.request("POST", path(team), body=forged(team, pod, request, **changes))["metadata"]["name"]
    )


def test_the_kubelet_of_another_node_may_not_ask(team: Team) -> None:
    """Kubernetes itself sees to that, and where a node names the right one in its stead our policy does, too."""
    team.make_run(command=python(FINISHES_WHEN_TOLD))
    found = team.run()
    pod = team.wait_running(found)
    metadata = {"name": SECOND["nodeName"]}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"unschedulable": True}}
    uid = team.client.create(node)["metadata"]["uid"]
    try:
        with pytest.raises(ApiError) as refused:
            asked_by(team, pod, "system:nodes", **{**SECOND, "nodeUID": uid})
    finally:
        team.client.delete("nodes", SECOND["nodeName"])
    assert refused.value.status == 403, refused.value
    with pytest.raises(ApiError) as refused:
        asked_by(team, pod, "system:nodes")
    assert refused.value.status == 403
    with pytest.raises(ApiError, match="only the kubelet of the pod's node can create"):
        # as one whom the API server does not hold to its node (no NodeRestriction)
        asked_by(team, pod, "system:masters")
    with team.without_policies("recipients"):
        check_empty(team, asked_by(team, pod, "system:masters"))
    team.tell_to_finish(found)
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"


def test_a_request_of_another_nodes_kubelet_is_refused_and_keeps_none_from_the_pod(team: Team) -> None:
    """Where nothing holds a kubelet to its node: it names its own, so that our policy lets it ask."""
    found = held(team)
    pod = team.pod(found)
    name = asked_by(team, pod, "system:masters", **SECOND)
    team.operator.start()
    check_refused(
        team, name, f"it names node {SECOND['nodeName']}, but the pod is bound to {pod['spec']['nodeName']}"
    )
    check_ended_well(team)
    told = condition(team.run(), "RequestsRefused")
    assert told["status"] == "False", "no trouble after success"
    assert name in told["message"], "it stays on record"


def test_a_second_request_for_a_pod_gets_nothing(team: Team) -> None:
    team.make_run(command=python(FINISHES_WHEN_TOLD))
    found = team.run()
    pod = team.wait_running(found)
    _, request = key_of_ours()
    with team.without_policies("recipients"):
        check_empty(team, make(team, forged(team, pod, request)))
    team.tell_to_finish(found)
    ended = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(ended) == "Succeeded", ended["status"]


def test_a_request_after_the_end_gets_nothing(team: Team) -> None:
    team.make_run()
    found = team.wait_phase("job", "Succeeded", "Failed")
    _, request = key_of_ours()
    with team.without_policies("recipients"):
        check_empty(team, make(team, forged(team, team.pod(found), request)))


def test_a_pod_that_no_run_made_gets_nothing(team: Team) -> None:
    team.make_run(command=python(FINISHES_WHEN_TOLD))
    found = team.run()
    pod = team.wait_running(found)
    names = {item["name"] for item in pod["spec"]["volumes"] if item["name"].startswith("runkeys-")}
    name = f"{team.object_name(found)}-copy"
    metadata = {
        "name": name,
        "namespace": team.namespace,
        "ownerReferences": pod["metadata"]["ownerReferences"],
    }
    copied = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "restartPolicy": "Never",
            "initContainers": [
                {**item, "volumeMounts": [m for m in item["volumeMounts"] if m["name"] in names]}
                for item in pod["spec"]["initContainers"]
            ],
            "containers": [{"name": "main", "image": TASK_IMAGE, "command": python(CHECKS_ITS_VARIABLE)}],
            "volumes": [item for item in pod["spec"]["volumes"] if item["name"] in names],
        },
    }
    # with the labels it is not even made
    labelled = {**copied, "metadata": {**metadata, "labels": pod["metadata"]["labels"]}}
    with pytest.raises(ApiError, match="are for pods of runs"):
        team.client.create(labelled)
    team.client.create(copied)

    def denied() -> list[Object]:
        listed = team.client.request("GET", path(team))["items"]
        return [
            item
            for item in listed
            if item["spec"]["podName"] == name
            and [one["type"] for one in item.get("status", {}).get("conditions", [])] == ["Denied"]
        ]

    wait_until("its request to be refused", lambda: bool(denied()))
    (request,) = denied()
    assert "does not belong to a WorkflowRun" in request["status"]["conditions"][0]["message"]
    assert certificates(team, request["metadata"]["name"]) == []
    team.client.delete("pods", name, team.namespace)
    team.tell_to_finish(found)
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"


def test_no_container_is_added_to_a_pod_that_was_delivered_to(team: Team) -> None:
    team.make_run(command=python(FINISHES_WHEN_TOLD))
    found = team.run()
    pod = team.wait_running(found)
    mount = {"name": "runkeys-recipient", "mountPath": "/stolen"}
    added = {"name": "thief", "image": TASK_IMAGE, "command": ["sleep", "9"], "volumeMounts": [mount]}
    where = f"/api/v1/namespaces/{team.namespace}/pods/{pod['metadata']['name']}/ephemeralcontainers"
    pod = team.client.request("GET", where)
    pod["spec"]["ephemeralContainers"] = [added]
    with pytest.raises(ApiError, match="no container can be added"):
        team.client.request("PUT", where, body=pod)
    team.tell_to_finish(found)
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"
