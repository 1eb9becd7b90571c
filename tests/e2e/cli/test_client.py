"""The same from Python, and by `kubectl runkeys`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from runkeys.client import Client, released
from runkeys.problems import Denied, Invalid, NotFound, TimedOut
from testing.cluster import build
from testing.cluster.base import Cluster
from testing.cluster.client import PATIENCE
from testing.namespace import FINISHES_WHEN_TOLD, Team, canary, python, run
from tests.e2e.cli.conftest import UserMaker
from tests.unit.cli.terminal import ROOT, Terminal

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(team: Team, alice: Terminal, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("RUNKEYS_CONFIG_DIR", str(alice.folder / "config"))
    return Client(kubeconfig=alice.more["KUBECONFIG"], operator_namespace=team.namespace)


def test_run_and_what_is_known_of_it(team: Team, client: Client) -> None:
    value = canary()
    task = {"secrets": [{"name": "api_token", "input": "mine"}, {"name": "other", "secret": "token"}]}
    manifest = run(team.namespace, task=task, input={"x": 1, "$secrets": {"mine": value}})
    found = client.run(manifest, timeout=100)
    assert manifest["spec"]["input"] == {"x": 1, "$secrets": {"mine": value}}
    assert found.status.phase == "Succeeded"
    assert released(found)
    (exposure,) = client.exposure("job")
    assert (exposure.task, exposure.attempt, exposure.secrets) == ("work", 1, ("api_token", "other"))
    assert exposure.seconds is not None
    (line,) = client.logs("job")
    assert line.task == "work"
    assert line.text.startswith("sha256 ")
    assert [item.metadata.name for item in client.runs()] == ["job"]
    client.delete("job")
    with pytest.raises(NotFound):
        client.get("job")


def test_cancel_suspend_resume_and_time(team: Team, client: Client) -> None:
    made = client.submit(run(team.namespace, command=python(FINISHES_WHEN_TOLD)))
    team.wait_running(team.run())
    with pytest.raises(TimedOut):
        client.wait(made.metadata.name, timeout=0.5)
    client.suspend("job")
    team.wait_phase("job", "Suspended")
    client.resume("job")
    team.wait_phase("job", "Running")
    client.cancel("job")
    assert client.wait("job", timeout=PATIENCE).status.phase == "Cancelled"


def test_what_is_refused_is_not_sent(team: Team, client: Client) -> None:
    with pytest.raises(Invalid, match=r"spec\.tasks\[0\]\.secrets\[0\]\.input"):
        client.submit(run(team.namespace, task={"secrets": [{"name": "a", "input": "absent"}]}))
    with pytest.raises(Invalid, match="the manifest is for elsewhere"):
        client.submit(run("elsewhere"))
    assert team.client.list("workflowruns", team.namespace) == []


def test_without_the_right(team: Team, user: UserMaker) -> None:
    mallory = user("mallory", may=False)
    client = Client(kubeconfig=mallory.more["KUBECONFIG"], operator_namespace=team.namespace)
    with pytest.raises(Denied, match="may not create "):
        client.submit(run(team.namespace))


def test_kubectl_plugin(alice: Terminal, cluster: Cluster, tmp_path: Path) -> None:
    kubectl = build.program("kubectl")
    for name, function in (
        ("kubectl-runkeys", "kubectl_main"),
        ("kubectl_complete-runkeys", "kubectl_complete"),
    ):
        plugin = tmp_path / name
        code = f"from runkeys.cli import {function}; {function}()"
        plugin.write_text(
            f'#!/bin/sh\nPYTHONPATH={ROOT / "operator"} exec {sys.executable} -c "{code}" "$@"\n'
        )
        plugin.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = [f"{name}={text}" for name, text in alice.more.items()]
    call = ["env", f"PATH={path}", *environment, str(kubectl)]
    assert "NAME" not in cluster.run(*call, "runkeys", "status")
    assert "Usage: kubectl runkeys status" in cluster.run(*call, "runkeys", "status", "--help")
    assert "status\t" in cluster.run(*call, "__complete", "runkeys", "sta")
