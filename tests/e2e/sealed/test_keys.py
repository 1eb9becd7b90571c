"""The sealing keys: made, rotated, retired, saved and restored, with values sealed under each of them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from runkeys.sealing import BindingEntry, NamespaceEntry, PublicKey, seal
from runkeys_operator.values.keys import CURRENT, PRIVATE, PUBLIC
from testing.cluster.base import wait_until
from testing.cluster.faults import Request
from testing.cluster.node import NodeCluster
from testing.cluster.proxy import ApiProxy
from testing.namespace import Team, condition, phase, team_in
from testing.operators import install_crds
from testing.people import public_key, sealed_entry
from tests.conftest import FULL
from tests.e2e.conftest import OwnNode
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def team(new_team: TeamMaker) -> Team:
    """A team without a source."""
    return new_team()


def keys_command(team: Team, *words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    """``keys …`` as somebody runs it in the operator's pod: with the operator's own account."""
    command = [
        sys.executable,
        "-m",
        "runkeys_operator",
        *team.operator.connection,
        "--namespace",
        team.namespace,
    ]
    return subprocess.run(
        [*command, "keys", *words],
        input=input,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def ids(team: Team) -> list[str]:
    """Of the keys that are listed, the newest first."""
    return [line.split()[0] for line in said(keys_command(team, "list")).splitlines()[1:]]


def test_the_first_start_makes_a_key_that_everybody_can_seal_with(team: Team) -> None:
    key = public_key(team)
    anybody = team.client.as_user("anybody", "system:authenticated")
    assert anybody.get("configmaps", PUBLIC, team.namespace)["data"][CURRENT] == key.text
    private = team.client.get("secrets", PRIVATE, team.namespace)
    assert private["type"] == "runkeys.dev/sealing-keys"
    [(name, _)] = private["data"].items()
    assert name.endswith(f".{key.key_id}")
    assert f"sealing key {key.key_id} created, fingerprint {key.fingerprint}" in team.operator.text()

    # once: not again after a restart
    team.operator.wait_serving()
    team.operator.stop_cleanly()
    team.operator.start()
    team.operator.wait_serving()
    team.make_binding(secrets=[sealed_entry(team, team.value)])
    team.make_run()
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"
    assert list(team.client.get("secrets", PRIVATE, team.namespace)["data"]) == [name]


def test_rotation_reseal_and_retirement(team: Team) -> None:
    first = public_key(team)
    old = sealed_entry(team, team.value)
    wide = seal(team.value.encode(), NamespaceEntry(team.namespace, "wide"), first)
    manifest = {
        "apiVersion": "runkeys.dev/v1alpha1",
        "kind": "SecretBinding",
        "metadata": {"name": "keys", "namespace": team.namespace},
        "spec": {
            "secrets": [old, {"name": "wide", "sealed": wide, "scope": "Namespace"}],
            "access": [{"runSelector": {}}],
        },
    }
    text = f"# kept in Git\n{yaml.safe_dump(manifest, sort_keys=False)}# the end\n"
    team.client.create(manifest)

    assert "created; fingerprint" in said(keys_command(team, "rotate"))
    second = public_key(team)
    assert second.key_id != first.key_id
    assert ids(team) == [second.key_id, first.key_id]
    team.make_run("under-the-old-key")
    assert phase(team.wait_phase("under-the-old-key", "Succeeded", "Failed")) == "Succeeded"
    team.make_binding("new", secrets=[sealed_entry(team, team.value, binding="new")])
    team.make_run("under-the-new-key", bindings=[{"name": "new"}])
    assert phase(team.wait_phase("under-the-new-key", "Succeeded", "Failed")) == "Succeeded"

    refused = keys_command(team, "retire", first.key_id)
    assert refused.returncode == 1
    assert f"key {first.key_id} is still needed" in refused.stderr
    assert f"SecretBinding {team.namespace}/keys, entry 'token'" in refused.stderr
    newest = keys_command(team, "retire", second.key_id)
    assert "rotate first" in newest.stderr

    resealed = said(keys_command(team, "reseal", input=text))
    assert resealed.startswith("# kept in Git\n")
    assert resealed.endswith("# the end\n")
    assert resealed.count(second.key_id) == 2
    assert first.key_id not in resealed
    assert said(keys_command(team, "reseal", input=resealed)) == resealed
    changed = yaml.safe_load(resealed)
    assert changed["spec"]["secrets"][1]["scope"] == "Namespace"
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": changed["spec"]})

    assert said(keys_command(team, "retire", first.key_id)) == f"key {first.key_id} is deleted\n"
    published = team.client.get("configmaps", PUBLIC, team.namespace)["data"]
    assert published.keys() == {CURRENT, f"key-{second.key_id}"}
    team.make_run("after-it")
    assert phase(team.wait_phase("after-it", "Succeeded", "Failed")) == "Succeeded"

    # what the retired key has sealed opens no more
    team.operator.wait_serving()
    team.operator.stop_cleanly()
    team.operator.start()
    team.make_binding("stale", secrets=[seal_with(team, first, "stale")])
    team.make_run("stale", bindings=[{"name": "stale"}])
    found = team.wait_condition("stale", "Stalled", reason="UnknownKey")
    assert f"sealed with key {first.key_id}, which is not here" in condition(found, "Stalled")["message"]


def seal_with(team: Team, key: PublicKey, binding: str) -> dict[str, str]:
    text = seal(team.value.encode(), BindingEntry(team.namespace, binding, "token"), key)
    return {"name": "token", "sealed": text}


def test_keys_are_rotated_while_runs_go_on(team: Team) -> None:
    count = 50 if FULL else 12
    for number in range(count):
        name = f"run-{number}"
        team.make_binding(name, secrets=[sealed_entry(team, team.value, binding=name)])
        team.make_run(name, bindings=[{"name": name}])
        if number % 4 == 3:
            said(keys_command(team, "rotate"))
    for number in range(count):
        found = team.wait_phase(f"run-{number}", "Succeeded", "Failed", timeout=240)
        assert phase(found) == "Succeeded", found["status"]
    assert len(ids(team)) == 1 + count // 4
    assert team.live_secrets() == []


class Others:
    """Others who change the Secret or the ConfigMap of the keys, just before a command's write to it arrives."""

    def __init__(self, team: Team, proxy: ApiProxy) -> None:
        self.team = team
        self.left = {"secrets": 0, "configmaps": 0}
        """How many writes to each still come too late."""
        proxy.before_forward = self.before

    async def before(self, request: Request) -> None:
        kind, name = request.resource, request.name
        # The record of the policies is in the same ConfigMap, and its writes have no data.
        if request.verb != "patch" or name not in (PRIVATE, PUBLIC) or "data" not in json.loads(request.body):
            return
        if self.left[kind]:
            self.left[kind] -= 1
            change = {"metadata": {"annotations": {"example.com/by-others": f"{self.left[kind]}"}}}
            await asyncio.to_thread(self.team.client.patch, kind, name, self.team.namespace, change)


