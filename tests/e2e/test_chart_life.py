"""The chart over its life, on a node of its own: upgraded and uninstalled while runs are live, and tested by helm."""

from __future__ import annotations

import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import count
from pathlib import Path

import pytest
import yaml

from runkeys.names import attempt_name
from testing.cluster import images
from testing.cluster.base import ClusterError, wait_until
from testing.cluster.cache import CHECKOUT
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster
from testing.namespace import FINISHES_WHEN_TOLD, HELD_BACK, SOURCE, Team, make_namespace, phase, python
from testing.operators import CHART, RELEASE, Operator
from tests.e2e.conftest import OwnNode
from tests.e2e.test_chart_install import SYSTEM, becomes_available, install, settled_node, uninstall

pytestmark = pytest.mark.e2e

PREVIOUS = "5258a6f29e93cc2864490e239d62308c8208dcb5"
"""The state from which people may come: the commit of the release before. Nothing was released yet, so it is the last
one whose chart had the kinds in `crds/`; it knows of the Lease, so that old and new operators never act at once."""
PREVIOUS_IMAGE = "localhost/runkeys-operator:previous"


def previous(folder: Path) -> Path:
    """The whole project as it was at that release, taken out of the history."""
    packed = subprocess.run(
        ["git", "archive", PREVIOUS, "helm", "operator"],
        cwd=CHECKOUT,
        capture_output=True,
        check=False,
        timeout=180,
    )
    assert packed.returncode == 0, (
        f"commit {PREVIOUS} is not in this clone; a shallow one needs: git fetch --unshallow"
    )
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def team_on(node: NodeCluster, folder: Path) -> Team:
    """A namespace with a source that the release may read, and a binding; the operator is the release's own."""
    namespace = make_namespace(node.client, "team")
    team = Team(node, namespace, Operator(node.kubeconfig, namespace, folder / "none.log"))
    team.make_source()
    grant = ("--role=sources", f"--serviceaccount={SYSTEM}:{RELEASE}")
    node.kubectl(
        *("-n", namespace, "create", "role", "sources", "--verb=get", "--resource=secrets"),
        f"--resource-name={SOURCE}",
    )
    node.kubectl("-n", namespace, "create", "rolebinding", "sources", *grant)
    team.make_binding()
    return team


def run_secrets(node: NodeCluster, team: Team) -> list[str]:
    """Keys in etcd of the run Secrets that are there now."""
    return [key for key in node.etcd.keys(f"/registry/secrets/{team.namespace}/") if "/rk-" in key]


@contextmanager
def a_stream_of_runs(team: Team, requester: Object, hint: str = "short") -> Iterator[list[Object]]:
    """Make short runs, one when the one before has its Job, until the block ends."""
    made: list[Object] = []
    enough = threading.Event()

    def work() -> None:
        for number in count(1):
            if enough.is_set():
                return
            made.append(team.make_run(f"{hint}-{number}", requester=requester))
            enough.wait(1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield made
    finally:
        enough.set()
        thread.join(30)


def images_of(node: NodeCluster) -> set[str]:
    """Of the operator's pods."""
    return {pod["spec"]["containers"][0]["image"] for pod in node.client.list("pods", SYSTEM)}


def test_an_upgrade_while_runs_are_live(own_node: OwnNode, tmp_path: Path) -> None:
    node = settled_node(own_node)
    old = previous(tmp_path / "previous")
    node.load_image(images.operator_image(old, PREVIOUS_IMAGE))
    node.load_image(images.operator_image())
    kinds = sorted((old / "helm" / "runkeys" / "crds").glob("*.yaml"))
    for path in kinds:  # a field of later versions is not known yet
        path.write_text(path.read_text().replace("shortNames:\n      - wfr", "shortNames:\n      - wfrold"))
    node.helm(
        *("install", RELEASE, str(old / "helm" / "runkeys"), f"--namespace={SYSTEM}", "--create-namespace"),
        "--set=image.tag=previous",
    )
    becomes_available(node, SYSTEM)
    team = team_on(node, tmp_path)
    # As the command line fills it in where no policy does.
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = node.client.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=review)
    requester = {key: answer["status"]["userInfo"][key] for key in ("username", "groups")}
    long = [
        team.make_run(f"long-{n}", command=python(FINISHES_WHEN_TOLD), requester=requester) for n in range(3)
    ]
    for run in long:
        team.wait_running(run)
    waiting = team.make_run("waiting", pod=HELD_BACK, requester=requester)
    team.pod(waiting)

    with a_stream_of_runs(team, requester) as short:
        # The kinds were not the release's own until now.
        node.helm(
            *("upgrade", RELEASE, str(CHART), f"--namespace={SYSTEM}", "--set=image.tag=dev"),
            "--take-ownership",
            "--wait",
        )
        assert len(run_secrets(node, team)) >= len(long)

    # helm waits for the new ones, and not for the end of the old ones.
    wait_until("only new operators to run", lambda: images_of(node) == {images.OPERATOR_IMAGE})
    for path in sorted((CHART / "files" / "crds").glob("*.yaml")):
        wanted = yaml.safe_load(path.read_text())
        there = node.client.get("customresourcedefinitions", wanted["metadata"]["name"])
        assert there["spec"]["names"]["shortNames"] == wanted["spec"]["names"]["shortNames"]
    team.let_go(waiting)
    for run in long:
        team.tell_to_finish(run)
    for run in [*long, waiting, *short]:
        name = run["metadata"]["name"]
        ended = team.wait_condition(name, "SecretsReleased")
        assert phase(ended) == "Succeeded", json.dumps(ended["status"], indent=1)
        assert team.printed(run) == [f"sha256 {team.digest}\n"], name
        assert team.secret_story(team.object_name(run)) == ["made", "gone"], name
    assert run_secrets(node, team) == []
    print(f"{len(long) + len(short) + 1} runs in flight during the upgrade, none failed, 0 Secrets left")


