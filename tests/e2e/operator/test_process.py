"""The operator as a process: what it watches, how it starts, stops and dies. With the chart's rights."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runkeys.policies import Account
from testing.cluster.base import Cluster, free_port
from testing.cluster.client import PATIENCE, KubeClient
from testing.cluster.faults import Answer, Request, matching
from testing.cluster.proxy import ApiProxy
from testing.operators import RELEASE, ROOT, install_rights, settle_policies

pytestmark = pytest.mark.usefixtures("crds")


class Process:
    """A recorder (see there) and what it printed."""

    def __init__(self, log: Path, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "operator")))}
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.operator.recorder", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd="/",
            )

    @property
    def text(self) -> str:
        return self._log.read_text()

    @property
    def seen(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.startswith("saw ")]

    def wait_for(self, words: str, timeout: float = PATIENCE, count: int = 1) -> None:
        until = time.monotonic() + timeout
        while self.text.count(words) < count:
            assert time.monotonic() < until, f"no {words!r} within {timeout} s:\n{self.text}"
            assert self.process.poll() is None or words in self.text, f"ended:\n{self.text}"
            time.sleep(0.02)

    def end(self, sent: signal.Signals | None = None, timeout: float = PATIENCE) -> int:
        if sent is not None:
            self.process.send_signal(sent)
        return self.process.wait(timeout)


Start = Callable[..., Process]


@pytest.fixture
def start(cluster: Cluster, proxy: ApiProxy, namespace: str, tmp_path: Path) -> Iterator[Start]:
    """Start a recorder behind the proxy, for `namespace`."""
    token = cluster.client.token(namespace, install_rights(cluster, namespace))
    kubeconfig = cluster.kubeconfig_for(token, tmp_path / "kubeconfig", server=proxy.url)
    started: list[Process] = []

    def start(behaviour: str = "well", port: int = 0) -> Process:
        started.append(Process(tmp_path / "log", str(kubeconfig), namespace, str(port), behaviour))
        return started[-1]

    yield start
    for process in started:
        process.process.kill()
        process.process.wait(PATIENCE)
        assert token not in process.text


def run(name: str, namespace: str) -> dict[str, object]:
    template = {"spec": {"containers": [{"name": "main", "image": "localhost/none:1"}]}}
    return {
        "apiVersion": "runkeys.dev/v1alpha1",
        "kind": "WorkflowRun",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"tasks": [{"name": "t", "template": template}]},
    }


def pod(name: str, namespace: str, *, label: bool, bound: bool = True) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"runkeys.dev/run": "r"} if label else {},
        },
        "spec": {
            "nodeSelector": {} if bound else {"no": "node"},
            "containers": [{"name": "main", "image": "localhost/none:1"}],
        },
    }


def job(name: str, namespace: str, *, label: bool) -> dict[str, object]:
    container = {"name": "main", "image": "localhost/none:1"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"runkeys.dev/run": "r"} if label else {},
        },
        "spec": {
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def test_it_sees_what_concerns_it_and_writes_nothing(
    start: Start, cluster: Cluster, client: KubeClient, namespace: str, proxy: ApiProxy
) -> None:
    client.create(run("before", namespace))
    process = start()
    process.wait_for("saw run None before")
    process.wait_for("ready")
    client.create(run("later", namespace))
    process.wait_for("saw run ADDED later")
    binding = {
        "apiVersion": "runkeys.dev/v1alpha1",
        "kind": "SecretBinding",
        "metadata": {"name": "b", "namespace": namespace},
        "spec": {"secrets": [{"name": "s", "secretKeyRef": {"name": "s", "key": "k"}}]},
    }
    client.create(binding)
    process.wait_for("saw binding ADDED b")
    account = Account.service_account(namespace, RELEASE)
    for policy in ("names", "pods"):  # which let nobody but the operator make such Jobs and pods
        client.delete("validatingadmissionpolicybindings", account.name_of(policy))
    settle_policies(cluster, namespace)
    for label in (False, True):
        client.create(job(f"job-{label}".lower(), namespace, label=label))
        client.create(pod(f"waits-{label}".lower(), namespace, label=label, bound=False))
        client.create(pod(f"bound-{label}".lower(), namespace, label=label))
    process.wait_for("saw job ADDED job-true")
    # Binding is the first that it hears of a pod.
    process.wait_for("saw pod ADDED bound-true node")
    client.delete("pods", "bound-true", namespace, gracePeriodSeconds=0)
    process.wait_for("saw pod DELETED bound-true")
    client.delete("workflowruns", "later", namespace)
    process.wait_for("saw run DELETED later")
    assert process.end(signal.SIGTERM) == 0
    assert not [line for line in process.seen if "-false" in line or "waits" in line]
    assert [str(request) for request in proxy.requests if request.mutates] == []


def test_told_to_stop_it_finishes_what_it_is_at_and_nothing_else(
    start: Start, client: KubeClient, namespace: str
) -> None:
    process = start("slow")
    client.create(run("one", namespace))
    process.wait_for("begins one")
    client.patch("workflowruns", "one", namespace, {"metadata": {"labels": {"a": "b"}}})
    process.wait_for("saw run MODIFIED one")
    assert process.end(signal.SIGTERM) == 0
    assert process.text.count("begins one") == process.text.count("ends one") == 1


def test_told_to_stop_when_idle_it_stops_at_once(start: Start) -> None:
    process = start()
    process.wait_for("resync")
    process.wait_for("Starting the watch-stream for secretbindings")
    # Had kopf anything to wait for, it would not end by itself in time, and say so.
    assert process.end(signal.SIGTERM) == 0


def test_told_to_stop_while_it_asks_for_the_kinds_it_stops_at_once(start: Start, proxy: ApiProxy) -> None:
    asked = proxy.hold(lambda request: request.path in ("/api", "/apis"), times=None)
    process = start()
    asked.wait_arrived()
    assert process.end(signal.SIGTERM) == 0
    assert "not everything stopped by itself" not in process.text


def test_told_to_stop_while_somebody_keeps_a_connection_it_stops_at_once(start: Start) -> None:
    """As Prometheus does between two scrapes."""
    port = free_port()
    process = start(port=port)
    process.wait_for("resync")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/metrics")
    assert b"runkeys_ready" in connection.getresponse().read()
    assert connection.sock is not None, "the connection was not kept"
    assert process.end(signal.SIGTERM) == 0
    connection.close()
    assert "not everything stopped by itself" not in process.text


def test_told_to_stop_before_it_could_start(start: Start, proxy: ApiProxy) -> None:
    proxy.rule(discovery, Answer(503), times=None)
    process = start()
    process.wait_for("not ready to start")
    assert process.end(signal.SIGTERM) == 0
    assert "manager" not in process.text


def test_if_a_part_of_it_dies_all_of_it_ends(start: Start) -> None:
    process = start("broken")
    assert process.end() == 1
    assert "the resync ended: ValueError in resync" in process.text
    assert "may hold anything" not in process.text


@pytest.mark.parametrize(
    ("watched", "says"),
    [
        ("secretbindings", "keeps refusing the operator's credentials"),
        ("workflowruns", "keeps refusing the operator's credentials"),
        ("pods", "the watch of pods ended: watch pods"),
    ],
)
def test_if_its_watch_is_refused_for_good_all_of_it_ends(
    start: Start, proxy: ApiProxy, watched: str, says: str
) -> None:
    proxy.rule(matching("watch", watched), Answer(401, "Unauthorized"), times=None)
    process = start()
    assert process.end(timeout=180) == 1
    assert says in process.text, process.text


@pytest.mark.parametrize("watched", ["secretbindings", "workflowruns"])
def test_a_refused_watch_is_opened_again_with_a_new_session(
    start: Start, client: KubeClient, namespace: str, proxy: ApiProxy, watched: str
) -> None:
    proxy.rule(matching("watch", watched), Answer(401, "Unauthorized"), times=2)
    process = start()
    proxy.wait_for(lambda request: matching("watch", watched)(request) and request.status == 401, count=2)
    process.wait_for("ready")
    client.create(run("one", namespace))
    process.wait_for("ends one")
    assert process.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(("behaviour", "ready"), [("well", 200), ("unreachable", 503)])
def test_the_probes(start: Start, behaviour: str, ready: int) -> None:
    port = free_port()
    process = start(behaviour, port)
    process.wait_for("\nresync\n", count=2)  # the outcome of the first is known by then
    if ready == 200:
        process.wait_for("app  ready")  # the watches may be open later
    assert probe(port, "healthz") == 200
    assert probe(port, "readyz") == ready
    assert probe(port, "metrics") == 200
    assert probe(port, "debug") == 404


def discovery(request: Request) -> bool:
    return request.path == "/apis/runkeys.dev/v1alpha1"


def probe(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code
