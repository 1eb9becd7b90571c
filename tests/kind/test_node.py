"""A node of kind: what only it has, and what it leaves to the machine."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testing.cluster import docker, kind, node_init
from testing.cluster.cache import CHECKOUT, claims_of
from testing.cluster.client import KubeClient
from testing.cluster.images import TASK_IMAGE
from testing.cluster.kind import KindCluster

RESOLVE = "import socket; print(socket.gethostbyname('kubernetes.default.svc.cluster.local'))"


def test_names_of_services_are_known_in_pods(kind_cluster: KindCluster, namespace: str) -> None:
    client = kind_cluster.client
    container = {"name": "main", "image": TASK_IMAGE, "command": ["python3", "-c", RESOLVE]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "asks"},
        "spec": {"restartPolicy": "OnFailure", "containers": [container]},
    }
    client.create(pod, namespace)
    client.wait_for("pods", "asks", namespace, lambda found: found["status"]["phase"] == "Succeeded")
    address = client.get("services", "kubernetes", "default")["spec"]["clusterIP"]
    assert kind_cluster.kubectl("logs", "asks", "--namespace", namespace).split()[-1] == address


def test_the_control_plane_is_kubeadms(client: KubeClient) -> None:
    pods = {pod["metadata"]["labels"].get("component", "") for pod in client.list("pods", "kube-system")}
    assert {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} <= pods


@pytest.mark.parametrize("setting", sorted(node_init.SYSCTLS))
def test_the_kernels_settings_stay_the_machines(kind_cluster: KindCluster, setting: str) -> None:
    if kind.wanted_image() != kind.FROM_SOURCE:
        pytest.skip("the node image that kind was released with changes the machine's settings")
    machine = Path("/proc/sys") / setting
    before = machine.read_text()
    run = ("exec", kind_cluster.node_name, "sh", "-c")
    inside = f"/proc/sys/{setting}"
    assert kind_cluster.engine.run(*run, f"cat {inside}").strip() == node_init.SYSCTLS[setting]
    try:
        assert kind_cluster.engine.run(*run, f"echo 7 > {inside} && cat {inside}") == "7\n"
        assert machine.read_text() == before
    finally:
        kind_cluster.engine.run(*run, f"echo {node_init.SYSCTLS[setting]} > {inside}")


STARTS = """
import sys, time
from testing.cluster.cache import Claim, claims_of
from testing.cluster.kind import KindCluster
claim = Claim(claims_of(sys.argv[1]))
KindCluster.start(sys.argv[1])
print("up", flush=True)
time.sleep(600)
"""


def test_the_cluster_of_a_killed_run_is_deleted_and_one_in_use_is_not(kind_cluster: KindCluster) -> None:
    name = f"{kind.OF_A_RUN}orphan-{secrets.token_hex(3)}"
    engine = kind_cluster.engine
    with subprocess.Popen(
        [sys.executable, "-c", STARTS, name], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        try:
            assert "up\n" in iter(owner.stdout.readline, "")
            with docker.engine():
                kind.delete_abandoned(engine)
            assert KindCluster.attach(name) is not None, "somebody uses it"
        finally:
            owner.send_signal(signal.SIGKILL)
    with docker.engine():
        kind.delete_abandoned(engine)
    assert KindCluster.attach(name) is None
    assert KindCluster.attach(kind_cluster.name) is not None
    claims_of(name).unlink()
