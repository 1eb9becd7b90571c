"""Whoever is away or dies meanwhile: the pod waits and goes on, or fails at its start deadline; never without."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.cluster import images
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import Object
from testing.namespace import (
    CHECKS_ITS_VARIABLE,
    HELD_BACK,
    TASK_IMAGE,
    Team,
    condition,
    exposures,
    make_namespace,
    phase,
    python,
    team_in,
)
from testing.operators import install_crds
from testing.people import sealed_entry
from tests.conftest import FULL
from tests.e2e.conftest import OwnNode
from tests.e2e.delivery.conftest import IMAGE, SEALED_TEAM
from tests.e2e.runs import test_kill_at_every_call as kills

pytestmark = pytest.mark.e2e

REQUESTS = "podcertificaterequests"


def requests_of(team: Team) -> list[Object]:
    where = f"/apis/certificates.k8s.io/v1/namespaces/{team.namespace}/{REQUESTS}"
    return list(team.client.request("GET", where)["items"])


def is_on_record(run: Object) -> bool:
    return any(task.get("attempts") for task in run.get("status", {}).get("tasks", []))


def held(team: Team, *, start_deadline_seconds: int = 600) -> Object:
    """A run whose pod waits for its values; the operator is away by then."""
    task = {"startDeadlineSeconds": start_deadline_seconds}
    team.make_run(pod={"containers": [container()], **HELD_BACK}, task=task)
    found = team.run()
    team.pod(found)
    # a Job that is not on record yet would be replaced, and its pod held back again
    team.wait_run("job", is_on_record, says="the Job on record")
    team.operator.kill()
    team.let_go(found)
    wait_until("the kubelet to ask", lambda: len(requests_of(team)) == 1)
    return found


def container() -> Object:
    return {"name": "main", "image": TASK_IMAGE, "command": python(CHECKS_ITS_VARIABLE)}


def check_ended_well(team: Team) -> None:
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.output(found) == f"sha256 {team.digest}\n"
    assert team.secret_story() == []


def test_the_operator_is_away_and_the_pod_waits(team: Team) -> None:
    held(team)
    team.operator.start()
    check_ended_well(team)


def test_the_kubelet_starts_again_while_its_request_is_open(own_node: OwnNode, tmp_path: Path) -> None:
    """On a node of its own: it asks again for the pods of all others, too."""
    node = own_node()
    install_crds(node)
    node.load_image(images.operator_image())
    namespace = make_namespace(node.client, "kubelet")
    with team_in(node, namespace, tmp_path, *IMAGE, **SEALED_TEAM) as team:
        team.operator.start()
        team.make_binding(secrets=[sealed_entry(team, team.value)], delivery="Sealed")
        held(team)
        (first,) = requests_of(team)
        node.restart("kubelet")
        wait_until("the kubelet to ask again", lambda: len(requests_of(team)) == 2)
        team.operator.start()
        check_ended_well(team)
        (attempt,) = team.run()["status"]["tasks"][0]["attempts"]
        assert attempt["sealed"]["request"] != first["metadata"]["uid"], (
            "what nobody can open is not answered"
        )


def upgrade(team: Team) -> None:
    """Start the operator, which is away, with the name of another image for the unseal container."""
    team.operator.arguments += ("--sealed-delivery-image", NEXT)
    team.operator.start()


NEXT = "localhost/runkeys-operator:next"


def test_an_upgrade_while_a_pod_waits_costs_it_nothing(team: Team) -> None:
    held(team)
    upgrade(team)
    check_ended_well(team)
    (attempt,) = team.run()["status"]["tasks"][0]["attempts"]
    assert attempt["unsealer"] == images.OPERATOR_IMAGE


def test_control_without_the_image_on_record_it_costs_an_attempt(team: Team) -> None:
    """As for an attempt that a version before began. The next one is of the version that is there."""
    held(team)
    with team.without_policies("status"):
        path = "/status/tasks/0/attempts/0/unsealer"
        change = [{"op": "remove", "path": path}]
        team.client.patch("workflowruns", "job", team.namespace, change, how="json", subresource="status")
    upgrade(team)
    found = team.wait_run(
        "job", lambda run: len(run["status"]["tasks"][0]["attempts"]) == 2, says="the next attempt"
    )
    first, second = found["status"]["tasks"][0]["attempts"]
    assert (first["outcome"], first["reason"]) == ("Disrupted", "Disrupted")
    assert second["unsealer"] == NEXT
    job = team.client.get("jobs", second["job"], team.namespace)
    assert job["spec"]["template"]["spec"]["initContainers"][0]["image"] == NEXT


def test_a_binding_that_changes_its_delivery_gives_nothing_to_a_job_of_before(team: Team) -> None:
    held(team, start_deadline_seconds=60)
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"delivery": "Secret"}})
    team.operator.start()
    team.wait_condition("job", "Stalled", reason="DeliveryChanged")
    found = team.wait_phase("job", "Failed", "Succeeded")
    assert found["status"]["tasks"][0]["reason"] == "StartDeadlineExceeded"
    assert team.secret_story() == []
    assert condition(found, "SecretsReleased")["status"] == "True"


def succeed(team: Team) -> Object:
    """A life in which all that is written for a sealed delivery is written."""
    team.make_binding(secrets=[sealed_entry(team, team.value)], delivery="Sealed")
    kills.make_run(team)
    return team.wait_phase("job", "Succeeded", "Failed", "Cancelled", timeout=kills.SECONDS)


def check(team: Team, found: Object, life: kills.Life) -> None:
    assert phase(found) == life.phase, found["status"]
    assert exposures(found) == []
    assert team.secret_story() == []
    assert found["status"]["exposed"] == "0.0s"
    attempts = found["status"]["tasks"][0]["attempts"]
    assert len(attempts) == 1
    assert attempts[0]["sealed"]["delivered"] <= attempts[0]["sealed"]["opened"]
    wait_until("no request to be left", lambda: requests_of(team) == [])
    assert set(team.cluster.etcd.find(team.value.encode(), since=team.since)) == set()


WRITES = frozenset(
    (
        "create leases",
        "patch secrets",
        "patch configmaps",
        "patch secretbindings/status",
        "patch workflowruns/status",
        "create jobs",
        f"patch {REQUESTS}/status",
        f"delete {REQUESTS}",
    )
)


@pytest.mark.proof
@pytest.mark.timeout(7200 if FULL else 900)
@pytest.mark.usefixtures("crds", "opener")
def test_a_sealed_run_survives_a_kill_at_every_call(node: Cluster, tmp_path: Path) -> None:
    life = kills.Life(succeed, "Succeeded", WRITES, check, arguments=IMAGE, options=SEALED_TEAM)
    rehearsed = kills.rehearse(node, tmp_path, life)
    assert {text.removesuffix("*") for text in rehearsed if text.endswith("*")} == WRITES
    own = WRITES if FULL else WRITES - kills.SUCCEEDS.writes
    cases = kills.kills_of(rehearsed, own, 6, "kills of a sealed run")
    hits = kills.play_all([kills.Case(node, tmp_path, life, (each,)) for each in cases])
    kills.check_hits(cases, hits, own)
