"""``secrets`` on a laptop, in front of a real cluster: what two users set, list, read back and delete."""

from __future__ import annotations

import hashlib

import pytest
import yaml

from runkeys.sealing import PrivateKey
from testing.cluster.base import Cluster, wait_until
from testing.namespace import Team, canary
from tests.e2e.sdk.conftest import UserMaker, ok, python
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e

SET = "import sys; from runkeys import secrets; assert secrets.set('n', sys.stdin.read()) is None"
DIGEST = "import hashlib; from runkeys import secrets; print(hashlib.sha256(secrets.get('n'%s).encode()).hexdigest())"


def context_of(who: Terminal) -> str:
    document = yaml.safe_load((who.folder / "kubeconfig").read_text())
    return str(document["current-context"])


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def failed(who: Terminal, call: str, error: str) -> str:
    """The message of the error that a call ends with."""
    code = f"from runkeys import secrets\ntry: secrets.{call}\nexcept secrets.{error} as error: print(error)"
    return ok(who, code)


def test_rows_25_27_28_a_secret_is_set_listed_read_back_overwritten_and_deleted(
    team: Team, node: Cluster, alice: Terminal
) -> None:
    first, second = canary(), canary() + "\n"
    since, mark = team.cluster.etcd.revision(), node.audit.mark()
    ok(alice, SET, stdin=first)
    assert ok(alice, DIGEST % "").split() == [digest(first)]
    named = f", config_name={context_of(alice)!r}, workspace_id={team.namespace!r}"
    assert ok(alice, DIGEST % named).split() == [digest(first)]
    ok(alice, SET, stdin=second)
    assert ok(alice, DIGEST % "").split() == [digest(second)]
    listed = "from runkeys import secrets; print(secrets.list())"
    assert ok(alice, listed).strip() == "['n']"
    ok(alice, "from runkeys import secrets; assert secrets.delete('n') is None")
    assert ok(alice, listed).strip() == "[]"
    for call in ("get('n')", "delete('n')"):
        assert "'n'" in failed(alice, call, "NotFoundError"), call

    # what went to the cluster was sealed
    sealed = {key for key in node.etcd.find(b'"sealed":"rk1.', since=since) if f"/{team.namespace}/" in key}
    kinds = {key.split("/")[3] for key in sealed}
    assert kinds == {"secretbindings", "secretreveals"}, "what was set, and the answers to whoever read it"
    for value in (first, second.strip()):
        assert node.etcd.find(value.encode(), since=since) == {}
        assert [str(event) for event in node.audit.find(value.encode(), mark)] == []
        assert value.encode() not in team.operator.log.read_bytes()


def test_row_30_two_users_do_not_see_or_overwrite_each_others(user: UserMaker) -> None:
    alice, bob = user("alice"), user("bob")
    hers, his = canary(), canary()
    ok(alice, SET, stdin=hers)
    assert "'n'" in failed(bob, "get('n')", "NotFoundError")
    ok(bob, SET, stdin=his)
    assert ok(alice, DIGEST % "").split() == [digest(hers)]
    assert ok(bob, DIGEST % "").split() == [digest(his)]
    ok(bob, "from runkeys import secrets; secrets.delete('n')")
    assert ok(alice, DIGEST % "").split() == [digest(hers)]


def test_row_26_without_the_right_the_reason_is_told(team: Team, user: UserMaker) -> None:
    mallory = user("mallory", (), may=False)
    for call in ("get('n')", "list()", "set('n', 'canary')", "delete('n')"):
        message = failed(mallory, call, "UnauthorizedError")
        assert f"system:serviceaccount:{team.namespace}:mallory" in message, call
        assert "may not" in message
        assert "kubectl" in message, "the command that grants the right"


def test_another_public_key_than_before_stops_it(team: Team, alice: Terminal) -> None:
    ok(alice, SET, stdin=canary())
    team.operator.kill()
    published = {"data": {"current": PrivateKey.generate().public.text}}
    team.client.patch("configmaps", "runkeys-public-keys", team.namespace, published)
    done = python(alice, SET, stdin=canary())
    assert done.code == 1
    assert "UnauthorizedError: the public key of" in done.err
    assert "is not one that you have trusted before. Nothing was sealed." in done.err


def test_after_ones_own_the_shared_bindings_of_the_config_are_looked_at(team: Team, alice: Terminal) -> None:
    """Line 10 of what users do: own secrets as personal, a team's as shared, in that order."""
    folder = alice.folder / "config"
    folder.mkdir(exist_ok=True)
    context = context_of(alice)
    (folder / "config.toml").write_text(
        f'default = "lab"\n[configs.lab]\ncontext = "{context}"\nbindings = ["keys"]\n'
    )
    own = DIGEST.replace("'n'", "'token'")
    wait_until("the right to be known", lambda: python(alice, own % "").code == 0)
    assert ok(alice, own % "").split() == [team.digest]
    mine = canary()
    ok(alice, SET.replace("'n'", "'token'"), stdin=mine)
    assert ok(alice, own % "").split() == [digest(mine)]


def test_a_local_task_reads_the_vault_of_a_cluster_that_it_names_beside_the_env_file(alice: Terminal) -> None:
    """Line 8 of what users do. Without a name for the cluster it has what the run lists, and nothing else."""
    value, here = canary(), canary()
    ok(alice, SET, stdin=value)
    (alice.folder / ".env").write_text(f"SECRET_MINE={here}\n")
    (alice.folder / "app.py").write_text(
        "import hashlib\nfrom runkeys import secrets\n"
        f"for found in (secrets.get('mine'), secrets.get('n', config_name={context_of(alice)!r})):\n"
        "    print(hashlib.sha256(found.encode()).hexdigest())\n"
        "try:\n    secrets.get('n')\n"
        "except secrets.NotFoundError as error:\n    print(error)\n"
    )
    done = alice.run("run", "--local", "--env-file", ".env", "--secret", "SECRET_MINE=mine", "app.py")
    assert done.code == 0, done
    first, second, refused = done.out.splitlines()[:3]
    assert (first, second) == (digest(here), digest(value))
    assert "'n'" in refused
