"""A provider as a container of the chart's pod: it reads for pods, and finds nothing of the operator's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from testing import examples
from testing.cluster import images
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster
from testing.namespace import canary, condition, make_namespace, python
from testing.operators import RELEASE
from testing.stores import csi
from tests.e2e.conftest import OwnNode
from tests.e2e.test_chart_install import SYSTEM, becomes_available, install, settled_node

pytestmark = pytest.mark.e2e

IMAGE = "localhost/runkeys-csi-provider:1"
ACCOUNT = "runkeys-provider"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


def values(state: Object) -> Object:
    """The values of the examples for AWS and Azure, with the tests' provider in place of the vendors'."""
    found: Object = {"stores": {"enabled": True, "audiences": [], "providers": []}, "replicas": 1}
    for cloud, shape in (("aws", csi.AWS), ("azure", csi.AZURE)):
        text = (csi.EXAMPLES / f"{cloud}-values.yaml").read_text()
        stores: Any = yaml.safe_load(text)["stores"]
        [provider] = stores["providers"]
        arguments = [f"-name={shape.name}", f"-shape={shape.name}", f"-audience={shape.audience}"]
        provider |= {"image": IMAGE, "args": ["-look", "-record=-", *arguments]}
        provider |= {"env": [{"name": "STATE", "value": json.dumps(state)}]}
        found["stores"]["audiences"] += stores["audiences"]
        found["stores"]["providers"].append(provider)
    return found


def printed(node: NodeCluster, pod: str, container: str) -> list[Object]:
    """Lines of JSON that a provider printed."""
    log = node.client.logs(pod, SYSTEM, container)
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def test_a_provider_reads_for_pods_and_finds_no_token(own_node: OwnNode, tmp_path: Path) -> None:
    node = settled_node(own_node)
    client = node.client
    node.load_image(images.program_image(IMAGE, csi.program(), "bin/csi-provider"))
    team, value = make_namespace(client, "team"), canary()
    # The strictest of Kubernetes' own standards for pods, for the provider's container too.
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels}})
    for manifest in yaml.safe_load_all((csi.EXAMPLES / "provider-account.yaml").read_text()):
        client.create(manifest)

    state = {
        "keys": csi.keys_of(client),
        "secrets": {"prod/api": json.dumps({"token": value})},
        "allowed": {f"system:serviceaccount:{team}:runner": ["prod/api"]},
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values(state)))
    install(node, RELEASE, SYSTEM, f"--values={file}")
    becomes_available(node, SYSTEM)

    # What there is in the containers, by programs in them. Azure's has no token; AWS's one of its own account, which
    # shows that the search finds one.
    [pod] = [item["metadata"]["name"] for item in client.list("pods", SYSTEM)]
    found = {name: printed(node, pod, f"provider-{name}")[0] for name in ("aws", "azure")}
    for inventory in found.values():
        assert inventory["files"] > 0
        assert inventory["user"] == images.USER
        assert not inventory["writable"]
        assert int(inventory["powers"], 16) == 0
    assert found["azure"]["tokens"] == {}
    assert TOKEN in found["aws"]["tokens"]
    assert set(found["aws"]["tokens"].values()) == {f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"}

    # It does what it is for.
    made = examples.cloud_store(team, RELEASE, SYSTEM)
    client.patch("namespaces", team, None, {"metadata": {"labels": {"cloud-stores": "yes"}}})
    container = made[-1]["spec"]["tasks"][0]["template"]["spec"]["containers"][0]
    code = "import os, hashlib; print(hashlib.sha256(os.environ['SECRET_API_TOKEN'].encode()).hexdigest())"
    container["command"] = python(code)
    for manifest in made[:-1]:
        client.create(manifest)
    client.wait_for(
        "secretstores", "aws", None, lambda item: condition(item, "Ready").get("status") == "True"
    )
    client.create(made[-1])
    run = client.wait_for(
        *("workflowruns", "hello-store", team),
        lambda item: item.get("status", {}).get("phase") in ("Succeeded", "Failed"),
    )
    assert run["status"]["phase"] == "Succeeded", run["status"]
    [task] = [item["metadata"]["name"] for item in client.list("pods", team)]
    assert client.logs(task, team).strip() == hashlib.sha256(value.encode()).hexdigest()
    (asked,) = printed(node, pod, "provider-aws")[1:]
    assert asked["account"] == f"system:serviceaccount:{team}:runner"
    assert (asked["pod"], asked["objects"], asked["error"]) == (task, ["prod/api"], "")
    assert value not in client.logs(pod, SYSTEM, "operator")
