"""A kubelet that starts again asks for every pod of its node, and goes on with none before it has its answer.

On nodes of their own: it asks again for the pods of all others, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from testing.cluster import images
from testing.cluster.base import ClusterError, wait_until
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster
from testing.namespace import (
    CHECKS_ITS_VARIABLE,
    FINISHES_WHEN_TOLD,
    TASK_IMAGE,
    Team,
    condition,
    make_namespace,
    phase,
    python,
    team_in,
)
from testing.operators import install_crds
from testing.people import sealed_entry
from tests.e2e.conftest import OwnNode
from tests.e2e.delivery.conftest import IMAGE, SEALED_TEAM
from tests.e2e.delivery.test_attackers import certificates
from tests.e2e.delivery.test_outages import held, requests_of

pytestmark = pytest.mark.e2e

WAITS = "import os, time\nwhile not os.path.exists('/tmp/finish'): time.sleep(0.05)"
FAILS_WHEN_TOLD = f"{WAITS}\nraise SystemExit(3)"


@contextmanager
def team_on(node: NodeCluster, folder: Path) -> Iterator[Team]:
    install_crds(node)
    node.load_image(images.operator_image())
    namespace = make_namespace(node.client, "kubelet")
    with team_in(node, namespace, folder, *IMAGE, **SEALED_TEAM) as team:
        team.operator.start()
        team.make_binding(secrets=[sealed_entry(team, team.value)], delivery="Sealed")
        yield team


def container(name: str, code: str, **fields: str) -> Object:
    return {"name": name, "image": TASK_IMAGE, "command": python(code), **fields}


def status_of(pod: Object, name: str) -> Object:
    listed = [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]
    return next((item for item in listed if item["name"] == name), {})


def runs_in(pod: Object, *names: str) -> bool:
    return all("running" in status_of(pod, name).get("state", {}) for name in names)


def process_has_ended(team: Team, pod: str, name: str) -> bool:
    """Whether the container can be entered no more: the kubelet asks the runtime."""
    try:
        team.cluster.kubectl("exec", "-n", team.namespace, pod, "-c", name, "--", "true")
    except ClusterError:
        return True
    return False


def state(request: Object) -> tuple[str, str]:
    found = request.get("status", {}).get("conditions", [{}])[0]
    return found.get("type", ""), found.get("reason", "")


def with_values(team: Team) -> list[int]:
    """For each certificate that was ever issued here, how many extensions it has: what holds nothing has none."""
    return [len(x509.load_pem_x509_certificate(item).extensions) for item in set(certificates(team))]


def test_pods_end_and_go_on_after_the_kubelet_was_started_again(own_node: OwnNode, tmp_path: Path) -> None:
    node = own_node()
    with team_on(node, tmp_path) as team:
        before = [container("before", WAITS)]
        sidecar = [container("sidecar", FAILS_WHEN_TOLD, restartPolicy="Always")]
        command = python(FINISHES_WHEN_TOLD)
        main = [container("main", FINISHES_WHEN_TOLD)]
        finished = team.make_run("finished")
        team.wait_phase("finished", "Succeeded", "Failed")
        runs = {
            "runs": team.make_run("runs", command=command),
            "sidecar": team.make_run("sidecar", pod={"containers": main, "initContainers": sidecar}),
            "fails": team.make_run("fails", pod={"containers": main, "initContainers": sidecar}),
            "starts": team.make_run(
                "starts",
                pod={"containers": [container("main", CHECKS_ITS_VARIABLE)], "initContainers": before},
            ),
        }
        team.wait_pod(runs["runs"], lambda pod: runs_in(pod, "main"))
        team.wait_pod(runs["sidecar"], lambda pod: runs_in(pod, "main", "sidecar"))
        team.wait_pod(runs["fails"], lambda pod: runs_in(pod, "main", "sidecar"))
        pod = team.wait_pod(runs["starts"], lambda pod: runs_in(pod, "before"))
        name = pod["metadata"]["name"]
        wait_until("the used requests to be deleted", lambda: requests_of(team) == [])

        # The control: without an answer, a container whose turn it is does not start.
        team.operator.kill()
        node.restart("kubelet")
        pods = {team.pod(found)["metadata"]["name"] for found in (finished, *runs.values())}
        wait_until(
            "the kubelet to ask again for every pod",
            lambda: {item["spec"]["podName"] for item in requests_of(team)} == pods,
        )
        team.tell_pod_to_finish(name, "before")
        wait_until("the init container to end", lambda: process_has_ended(team, name, "before"))
        assert not status_of(team.client.get("pods", name, team.namespace), "main").get("started")
        team.operator.start()

        found = team.wait_phase("starts", "Succeeded", "Failed")
        assert phase(found) == "Succeeded", found["status"]
        assert team.output(found) == f"sha256 {team.digest}\n"
        (asked,) = [item for item in requests_of(team) if item["spec"]["podName"] == name]
        answered = asked["status"]["conditions"][0]["lastTransitionTime"]
        ended = status_of(team.pod(found), "before")["state"]["terminated"]["finishedAt"]
        started = status_of(team.pod(found), "main")["state"]["terminated"]["startedAt"]
        assert ended <= answered <= started

        # The end of a task is seen, and its sidecar is stopped.
        for run in ("runs", "sidecar"):
            team.tell_to_finish(runs[run])
            ended_run = team.wait_phase(run, "Succeeded", "Failed")
            assert phase(ended_run) == "Succeeded", ended_run["status"]
        team.tell_to_finish(runs["fails"], "sidecar")
        team.wait_pod(
            runs["fails"],
            lambda pod: status_of(pod, "sidecar").get("restartCount") == 1 and runs_in(pod, "sidecar"),
        )
        team.tell_to_finish(runs["fails"])
        assert phase(team.wait_phase("fails", "Succeeded", "Failed")) == "Succeeded"

        # Each pod had its values once. What it was given later holds nothing, and nobody was refused.
        assert {state(item) for item in requests_of(team)} == {("Issued", "NothingToDeliver")}
        assert sorted(with_values(team)) == [0] * len(pods) + [1] * len(pods)
        for run in ("finished", *runs):
            told = team.run(run)
            assert condition(told, "RequestsRefused") == {}
            assert len(told["status"]["tasks"][0]["attempts"]) == 1


def test_a_key_that_was_lost_before_the_pod_could_use_it_costs_one_attempt(
    own_node: OwnNode, tmp_path: Path
) -> None:
    node = own_node()
    with team_on(node, tmp_path) as team:
        held(team)
        (first,) = requests_of(team)
        node.pause("kubelet")
        team.operator.start()
        delivered = [("Issued", "Delivered")]
        wait_until("it to be answered", lambda: [state(item) for item in requests_of(team)] == delivered)
        node.restart("kubelet")
        found = team.wait_run(
            "job", lambda run: len(run["status"]["tasks"][0]["attempts"]) == 2, says="the next attempt"
        )
        lost, again = found["status"]["tasks"][0]["attempts"]
        assert (lost["outcome"], lost["reason"]) == ("Disrupted", "Disrupted")
        assert lost["sealed"]["request"] == first["metadata"]["uid"]
        assert "opened" not in lost["sealed"]

        labels = f"batch.kubernetes.io/job-name={again['job']}"
        (pod,) = node.client.list("pods", team.namespace, labels=labels)
        name = pod["metadata"]["name"]
        node.client.patch("pods", name, team.namespace, {"spec": {"schedulingGates": None}})
        found = team.wait_phase("job", "Succeeded", "Failed")
        assert phase(found) == "Succeeded", found["status"]
        assert node.client.logs(name, team.namespace) == f"sha256 {team.digest}\n"