def test_an_uninstall_with_live_runs_leaves_no_secret(own_node: OwnNode, tmp_path: Path) -> None:
    node = settled_node(own_node)
    install(node, RELEASE, SYSTEM)
    becomes_available(node, SYSTEM)
    team = team_on(node, tmp_path)
    live = [team.make_run(f"live-{n}", command=python(FINISHES_WHEN_TOLD)) for n in range(3)]
    waiting = team.make_run("waiting", pod=HELD_BACK)
    for run in live:
        team.wait_running(run)
    team.pod(waiting)
    assert len(run_secrets(node, team)) == len(live)
    mark = node.audit.mark()

    uninstall(node)

    assert run_secrets(node, team) == []
    # While the operator was still there: the last Secret went before the first part of the release did.
    gone = [
        "secret" if event.resource == "secrets" else "release"
        for event in node.audit.events(
            mark, verb="delete", resource=("secrets", "deployments", "clusterroles")
        )
        if event.status < 300 and (event.namespace == team.namespace or event.name == RELEASE)
    ]
    assert gone == ["secret"] * len(live) + ["release"] * gone.count("release")
    assert gone.count("release") >= 2
    assert node.client.list("serviceaccounts", SYSTEM, labels="app.kubernetes.io/instance=runkeys") == []

    # The runs are still there, and go on where the release comes back.
    install(node, RELEASE, SYSTEM)
    becomes_available(node, SYSTEM)
    for run in [*live, waiting]:
        name = run["metadata"]["name"]
        assert team.run(name)["spec"]["suspend"] is True
        node.client.patch("workflowruns", name, team.namespace, {"spec": {"suspend": False}})
    pod = team_pod(team, "waiting", 2)
    node.client.patch("pods", pod, team.namespace, {"spec": {"schedulingGates": None}})
    for run in live:
        team.tell_pod_to_finish(team_pod(team, run["metadata"]["name"], 2, "Running"))
    for run in [*live, waiting]:
        assert phase(team.wait_condition(run["metadata"]["name"], "SecretsReleased")) == "Succeeded"
    assert run_secrets(node, team) == []


def team_pod(team: Team, run: str, attempt: int, wanted: str = "Pending") -> str:
    """Name of the pod of a later attempt of the only task, once it is in a phase."""
    job = attempt_name(run, team.run(run)["metadata"]["uid"], "work", attempt)

    def there() -> list[str]:
        pods = team.client.list("pods", team.namespace, labels=f"batch.kubernetes.io/job-name={job}")
        return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == wanted]

    try:
        wait_until(f"the pod of {job} to be {wanted}", lambda: bool(there()))
    except ClusterError as late:
        raise AssertionError(f"{late}; {team.run(run)['status']}") from None
    [name] = there()
    return name


