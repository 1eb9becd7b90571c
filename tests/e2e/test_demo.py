"""``make demo``: what it shows, that it would show a failure, and that it leaves nothing when it is stopped."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from scripts.demo import EVENTS, NAMESPACE, OPERATOR_NAMESPACE
from testing import examples
from testing.cluster import providers
from testing.cluster.base import Cluster
from testing.cluster.cache import CHECKOUT
from testing.cluster.client import PATIENCE
from testing.cluster.node import NodeCluster

# Those of a worker share a demo cluster, and the last of them ends it.
pytestmark = pytest.mark.e2e

DEMO_SECONDS = 600


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as ``make`` does."""
    return subprocess.run(
        [sys.executable, "scripts/demo.py", *arguments],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": f"{CHECKOUT / 'operator'}{os.pathsep}{CHECKOUT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEMO_SECONDS,
    )


def succeeds(*arguments: str) -> str:
    done = demo(*arguments)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def shows_the_run(printed: str, value: str) -> None:
    """The events in their order, the verdict as the last line before the help, and never the value."""
    times = re.findall(r"^ +\d+\.\d\d s  (.*?)(?:  +.*)?$", printed, re.MULTILINE)
    assert times == ["run applied", *EVENTS]
    search = re.search(
        rf"^ +once +/registry/secrets/{NAMESPACE}/rk-hello-\S+\n +made in revision (\d+), deleted in (\d+)\n"
        rf" +now +/registry/secrets/{NAMESPACE}/{examples.SOURCE}\n"
        r" +Now the value is only where you put it\.\n\n  look ",
        printed,
        re.MULTILINE,
    )
    assert search is not None, printed
    assert int(search[1]) < int(search[2])
    assert value not in printed
    assert "\x1b" not in printed, "colours in a file"


@pytest.fixture(scope="module")
def cluster_name() -> Iterator[str]:
    name = f"demo-{secrets.token_hex(3)}"
    yield name
    demo("down", "--name", name)


@pytest.fixture(scope="module")
def first_output(cluster_name: str) -> str:
    """What the first demo on a fresh cluster printed."""
    return succeeds("--name", cluster_name)


@pytest.fixture
def demo_node(cluster_name: str, first_output: str) -> Cluster:  # noqa: ARG001 -- it has to be started
    found = providers.attach(cluster_name)
    assert found is not None
    return found


@pytest.fixture
def bare_demo_node(demo_node: Cluster) -> NodeCluster:
    if not isinstance(demo_node, NodeCluster):
        pytest.skip("looks into a node's components: only the provider 'node' offers that")
    return demo_node


def place(cluster: Cluster) -> str:
    return "in Docker" if cluster.provider == "kind" else "on this machine"


def source_value(cluster: Cluster) -> str:
    printed = cluster.kubectl(
        *(
            "-n",
            NAMESPACE,
            "get",
            "secret",
            examples.SOURCE,
            "-o",
            "go-template={{.data.token | base64decode}}",
        )
    )
    assert printed.startswith("demo-")
    return printed


def operator_pods(cluster: Cluster) -> list[str]:
    return [item["metadata"]["uid"] for item in cluster.client.list("pods", OPERATOR_NAMESPACE)]


def test_the_first_demo_shows_the_whole_way(first_output: str, demo_node: Cluster) -> None:
    assert f"{place(demo_node)}, started in" in first_output
    shows_the_run(first_output, source_value(demo_node))


def test_it_draws_what_it_saw(cluster_name: str, demo_node: Cluster, tmp_path: Path) -> None:  # noqa: ARG001
    drawn = tmp_path / "exposure.svg"
    succeeds("--name", cluster_name, "--picture", str(drawn))
    space = "{http://www.w3.org/2000/svg}"
    bars = {
        bar.attrib["class"]: (float(bar.attrib["x"]), float(bar.attrib["x"]) + float(bar.attrib["width"]))
        for bar in ElementTree.parse(drawn).iter(f"{space}rect")  # noqa: S314 -- it is ours
    }
    (bound, ended), (made, gone), (runs, _) = bars["pod"], bars["secret"], bars["runs"]
    # What was seen late is drawn at the time of what came after it.
    assert bars["ordinary"][0] < bound <= made <= runs < ended
    assert made < ended
    assert ended - 1 < gone < bars["ordinary"][1], bars


def test_without_a_way_to_a_cluster_it_shows_a_local_run() -> None:
    """In a user namespace without a mapping nobody is root, and there is no Docker engine here."""
    environment = {
        key: text for key, text in os.environ.items() if key not in ("RUNKEYS_E2E_PROVIDER", "DOCKER_HOST")
    }
    done = subprocess.run(
        ["unshare", "--user", sys.executable, "scripts/demo.py"],
        cwd=CHECKOUT,
        env=environment | {"PYTHONPATH": f"{CHECKOUT / 'operator'}{os.pathsep}{CHECKOUT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEMO_SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "without a cluster" in done.stdout
    assert re.search(r"^  run-circuit +Succeeded +1 +ibm_token, account gone", done.stdout, re.MULTILINE), (
        done.stdout
    )
    assert "not seen" in done.stdout
    assert "demo-" not in done.stdout.replace("demo-down", "")


def test_a_second_demo_uses_what_is_there(cluster_name: str, demo_node: Cluster) -> None:
    before, value = operator_pods(demo_node), source_value(demo_node)
    printed = succeeds("--name", cluster_name)
    assert f"{place(demo_node)}, runs already" in printed
    assert operator_pods(demo_node) == before
    assert source_value(demo_node) != value, "each demo has a value of its own"
    shows_the_run(printed, source_value(demo_node))


def test_control_a_value_that_is_elsewhere_is_found(cluster_name: str, demo_node: Cluster) -> None:
    client = demo_node.client
    since = client.get("secrets", examples.SOURCE, NAMESPACE)["metadata"]["resourceVersion"]

    def leak() -> None:
        # The demo has just written its new value: copy what Kubernetes shows of it, which is base64.
        for _, secret in client.watch(
            "secrets",
            NAMESPACE,
            timeout=DEMO_SECONDS,
            since=since,
            fields=f"metadata.name={examples.SOURCE}",
        ):
            copy = {"text": f"found: {secret['data']['token']}"}
            manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "copy"}, "data": copy}
            client.create(manifest, NAMESPACE)
            client.delete("configmaps", "copy", NAMESPACE)
            return

    leaking = threading.Thread(target=leak)
    leaking.start()
    done = demo("--name", cluster_name)
    leaking.join(timeout=DEMO_SECONDS)
    assert done.returncode == 1, done.stdout
    assert "Now the value is only" not in done.stdout
    said = f"The demo stopped: the value is, or was, where it must never be: /registry/configmaps/{NAMESPACE}/copy"
    assert said in done.stderr.splitlines()


def test_control_what_does_not_happen_ends_the_demo(cluster_name: str, bare_demo_node: NodeCluster) -> None:
    bare_demo_node.kill("kube-scheduler")
    try:
        done = demo("--name", cluster_name, "--patience", "5")
    finally:
        bare_demo_node.start_component("kube-scheduler")
    assert done.returncode == 1, done.stdout
    # Five seconds may be too few for the Job on a busy machine, too.
    missing = "pod bound to a node" if "Job made" in done.stdout else "Job made"
    assert f"nothing new within 5 s; what is missing is: {missing}." in done.stderr
    assert "pod bound to a node" not in done.stdout


def test_down_leaves_nothing(cluster_name: str, bare_demo_node: NodeCluster) -> None:
    record, state = bare_demo_node.record, bare_demo_node.paths.state
    alive = [psutil.Process(pid) for pid in bare_demo_node.component_pids().values()]
    alive += [psutil.Process(record.pid), psutil.Process(record.launcher)]
    link = Path(f"/sys/class/net/{record.link}/ifalias")
    assert link.read_text().strip() == record.mark

    assert succeeds("down", "--name", cluster_name) == f"Cluster {cluster_name!r} is gone.\n"

    assert psutil.wait_procs(alive, timeout=PATIENCE)[1] == []
    assert [
        path for path in Path("/sys/class/net").glob("rkn*/ifalias") if record.mark in path.read_text()
    ] == []
    assert list(Path("/sys/fs/cgroup").glob(f"**/{record.cgroup}")) == []
    assert not state.exists()
    assert NodeCluster.attach(cluster_name) is None
    assert succeeds("down", "--name", cluster_name) == f"There is no cluster {cluster_name!r}.\n"