def test_a_key_is_rotated_and_retired_while_others_write_too(new_team: TeamMaker, proxy: ApiProxy) -> None:
    team = new_team(server=proxy.url)
    first = public_key(team)
    team.operator.wait_serving()
    others = Others(team, proxy)
    conflicts = sum(request.status == 409 for request in proxy.requests)

    others.left.update(secrets=2, configmaps=2)
    assert "created; fingerprint" in said(keys_command(team, "rotate"))
    second = public_key(team)
    assert ids(team) == [second.key_id, first.key_id]
    others.left.update(secrets=2, configmaps=2)
    assert said(keys_command(team, "retire", first.key_id)) == f"key {first.key_id} is deleted\n"
    assert ids(team) == [second.key_id]
    published = team.client.get("configmaps", PUBLIC, team.namespace)["data"]
    assert published == {CURRENT: second.text, f"key-{second.key_id}": second.text}
    # The record of the policies may have come too late, too.
    assert sum(request.status == 409 for request in proxy.requests) >= conflicts + 8


def test_a_rotation_that_others_never_let_through_says_how_far_it_came(
    new_team: TeamMaker, proxy: ApiProxy
) -> None:
    team = new_team(server=proxy.url)
    first = public_key(team)
    team.operator.wait_serving()
    others = Others(team, proxy)

    others.left["secrets"] = 1000
    refused = keys_command(team, "rotate")
    assert (refused.returncode, refused.stderr) == (
        1,
        f"Error: no key was created: others changed Secret {PRIVATE} in namespace {team.namespace} each time;"
        " try again\n",
    )
    assert ids(team) == [first.key_id]

    others.left.update(secrets=0, configmaps=1000)
    refused = keys_command(team, "rotate")
    second, _ = ids(team)
    assert refused.stderr.startswith(
        f"Error: key {second} is created, but not published yet: others changed "
    )
    assert public_key(team) == first
    others.left["configmaps"] = 0
    team.operator.kill()
    team.operator.start()
    wait_until("the operator to publish it", lambda: public_key(team).key_id == second)


def test_keys_that_are_gone_before_one_is_published_are_missed(new_team: TeamMaker, proxy: ApiProxy) -> None:
    team = new_team(server=proxy.url)
    first = public_key(team)
    team.operator.wait_serving()

    def take_all_once_there_are_two() -> None:
        found = team.client.get("secrets", PRIVATE, team.namespace).get("data", {})
        if len(found) == 2:
            team.client.patch("secrets", PRIVATE, team.namespace, {"data": dict.fromkeys(found)})

    async def before(request: Request) -> None:
        if (request.verb, request.resource, request.name) == ("get", "configmaps", PUBLIC):
            await asyncio.to_thread(take_all_once_there_are_two)

    proxy.before_forward = before
    refused = keys_command(team, "rotate")
    assert (refused.returncode, refused.stderr) == (
        1,
        f"Error: Secret {PRIVATE} in namespace {team.namespace} has no key any more; restore it from its backup\n",
    )
    assert public_key(team) == first, "what was published stays"


def test_a_new_cluster_opens_with_the_keys_of_the_old_one(
    team: Team, own_node: OwnNode, tmp_path: Path
) -> None:
    entry = sealed_entry(team, team.value)
    backup = team.client.get("secrets", PRIVATE, team.namespace)
    node: NodeCluster = own_node()
    install_crds(node)
    restored = {"data": backup["data"]}
    node.client.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": team.namespace}}
    )  # values are bound to the namespace's name
    node.client.wait_for("serviceaccounts", "default", team.namespace, bool)
    (tmp_path / "new").mkdir()
    with team_in(node, team.namespace, tmp_path / "new") as new:
        new.operator.start()
        own = public_key(new)
        new.make_binding(secrets=[entry])
        new.make_run()
        found = new.wait_condition("job", "Stalled", reason="UnknownKey")
        assert "restore that key from its backup" in condition(found, "Stalled")["message"]

        new.client.patch("secrets", PRIVATE, team.namespace, restored)
        found = new.wait_phase("job", "Succeeded", "Failed")
        assert phase(found) == "Succeeded", found["status"]
        assert team.digest in new.output(found)
        assert public_key(new) == own, "an older key is restored; the newest goes on sealing"
