"""Stores behind providers of the Secrets Store CSI driver: read as the pod, refused in words, and never shown.

No real cloud is tried. The providers are programs of the tests, in the shapes of three vendors' own and on the driver's
protocol, and the driver's own fake. What stands for a cloud checks the pod's token and whom it is of.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runkeys.api.store import CsiStore
from runkeys_operator.stores.csi import Csi, Providers
from runkeys_operator.stores.provider import Failure, Identity, StoreError
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster
from testing.namespace import HELD_BACK, Team, condition, phase, python
from testing.namespace import run as namespace_run
from testing.people import give, person
from testing.stores import csi
from testing.stores.csi import AWS, AZURE, GOOGLE, SHAPES, Clouds, Shape
from testing.stores.openbao import OpenBao
from testing.stores.openbao import store as bao_store
from tests.e2e.delivery.conftest import IMAGE
from tests.e2e.delivery.test_main_path import places_of
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.stores.conftest import ACCOUNT, open_tokens
from tests.e2e.stores.test_policies import asked, refusal
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e

AUDIENCES = (*(shape.audience for shape in SHAPES), "bao")
SETS = ("stores.enabled=true", f"stores.audiences={{{','.join(AUDIENCES)}}}")
READ_ALL = [f"--store-audience={audience}" for audience in AUDIENCES]


class CloudTeam(Team):
    """A team with a SecretStore for each cloud, named by its namespace and the cloud."""

    clouds: Clouds

    @property
    def account(self) -> str:
        """The account of its pods."""
        return f"system:serviceaccount:{self.namespace}:{ACCOUNT}"

    @property
    def content(self) -> str:
        """What is in each cloud: a JSON object with the value under ``token``."""
        return json.dumps({"token": self.value, "port": 5432})

    def path(self, shape: Shape) -> str:
        """Where it is."""
        return shape.path.format(self.namespace)

    def entry(self, shape: Shape, name: str = "token", **changed: Any) -> Object:
        """An entry of a binding that is its value, changed by fields of ``value``; None takes one away."""
        value = {
            "store": f"{self.namespace}-{shape.name}",
            "role": "reader",
            "path": self.path(shape),
            "field": "token",
            **changed,
        }
        return {"name": name, "value": {key: item for key, item in value.items() if item is not None}}

    def bind(self, *entries: Object, name: str = "keys", **spec: Any) -> None:
        """Make a binding for every run."""
        self.make_binding(name, secrets=list(entries), **spec)

    def make_store_run(self, name: str = "job", **changed: Any) -> Object:
        """A run as the account that the namespace opens to stores."""
        return self.make_run(name, **{"serviceAccountName": ACCOUNT, **changed})

    def stalled(self, name: str, reason: str) -> str:
        """Wait until the run says why it waits, and return that."""
        found = self.wait_condition(name, "Stalled", "True", reason)
        assert self.live_secrets() == []
        message = str(condition(found, "Stalled")["message"])
        assert self.value not in message
        return message


@pytest.fixture
def cloud_team(
    new_team: TeamMaker, cluster: Cluster, request: pytest.FixtureRequest
) -> Iterator[Callable[..., CloudTeam]]:
    """Make teams whose values are in clouds; further arguments and values of the chart come last."""
    made: list[str] = []

    def make(*arguments: str, sets: tuple[str, ...] = ()) -> CloudTeam:
        clouds = request.getfixturevalue("clouds")
        providers = f"--store-providers={clouds.folder}"
        plain = new_team(*READ_ALL, providers, *arguments, sets=(*SETS, *sets), sources=())
        team = CloudTeam(plain.cluster, plain.namespace, plain.operator, plain.value)
        team.clouds = clouds
        for shape in SHAPES:
            clouds.put(team.path(shape), team.content)
            made.append(f"{team.namespace}-{shape.name}")
            team.client.create(csi.store(made[-1], shape))
        clouds.allow(team.account, *(team.path(shape) for shape in SHAPES))
        account = {"apiVersion": "v1", "kind": "ServiceAccount"}
        for name in (ACCOUNT, "other"):
            team.client.create({**account, "metadata": {"name": name, "namespace": team.namespace}})
        open_tokens(team, ACCOUNT, "other")
        return team

    yield make
    for name in made:
        cluster.client.delete("secretstores", name, missing_ok=True)


@pytest.fixture
def clouds(cluster: Cluster) -> Iterator[Clouds]:
    """A provider of each shape."""
    with csi.running(cluster.client, *SHAPES) as found:
        yield found


@pytest.fixture
def team(cloud_team: Callable[..., CloudTeam]) -> CloudTeam:
    """Such a team, with the operator running."""
    return cloud_team()


def succeeds(team: CloudTeam, name: str = "job") -> Object:
    found = team.wait_phase(name, "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    return found


def check_tokens_are_nowhere(team: CloudTeam, node: NodeCluster, mark: int) -> None:
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
    team: CloudTeam, shape: Shape, node: NodeCluster
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
    team.make_store_run(task={"secrets": []}, command=python("import time; time.sleep(3600)"))
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
    node: NodeCluster,
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


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_what_a_cloud_refuses_is_said_and_waited_for(team: CloudTeam, shape: Shape) -> None:
    clouds, path, where = team.clouds, team.path(shape), f"SecretStore {team.namespace}-{shape.name}"
    absent = f"{path}-absent"
    clouds.allow(team.account, path, absent)
    cases: dict[str, tuple[Object, str, str]] = {
        "field": (
            team.entry(shape, field="tokn"),
            "SourceKeyMissing",
            f"path {path} of {where} has no field 'tokn'; its fields: port, token",
        ),
        "absent": (
            team.entry(shape, path=absent),
            "SourceNotFound",
            f"nothing is at path {absent} of {where}; write it there, or name another path",
        ),
        "right": (
            team.entry(shape, path=f"{path}-others"),
            "SourceForbidden",
            f"path {path}-others of {where}: the pod's service account may not read it; the log of container",
        ),
    }
    for name, (entry, _, _) in cases.items():
        team.bind(entry, name=name)
        team.make_store_run(name, bindings=[{"name": name}])
    for name, (_, reason, words) in cases.items():
        message = team.stalled(name, reason)
        assert words in message, message
        assert f"entry 'token' of SecretBinding {name}" in message
    # It is mended in the cloud, and the pods have their values.
    for other in (absent, f"{path}-others"):
        clouds.put(other, team.content)
    clouds.allow(team.account, path, absent, f"{path}-others")
    for name in ("absent", "right"):
        succeeds(team, name)

    # A cloud that does not know the cluster's keys, and an account that it knows nothing of.
    team.bind(team.entry(shape))
    clouds.trust({"keys": []})
    team.make_store_run("untrusted")
    message = team.stalled("untrusted", "StoreLoginRefused")
    words = f"{where}: the cloud of provider {shape.name} does not accept the pod's service account"
    assert words in message, message
    assert f"log of container provider-{shape.name}" in message
    clouds.trust()
    succeeds(team, "untrusted")
    team.make_store_run("other", serviceAccountName="other")
    team.stalled("other", "SourceForbidden")
    assert team.object_name(team.run("other")) in team.jobs()


def test_a_provider_that_is_away_when_the_pod_is_bound_is_waited_for(team: CloudTeam) -> None:
    name = f"{team.namespace}-aws"

    def ready(expected: str) -> Object:
        found = team.client.wait_for(
            *("secretstores", name, None), lambda item: condition(item, "Ready").get("status") == expected
        )
        return condition(found, "Ready")

    ready("True")
    team.bind(team.entry(AWS))
    team.make_store_run(pod=HELD_BACK)
    team.pod(team.run())
    team.clouds.stop("aws")
    team.let_go(team.run())
    message = team.stalled("job", "SourceUnavailable")
    socket = team.clouds.folder / "aws" / "aws.sock"
    words = f"provider aws at {socket} is not there; see container provider-aws of the operator's pod"
    assert f"SecretStore {name}: {words}; it is asked again" in message

    # Whoever looks at the store, or writes a binding now, is told the same; Azure's is another one.
    changed = {"spec": {"csi": {"parameters": {"more": "x"}}}}
    team.client.patch("secretstores", name, None, changed)
    found = ready("False")
    assert (found["reason"], words in found["message"]) == ("SourceUnavailable", True)
    team.bind(team.entry(AWS), name="early")
    found = condition(
        team.client.wait_for(
            *("secretbindings", "early", team.namespace),
            lambda item: condition(item, "Ready").get("status") == "False",
        ),
        "Ready",
    )
    assert words in found["message"]
    team.bind(team.entry(AZURE), name="azure")
    team.make_store_run("azure", bindings=[{"name": "azure"}])
    succeeds(team, "azure")

    team.clouds.start("aws", audience=AWS.audience)
    succeeds(team)


def test_entries_that_do_not_fit_the_kind_of_store(team: CloudTeam, shared_bao: OpenBao) -> None:
    where = f"SecretStore {team.namespace}-aws"
    team.client.create(bao_store(shared_bao, f"{team.namespace}-bao"))
    vault = {"store": f"{team.namespace}-bao", "path": "kv/data/a"}
    cases: dict[str, tuple[Object, str]] = {
        "breaks-out": (
            team.entry(AWS, path='a",objectType:"ssmparameter'),
            f"has characters that could change the parameters of {where}",
        ),
        "no-role": (
            team.entry(AZURE, role=None),
            f"the parameters of SecretStore {team.namespace}-azure need role",
        ),
        "bare": ({"name": "token", "value": vault}, "whose entries name role and field too"),
    }
    try:
        for name, (entry, words) in cases.items():
            team.bind(entry, name=name)
            team.make_store_run(name, bindings=[{"name": name}])
            message = team.stalled(name, "BindingInvalid")
            assert words in message, message
            assert team.object_name(team.run(name)) not in team.jobs(), "known before there is a pod"
    finally:
        team.client.delete("secretstores", f"{team.namespace}-bao")
    assert team.clouds.asked("aws") == []


def test_who_may_use_it_and_which_tokens_the_operator_may_request(team: CloudTeam) -> None:
    name = f"{team.namespace}-aws"
    alice = person(team, "alice", use=("keys",))
    made = {"apiVersion": "runkeys.dev/v1alpha1", "kind": "SecretBinding", "metadata": {"name": "keys"}}
    made |= {"metadata": {"name": "keys", "namespace": team.namespace}}
    made |= {"spec": {"secrets": [team.entry(AWS)], "access": [{"runSelector": {}}]}}
    assert f"alice may not use SecretStore {name}, which spec.secrets names" in refusal(alice.client, made)
    give(
        team,
        "use-store",
        "alice",
        [
            {
                "apiGroups": ["runkeys.dev"],
                "resources": ["secretstores"],
                "resourceNames": [name],
                "verbs": ["use"],
            }
        ],
    )
    wait_until("alice to use the store", lambda: not refusal(alice.client, made))

    team.bind(team.entry(AWS))
    team.make_store_run(pod=HELD_BACK)
    pod = team.pod(team.run())["metadata"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": pod["uid"]}
    operator = team.client.as_user(f"system:serviceaccount:{team.namespace}:runkeys")

    def told(audience: str) -> str:
        labels = {"runkeys.dev/store": name}
        return asked(operator, team, labels=labels, boundObjectRef=bound, audiences=[audience])

    assert told(AWS.audience) == ""
    assert "the audience of the token is not that of the SecretStore" in told(GOOGLE.audience)
    assert "for one audience" in told("vault")


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


def test_without_providers_there_are_none(new_team: TeamMaker, cluster: Cluster) -> None:
    team = new_team(*READ_ALL, sets=SETS, sources=())
    name = f"{team.namespace}-aws"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}
    team.client.create(account, team.namespace)
    team.client.create(csi.store(name, AWS))
    try:
        words = f"SecretStore {name} is read by provider 'aws', and no provider runs beside the operator"
        found = team.client.wait_for(
            *("secretstores", name, None), lambda item: condition(item, "Ready").get("status") == "False"
        )
        assert words in condition(found, "Ready")["message"]
        value = {"store": name, "path": "a"}
        team.make_binding(secrets=[{"name": "token", "value": value}])
        team.make_run(serviceAccountName=ACCOUNT)
        found = team.wait_condition("job", "Stalled", "True", "StoresUnavailable")
        assert words in condition(found, "Stalled")["message"]
    finally:
        cluster.client.delete("secretstores", name)


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