def test_control_an_uninstall_that_does_not_drain_leaves_secrets(own_node: OwnNode, tmp_path: Path) -> None:
    node = settled_node(own_node)
    install(node, RELEASE, SYSTEM, "--set=drain.enabled=false")
    becomes_available(node, SYSTEM)
    team = team_on(node, tmp_path)
    run = team.make_run("live", command=python(FINISHES_WHEN_TOLD))
    team.wait_running(run)

    uninstall(node)

    assert len(run_secrets(node, team)) == 1


def test_an_uninstall_that_cannot_drain_keeps_the_release(own_node: OwnNode, tmp_path: Path) -> None:
    node = settled_node(own_node)
    install(node, RELEASE, SYSTEM, "--set=drain.timeoutSeconds=10")
    becomes_available(node, SYSTEM)
    team = team_on(node, tmp_path)
    team.wait_running(team.make_run("live", command=python(FINISHES_WHEN_TOLD)))
    node.kubectl("-n", SYSTEM, "scale", f"deployment/{RELEASE}", "--replicas=0")
    for pod in node.client.list("pods", SYSTEM):
        node.client.wait_gone("pods", pod["metadata"]["name"], SYSTEM)

    with pytest.raises(ClusterError):
        uninstall(node)

    told = node.kubectl("-n", SYSTEM, "logs", "job/runkeys-drain")
    assert f"Secrets are left after 10 s, or runs that cannot be suspended: {team.namespace}/live" in told
    assert node.client.find("deployments", RELEASE, SYSTEM) is not None
    node.kubectl("-n", SYSTEM, "scale", f"deployment/{RELEASE}", "--replicas=1")
    becomes_available(node, SYSTEM)
    uninstall(node)
    assert run_secrets(node, team) == []


def test_helm_test_makes_a_run_and_sees_its_secret_go(own_node: OwnNode) -> None:
    node = settled_node(own_node)
    install(node, RELEASE, SYSTEM)
    becomes_available(node, SYSTEM)

    told = node.helm("test", RELEASE, f"--namespace={SYSTEM}", "--logs")

    assert "Phase:          Succeeded" in told
    assert "its pod found the value; its Secret existed from" in told
    story = [
        "gone" if item.value is None else "made"
        for item in node.etcd.history("/registry/secrets/default/rk-runkeys-selftest-")
    ]
    assert story == ["made", "gone"]
    for plural in ("workflowruns", "secretbindings"):
        assert node.client.list(plural, "default") == [], plural
    wait_until("the run's Job to be collected", lambda: node.client.list("jobs", "default") == [])
    for namespace in (SYSTEM, "default"):
        left = node.kubectl("-n", namespace, "get", "sa,role,rolebinding,secret,pod", "-o", "name")
        assert "selftest" not in left

    # The twin: with no operator there it fails.
    node.kubectl("-n", SYSTEM, "scale", f"deployment/{RELEASE}", "--replicas=0")
    with pytest.raises(ClusterError):
        node.helm("test", RELEASE, f"--namespace={SYSTEM}", "--timeout=10s")


def test_the_process_cannot_be_read_or_dumped(own_node: OwnNode) -> None:
    node = settled_node(own_node)
    install(node, RELEASE, SYSTEM)
    becomes_available(node, SYSTEM)

    def of_the_operator(file: str) -> str:
        return node.kubectl("-n", SYSTEM, "exec", f"deployment/{RELEASE}", "--", "cat", f"/proc/1/{file}")

    [cores] = [
        line for line in of_the_operator("limits").splitlines() if line.startswith("Max core file size")
    ]
    assert cores.split()[-3:] == ["0", "0", "bytes"]
    with pytest.raises(ClusterError, match="Permission denied"):
        of_the_operator("environ")
    # The twin: of a process that asked for nothing the same user reads everything.
    assert "HOSTNAME=" in node.kubectl(
        *("-n", SYSTEM, "exec", f"deployment/{RELEASE}", "--", "sh", "-c"),
        "sleep 60 & cat /proc/$!/environ; kill $!",
    )
