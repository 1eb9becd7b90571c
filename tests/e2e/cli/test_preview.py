"""`plan`, `who-can` and `doctor` against a real cluster, whatever is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.namespace import Team, run
from testing.people import give, sealed_entry
from testing.workflows import task
from tests.e2e.cli.conftest import UserMaker
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e


def write(user: Terminal, manifest: object) -> str:
    (user.folder / "run.yaml").write_text(yaml.safe_dump(manifest))
    return "run.yaml"


def test_plan_shows_what_then_happens(team: Team, alice: Terminal) -> None:
    team.make_binding("more", secrets=[sealed_entry(team, "x", binding="more", entry="sealed one")])
    body = run(team.namespace)
    body["spec"] |= {
        "bindings": [{"name": "keys"}],
        "tasks": [
            task("first", secret=True),
            task("second", dependsOn=["first"], secrets=[{"name": "f", "secret": "token", "file": "t.txt"}]),
        ],
    }
    done = alice.run("plan", "-f", write(alice, body))
    assert done.code == 0, done
    assert done.out == (
        "TASK    AFTER  GETS              FROM                                   RELEASE       AT MOST\n"
        "first   –      SECRET_API_TOKEN  keys/token (Secret source, key token)  OnCompletion  3600s\n"  # noqa: RUF001
        "second  first  file t.txt        keys/token (Secret source, key token)  OnCompletion  3600s\n"
        "Starts at once: first\n"
    )
    assert team.client.list("workflowruns", team.namespace) == []
    planned = json.loads(alice.ok("plan", "-f", "run.yaml", "-o", "json"))["jobs"][0]
    alice.ok("run", "-f", "run.yaml")
    stored = team.run()
    team.wait_pod(stored, bool)
    made = team.client.get("jobs", team.object_name(stored), team.namespace)
    for part in ("backoffLimit", "podReplacementPolicy", "ttlSecondsAfterFinished"):
        assert made["spec"][part] == planned["spec"][part]
    (real,) = made["spec"]["template"]["spec"]["containers"]
    (shown,) = planned["spec"]["template"]["spec"]["containers"]
    assert [item["name"] for item in real["env"]] == [item["name"] for item in shown["env"]]
    assert real["command"] == shown["command"]


def test_plan_shows_what_a_template_is_made_of_and_what_a_store_takes(
    team: Team, alice: Terminal, tmp_path: Path
) -> None:
    entries = [
        {"name": "token", "secretKeyRef": {"name": "source", "key": "token"}},
        {"name": "api", "value": {"store": "bao", "role": "team-a", "path": "kv/data/a", "field": "token"}},
        {"name": "header", "template": "Authorization: {{ token }} {{ api }}"},
        {"name": "wrong", "template": "{{ tokne }}"},
    ]
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"secrets": entries}})
    header = [{"name": "h", "secret": "header", "file": "h"}]
    done = alice.run("plan", "-f", write(alice, run(team.namespace, task={"secrets": header})))
    assert "keys/header (template of token, api)" in done.out
    assert "service account default reads from SecretStore bao, with the store's role team-a" in done.out
    allow = "create role runkeys-store-default --verb=create --resource=serviceaccounts/token --resource-name=default"
    assert allow in done.out

    admin = Terminal(tmp_path, {"KUBECONFIG": str(team.cluster.kubeconfig)})
    done = admin.run("-n", team.namespace, "plan", "-f", str(alice.folder / "run.yaml"))
    assert done.code == 5, done
    assert "Problem: there is no SecretStore bao; an administrator of the cluster can create it" in done.out

    wrong = [{"name": "w", "secret": "wrong"}]
    done = alice.run("plan", "-f", write(alice, run(team.namespace, task={"secrets": wrong})))
    assert done.code == 5, done
    assert "spec.secrets[3].template, entry 'wrong': it refers to 'tokne'" in done.out


def test_plan_and_doctor_speak_of_leases(team: Team, tmp_path: Path) -> None:
    name = f"bao-{team.namespace}"
    lease = {"store": name, "role": "team-a", "path": "database/creds/readonly", "field": "password"}
    entries = [{"name": "token", "lease": lease}]
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"secrets": entries}})
    # No operator here has this audience, so none has its own word about the store.
    auth = {"method": "jwt", "mount": "jwt", "audience": name}
    spec: Object = {"vault": {"address": "https://127.0.0.1:1", "auth": auth}, "namespaces": {}}
    team.client.create(
        {
            "apiVersion": "runkeys.dev/v1alpha1",
            "kind": "SecretStore",
            "metadata": {"name": name},
            "spec": spec,
        }
    )
    admin = Terminal(tmp_path, {"KUBECONFIG": str(team.cluster.kubeconfig)})
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Reachable",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }

    def said(*conditions: Object) -> tuple[str, list[str]]:
        """As the operator of another namespace would say it: this one has no stores."""
        generation = team.client.get("secretstores", name)["metadata"]["generation"]
        status = {"observedGeneration": generation, "conditions": list(conditions)}
        team.client.patch("secretstores", name, None, {"status": status}, subresource="status")
        plan = admin.run(
            "-n", team.namespace, "plan", "-f", write(admin, run(team.namespace, serviceAccountName="runner"))
        )
        rows = json.loads(admin.run("-n", team.namespace, "doctor", "-o", "json").out)["findings"]
        return plan.out, [row["found"] for row in rows if row["check"] == "stores"]

    try:
        plan, doctor = said(ready)
        assert (
            f"a credential is created at database/creds/readonly of SecretStore {name}, and revoked when"
            in plan
        )
        words = f"SecretStore {name} has no spec.vault.revoker"
        assert f"Problem: {words}" in plan
        assert [row for row in doctor if row.startswith(words)] != []

        team.client.patch("secretstores", name, None, {"spec": {"vault": {"revoker": {"role": "ends"}}}})
        refused = {**ready, "type": "LeasesReady", "status": "False", "reason": "StoreLoginRefused"}
        plan, doctor = said(ready, {**refused, "message": "no such role"})
        words = f"leases of SecretStore {name} could not be revoked: StoreLoginRefused, no such role"
        assert f"Problem: {words}" in plan
        assert words in doctor

        plan, doctor = said(ready, {**ready, "type": "LeasesReady"})
        assert "could not be revoked" not in plan
        assert f"leases of SecretStore {name} are revoked as role ends" in doctor
    finally:
        team.client.delete("secretstores", name)


def test_plan_says_who_lacks_what_and_the_command_mends_it(team: Team, user: UserMaker) -> None:
    bob = user("bob", use=())
    file = write(bob, run(team.namespace))
    done = bob.run("plan", "-f", file)
    assert done.code == 4, done
    name = f"system:serviceaccount:{team.namespace}:bob"
    assert f"Problem: {name} may not use SecretBinding keys" in done.out
    command = done.out.partition("an administrator of the namespace can allow it: ")[2].splitlines()[0]
    team.cluster.run("sh", "-c", command)
    assert bob.run("plan", "-f", file).code == 0
    rows = bob.run("who-can", "use", "keys")
    assert rows.code == 4, rows  # roles are for administrators to see


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"bindings": [{"name": "absent"}]}, 5, "there is no SecretBinding absent"),
        ({"task": {"secrets": [{"name": "a", "secret": "absent"}]}}, 5, "no secret 'absent' in keys"),
        ({"serviceAccountName": "Bad_Name"}, 5, "the API server refuses the Job of task work"),
        (
            {"task": {"secrets": [{"name": "a", "secret": "token", "env": "X", "file": "x"}]}},
            5,
            "either as a variable (env) or as a file",
        ),
    ],
    ids=["binding", "secret", "template", "schema"],
)
def test_plan_names_what_is_in_the_way(
    team: Team, changes: dict[str, object], code: int, says: str, tmp_path: Path
) -> None:
    admin = Terminal(tmp_path, {"KUBECONFIG": str(team.cluster.kubeconfig)})
    body = run(team.namespace, **changes)  # type: ignore[arg-type]
    done = admin.run("-n", team.namespace, "plan", "-f", write(admin, body))
    assert done.code == code, done
    assert says in done.out


def test_who_can(team: Team, user: UserMaker, tmp_path: Path) -> None:
    user("bob")
    admin = Terminal(tmp_path, {"KUBECONFIG": str(team.cluster.kubeconfig)})
    out = admin.ok("-n", team.namespace, "who-can", "use", "keys")
    assert any(line.split()[:2] == ["ServiceAccount", f"{team.namespace}:bob"] for line in out.splitlines())
    assert "Admits runs: with any labels\n" in out
    assert admin.run("-n", team.namespace, "who-can", "use", "absent").code == 3


def checks(user: Terminal) -> dict[str, tuple[str, str]]:
    done = user.run("doctor", "-o", "json")
    found = json.loads(done.out)["findings"]
    return {item["check"]: (item["state"], item["remedy"] or item["found"]) for item in found}


def deployment(team: Team, *, version: str) -> dict[str, object]:
    labels = {"app.kubernetes.io/name": "runkeys", "app.kubernetes.io/version": version}
    pod = {"containers": [{"name": "operator", "image": "localhost/none:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "runkeys", "namespace": team.namespace, "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod},
        },
    }


def test_doctor_finds_each_thing(team: Team, tmp_path: Path) -> None:
    more = {"KUBECONFIG": str(team.cluster.kubeconfig), "RUNKEYS_OPERATOR_NAMESPACE": team.namespace}
    admin = Terminal(tmp_path, more)
    found = checks(admin)
    assert found["cluster"][0] == "ok"
    assert found["kinds"][0] == "ok"
    assert found["keys"][0] == "ok"
    assert found["policies"][0] == "ok", found["policies"]
    assert found["operator"][0] == "problem"
    assert "install the chart" in found["operator"][1]
    assert admin.run("doctor").code == 6
    team.client.create(deployment(team, version="0.0.1"))
    found = checks(admin)
    assert "describe deploy runkeys" in found["operator"][1]
    assert found["versions"][0] == "warning"


def test_doctor_says_that_who_may_change_secrets_reads_them(team: Team, user: UserMaker) -> None:
    bob = user("bob", may=False)
    account = f"system:serviceaccount:{team.namespace}:bob"
    told(bob, "secrets", "ok", f"{account} has no right to all Secrets in namespace {team.namespace}")
    secrets = {"apiGroups": [""], "resources": ["secrets"]}
    give(team, "changes", account, [{**secrets, "verbs": ["patch", "delete"]}])
    as_good = (
        f"{account} may patch, delete Secrets in namespace {team.namespace}: that is as good as reading them"
    )
    told(bob, "secrets", "warning", as_good)
    give(team, "reads", account, [{**secrets, "verbs": ["get"]}])
    told(bob, "secrets", "ok", "and so can read them")


def told(user: Terminal, check: str, state: str, says: str) -> None:
    """Wait until it is found to be so: a right is known a moment after it was given."""

    def found() -> bool:
        items = json.loads(user.run("doctor", "-o", "json").out)["findings"]
        return any(
            item["check"] == check and item["state"] == state and says in item["found"] for item in items
        )

    wait_until(f"doctor to say: {says}", found, every=0.5)


def test_doctor_says_that_the_key_is_another_one(alice: Terminal) -> None:
    alice.ok("secret", "set", "a", stdin="x")
    assert checks(alice)["keys"][0] == "ok"
    path = alice.folder / "config" / "trusted-keys.json"
    path.write_text(path.read_text().replace("-", "0"))
    state, remedy = checks(alice)["keys"]
    assert state == "problem"
    assert "runkeys config trust-key" in remedy


def test_doctor_says_which_policy_is_another_one(team: Team, tmp_path: Path) -> None:
    more = {"KUBECONFIG": str(team.cluster.kubeconfig), "RUNKEYS_OPERATOR_NAMESPACE": team.namespace}
    admin = Terminal(tmp_path, more)
    kind, name = "validatingadmissionpolicies", f"runkeys-frozen.{team.namespace}.runkeys"
    team.client.patch(kind, name, None, {"spec": {"failurePolicy": "Ignore"}})
    done = admin.run("doctor")
    assert f"{name} differs from this version's in spec.failurePolicy" in done.out
    team.client.delete(kind, name)
    assert f"ValidatingAdmissionPolicy {name} is missing" in admin.run("doctor").out
    nowhere = admin.run("--operator-namespace", "default", "doctor")
    assert "there are no policies for an operator in namespace default" in nowhere.out
