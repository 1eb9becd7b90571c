"""Stores behind providers of the Secrets Store CSI driver: read as the pod, refused in words, and never shown.

No real cloud is tried. The providers are programs of the tests, in the shapes of three vendors' own and on the driver's
protocol, and the driver's own fake. What stands for a cloud checks the pod's token and whom it is of.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from runkeys.api.store import CsiStore
from runkeys_operator.stores.csi import Csi, Providers
from runkeys_operator.stores.provider import Failure, Identity, StoreError
from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.namespace import HELD_BACK, condition, python
from testing.namespace import run as namespace_run
from testing.stores import csi
from testing.stores.csi import AWS, AZURE, SHAPES, Shape
from tests.e2e.delivery.conftest import IMAGE
from tests.e2e.delivery.test_main_path import places_of
from tests.e2e.stores.conftest import ACCOUNT
from tests.e2e.stores.csi.conftest import CloudTeam, succeeds
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e


def check_tokens_are_nowhere(team: CloudTeam, node: Cluster, mark: int) -> None:
    """The tokens that providers were given are not in etcd, in the operator's log or in the audit log."""
    tokens = team.clouds.tokens()
    assert tokens
    log = team.operator.log.read_bytes()
    for token in tokens:
        forms = [token.encode(), token.encode()[-40:]]
        assert not node.etcd.find(*forms, since=team.since)
        assert [form for form in forms if form in log] == []
        assert [str(event) for form in forms for event in node.audit.find(form, mark)] == []
    # The search finds one that is there.
    token = min(tokens)
    planted = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"value": token}}
    team.client.create({**planted, "metadata": {"name": "planted-token", "namespace": team.namespace}})
    assert node.etcd.find(token.encode(), since=team.since)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_run_has_its_value_and_the_cloud_knows_the_pod(
    team: CloudTeam, shape: Shape, node: Cluster
) -> None:
    mark = node.audit.mark()
    team.bind(team.entry(shape))
    team.make_store_run(pod=HELD_BACK)
    run = team.run()
    name = team.pod(run)["metadata"]["name"]
    assert team.clouds.asked(shape.name) == [], "nothing is read before the pod has a node"

    team.let_go(run)
    found = succeeds(team)
    assert team.output(found) == f"sha256 {team.digest}\n"
    assert team.secret_story() == ["made", "gone"]
    (request,) = team.clouds.asked(shape.name)
    assert (request["account"], request["pod"], request["error"]) == (team.account, name, "")
    assert request["objects"] == [team.path(shape)]
    check_tokens_are_nowhere(team, node, mark)
    assert team.value not in team.operator.text()


def test_control_the_clouds_look_at_the_token(team: CloudTeam) -> None:
    """Without the pod's own token nothing is given: what the other tests see is the operator's doing."""
    team.make_store_run(bindings=[], task={"secrets": []}, command=python("import time; time.sleep(3600)"))
    pod = team.pod(team.run())["metadata"]

    def token(account: str, audience: str, *, bound: bool = True) -> str:
        body: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": 600},
        }
        if bound:
            reference = {"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": pod["uid"]}
            body["spec"]["boundObjectRef"] = reference
        path = f"/api/v1/namespaces/{team.namespace}/serviceaccounts/{account}/token"
        return str(team.client.request("POST", path, body=body)["status"]["token"])

    async def read(given: str) -> Failure | None:
        spec = csi.store("x", AWS)["spec"]["csi"]
        store = Csi(Providers(team.clouds.folder), CsiStore.model_validate(spec))
        try:
            answer = await store.read(await store.open(Identity("", given)), team.path(AWS))
        except StoreError as error:
            return error.failure
        assert answer.content == team.content.encode()
        return None

    good = token(ACCOUNT, AWS.audience)
    forged = ".".join((*good.split(".")[:2], "A" * len(good.split(".")[2])))
    assert asyncio.run(read(good)) is None
    assert asyncio.run(read(forged)) is Failure.LOGIN
    assert asyncio.run(read(token(ACCOUNT, AWS.audience, bound=False))) is Failure.LOGIN
    assert asyncio.run(read(token(ACCOUNT, "bao"))) is Failure.LOGIN
    team.clouds.allow(team.account)
    assert asyncio.run(read(good)) is Failure.FORBIDDEN


