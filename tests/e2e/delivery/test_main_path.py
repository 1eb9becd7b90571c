"""A run whose value is never in etcd, and its twin with a Secret."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runkeys.api import WorkflowRun
from runkeys.cli._output import now, run_lines
from testing.cluster.audit import in_order
from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.namespace import FINISHES_WHEN_TOLD, Team, condition, exposures, phase, python
from testing.people import sealed_entry

pytestmark = pytest.mark.e2e

REQUESTS = "podcertificaterequests"


def places_of(team: Team, node: Cluster) -> set[str]:
    """Keys of etcd that held the team's value at any revision; a planted one is found first."""
    planted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "planted"}}
    planted["metadata"]["namespace"] = team.namespace  # type: ignore[index]
    team.client.create({**planted, "data": {"value": team.value}})
    found = set(node.etcd.find(team.value.encode(), since=1))
    where = f"/registry/configmaps/{team.namespace}/planted"
    assert where in found, "the search finds what is there"
    return found - {where}


def test_the_value_is_in_the_container_and_never_in_etcd(team: Team, node: Cluster) -> None:
    mark = node.audit.mark()
    team.make_run()
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.output(found) == f"sha256 {team.digest}\n"

    assert places_of(team, node) == set()
    assert team.secret_story() == [], "no Secret was made at any time"

    # what the status says
    assert exposures(found) == []
    assert found["status"]["exposed"] == "0.0s"
    assert found["status"]["live"] == 0
    assert condition(found, "SecretsReleased")["status"] == "True"
    (attempt,) = found["status"]["tasks"][0]["attempts"]
    assert attempt["startTime"] <= attempt["sealed"]["delivered"] <= attempt["sealed"]["opened"]

    # one request, answered once, deleted when it had been opened
    calls = [
        f"{event.verb} {event.resource}"
        for event in in_order(node.audit.events(mark, namespace=team.namespace))
        if event.resource.startswith(REQUESTS)
        # The kubelet asks again if the API server's own cache has not come to the pod's node yet.
        and event.verb not in ("get", "list", "watch")
        and event.status < 300
    ]
    assert calls == [f"create {REQUESTS}", f"patch {REQUESTS}/status", f"delete {REQUESTS}"]
    assert node.etcd.keys(f"/registry/{REQUESTS}/{team.namespace}/") == []


def test_the_status_says_that_the_pod_has_it(team: Team) -> None:
    team.make_run(command=python(FINISHES_WHEN_TOLD))

    def is_told(found: Object) -> bool:
        return shown(found)[1].count("api_token in the pod") == 1

    found = team.wait_run("job", is_told, says="the value in the pod")
    team.wait_running(found)
    team.tell_to_finish(found)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert "api_token gone" in shown(found)[1]
    assert shown(found)[-1] == "Released: yes, delivered sealed; no Secret was ever created"


def shown(found: Object) -> list[str]:
    """What `runkeys status` prints."""
    return run_lines(WorkflowRun.parse(found), now())[-3:]


def test_the_twin_with_a_secret_is_found(sealed_team: Callable[..., Team], node: Cluster) -> None:
    team = sealed_team(delivery="Secret")
    team.make_run()
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert places_of(team, node) == {f"/registry/secrets/{team.namespace}/{team.object_name(found)}"}


def test_several_containers_files_and_a_retry(team: Team, node: Cluster) -> None:
    entries = [
        sealed_entry(team, "first line\nsecond line " + team.value, binding="more", entry="lines"),
        sealed_entry(team, f"it's\r\n{team.value}", binding="more", entry="file"),
    ]
    team.make_binding("more", secrets=entries)
    code = f"""
import hashlib, os, sys
sha = lambda text: hashlib.sha256(text.encode()).hexdigest()
assert sha(os.environ["SECRET_API_TOKEN"]) == {team.digest!r}
assert os.environ["SECRET_LINES"].startswith("first line\\nsecond line ")
assert sha(os.environ["SECRET_LINES"].rsplit(" ", 1)[1]) == {team.digest!r}
content = open("/var/runtime/secrets/token.txt", "rb").read()
assert content.startswith(b"it's\\r\\n")
assert sha(content[6:].decode()) == {team.digest!r}
"""
    image = {"image": "localhost/runkeys-task:1", "imagePullPolicy": "IfNotPresent"}
    fails_once = f"{code}\nsys.exit('-1-' in os.environ['JOB'])"
    job = {"name": "JOB", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['job-name']"}}}
    bare = (
        "import os; assert not any(name.startswith('SECRET_') for name in os.environ);"
        "assert not os.path.exists('/var/runtime')"
    )
    pod = {
        "containers": [
            {"name": "main", **image, "command": ["python3", "-c", fails_once], "env": [job]},
            {"name": "second", **image, "command": ["python3", "-c", code]},
            {"name": "bare", **image, "command": ["python3", "-c", bare]},
        ],
    }
    task = {
        "containers": ["main", "second"],
        "backoffLimit": 1,
        "secrets": [
            {"name": "api_token", "secret": "token"},
            {"name": "lines", "secret": "lines"},
            {"name": "file", "secret": "file", "file": "token.txt"},
        ],
    }
    team.make_run(bindings=[{"name": "keys"}, {"name": "more"}], pod=pod, task=task)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    first, second = found["status"]["tasks"][0]["attempts"]
    assert first["outcome"] == "Failed"
    assert first["sealed"]["request"] != second["sealed"]["request"]
    assert places_of(team, node) == set()
    assert team.secret_story() == []
