"""What providers and their clouds do not give: the pod waits, its status says why, and nothing is shown."""

from __future__ import annotations

import pytest

from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import Object
from testing.namespace import HELD_BACK, condition
from testing.people import give, person
from testing.stores import csi
from testing.stores.csi import AWS, AZURE, GOOGLE, SHAPES, Shape
from testing.stores.openbao import OpenBao
from testing.stores.openbao import store as bao_store
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.stores.conftest import ACCOUNT
from tests.e2e.stores.csi.conftest import READ_ALL, SETS, CloudTeam, succeeds
from tests.e2e.stores.test_policies import asked, refusal

pytestmark = pytest.mark.e2e


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

    def told(item: Object) -> bool:
        """By the team's own operator: those of other tests write first that it is none of theirs."""
        found = condition(item, "Ready")
        return found.get("reason") == "SourceUnavailable" and words in found["message"]

    team.client.wait_for("secretstores", name, None, told)
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
    leased = {"name": "token", "lease": team.entry(AWS)["value"]}
    cases["lease"] = leased, f"{where} is read by provider aws, and what it opens cannot be revoked"
    try:
        for name, (entry, words) in cases.items():
            team.bind(entry, name=name)
            team.make_store_run(name, bindings=[{"name": name}])
            message = team.stalled(name, "LeasesUnavailable" if name == "lease" else "BindingInvalid")
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
    assert "audience" in told("vault"), "two policies refuse it, and the API server names either"


def test_without_providers_there_are_none(new_team: TeamMaker, cluster: Cluster) -> None:
    team = new_team(*READ_ALL, sets=SETS, sources=())
    name = f"{team.namespace}-aws"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}
    team.client.create(account, team.namespace)
    team.client.create(csi.store(name, AWS))
    try:
        words = f"SecretStore {name} is read by provider 'aws', and no provider runs beside the operator"
        value = {"store": name, "path": "a"}
        team.make_binding(secrets=[{"name": "token", "value": value}])
        team.make_run(serviceAccountName=ACCOUNT)
        found = team.wait_condition("job", "Stalled", "True", "StoresUnavailable")
        assert words in condition(found, "Stalled")["message"]
    finally:
        cluster.client.delete("secretstores", name)