def test_delivered_sealed_the_value_is_never_in_etcd(
    cloud_team: Callable[..., CloudTeam],
    opener: None,  # noqa: ARG001
    node: Cluster,
) -> None:
    team = cloud_team(*IMAGE, sets=("sealedDelivery.enabled=true",))
    mark = node.audit.mark()
    team.bind(*(team.entry(shape, shape.name) for shape in SHAPES), delivery="Sealed")
    names = [shape.name for shape in SHAPES]
    code = (
        "import os, hashlib\n"
        f"for n in {names}: print(hashlib.sha256(os.environ['SECRET_' + n.upper()].encode()).hexdigest())"
    )
    task = {"secrets": [{"name": name, "secret": name} for name in names]}
    team.make_store_run(task=task, command=python(code))
    found = succeeds(team)
    assert team.output(found).split() == [team.digest] * 3
    assert places_of(team, node) == set()
    assert team.secret_story() == [], "no Secret was made at any time"
    check_tokens_are_nowhere(team, node, mark)


def test_the_whole_content_and_its_fields_in_one_read_of_each_path(team: CloudTeam) -> None:
    team.clouds.put("plain", "of one line\n")
    team.clouds.allow(team.account, team.path(AWS), "plain")
    entries = (
        team.entry(AWS, "all", field=None),
        team.entry(AWS, "token"),
        team.entry(AWS, "port", field="port"),
        team.entry(AWS, "plain", field=None, path="plain", role=None),
        {"name": "url", "template": "x://{{ token }}:{{ port }}"},
    )
    team.bind(*entries)
    names = ["all", "token", "port", "plain", "url"]
    code = (
        "import os, hashlib\n"
        f"for n in {names}: print(hashlib.sha256(os.environ['SECRET_' + n.upper()].encode()).hexdigest())"
    )
    task = {"secrets": [{"name": name, "secret": name} for name in names]}
    team.make_store_run(task=task, command=python(code))
    expected = [team.content, team.value, "5432", "of one line\n", f"x://{team.value}:5432"]
    found = succeeds(team)
    assert team.output(found).split() == [hashlib.sha256(text.encode()).hexdigest() for text in expected]
    assert sorted(item["objects"] for item in team.clouds.asked("aws")) == [["plain"], [team.path(AWS)]]


def test_plan_and_doctor_speak_of_it(team: CloudTeam, tmp_path: Path) -> None:
    for shape in (AWS, AZURE):
        team.client.wait_for(
            *("secretstores", f"{team.namespace}-{shape.name}", None),
            lambda item: condition(item, "Ready").get("status") == "True",
        )
    user = Terminal(tmp_path, {"KUBECONFIG": str(team.cluster.kubeconfig)})
    entries = (team.entry(AWS, field=None, role=None), team.entry(AZURE, "azure", role=None))
    team.bind(*entries)
    file = tmp_path / "run.yaml"
    asked_for = {"secrets": [{"name": "api_token", "secret": "token"}]}
    file.write_text(yaml.safe_dump(namespace_run(team.namespace, serviceAccountName=ACCOUNT, task=asked_for)))
    done = user.run("-n", team.namespace, "plan", "-f", str(file))
    where = f"SecretStore {team.namespace}-aws"
    assert f"keys/token ({where}, {team.path(AWS)})" in done.out
    assert f"service account {ACCOUNT} reads from {where}\n" in f"{done.out}\n"
    assert "Problem" not in done.out
    asked_for["secrets"].append({"name": "b", "secret": "azure"})
    file.write_text(yaml.safe_dump(namespace_run(team.namespace, serviceAccountName=ACCOUNT, task=asked_for)))
    done = user.run("-n", team.namespace, "plan", "-f", str(file))
    words = f"Problem: the parameters of SecretStore {team.namespace}-azure need role, which the entry lacks"
    assert words in " ".join(done.out.split()), done.out
    found = " ".join(user.run("-n", team.namespace, "doctor").out.split())
    assert f"{where} is ready; 1 values in namespace {team.namespace}" in found
    assert f"roles of {where}" not in found


def test_the_drivers_own_fake_provider_is_served(team: CloudTeam) -> None:
    """Of the driver's Go module: another server of the protocol than ours. It checks nothing."""
    name = f"{team.namespace}-fake"
    fake = Shape("fake", AWS.audience, {"objects": "{{ path }}"}, "")
    team.clouds.empty()
    team.clouds.put("a-file", team.value)
    team.clouds.start("fake", shape="driver")
    team.client.create(csi.store(name, fake))
    try:
        team.bind(team.entry(fake, store=name, path="anything", role=None, field=None))
        team.make_store_run()
        assert team.output(succeeds(team)) == f"sha256 {team.digest}\n"
    finally:
        team.client.delete("secretstores", name)
