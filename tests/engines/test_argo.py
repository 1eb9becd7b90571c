"""Pods of Argo Workflows ask for secrets: the task that asks has them, and nothing of Argo ever sees them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from runkeys.sealing import PodParameter
from runkeys.sealing.parameter import seal_parameter
from testing import examples
from testing.cluster.base import wait_until
from testing.cluster.client import PATIENCE, Object
from testing.cluster.node import NodeCluster
from testing.namespace import TASK_IMAGE, Team, canary, python
from testing.people import public_key
from tests.e2e.pods.conftest import asking, events_of
from tests.engines import argo
from tests.engines.conftest import EngineTeam, carriers, holders, show

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

EXAMPLE = "argo-workflows"
HASH = "import hashlib, os; print('sha256', hashlib.sha256(os.environ['IBM_TOKEN'].encode()).hexdigest(), flush=True)"
ATTEMPT = f"""
import sys, time
{HASH}
if sys.argv[1] == '0':
    sys.exit(1)
while not os.path.exists('/tmp/finish'):
    time.sleep(0.05)
"""
SEES = "import os; print('IBM_TOKEN' in os.environ)"


@pytest.fixture
def team(argo_workflows: None, engine_team: EngineTeam) -> Team:  # noqa: ARG001
    """A namespace with the account and the binding of the example."""
    return engine_team(EXAMPLE)


def example(team: Team) -> Object:
    """The Workflow of the example."""
    [workflow] = examples.of_engine(f"{EXAMPLE}/workflow.yaml", team.namespace, argo.SWAPS)
    return workflow


def with_code(workflow: Object, template: str, code: str, *arguments: str) -> None:
    """Have a template run other code."""
    [found] = [item for item in workflow["spec"]["templates"] if item["name"] == template]
    found["container"] |= {"command": python(code), "args": list(arguments)}


def wait_ended(team: Team, workflow: Object) -> Object:
    """The Workflow, once it has ended; shows its pods' Events and the controller's log if that never comes."""
    name = workflow["metadata"]["name"]
    try:
        return team.client.wait_for("workflows", name, team.namespace, argo.ended, 2 * PATIENCE)
    except AssertionError as error:
        told = [
            f"{name}: {item['reason']}: {item['message']}"
            for name in (pod["metadata"]["name"] for pod in team.client.list("pods", team.namespace))
            for item in events_of(team, name)
        ]
        log, operators = show(team.cluster, argo.NAMESPACE), team.operator.text()[-3000:]
        raise AssertionError(f"{error}\n{told}\n{log}\n{operators}") from None


def log_of(team: Team, pod: Object) -> str:
    """What a task has printed, without Argo's own lines."""
    printed = team.client.logs(pod["metadata"]["name"], team.namespace, "main")
    return "\n".join(
        line for line in printed.splitlines() if not line.startswith(("time=", "Error: exit status"))
    )


def forms(value: str) -> list[bytes]:
    """A value as it would be found in what is stored: as it is, in hexadecimal, in base64 at any place."""
    plain = value.encode()
    return [plain, plain.hex().encode(), *(base64.b64encode(b"." * n + plain)[4:-4] for n in range(3))]


def test_the_example_runs_as_it_is_written(team: Team) -> None:
    workflow = team.client.create(example(team))
    found = wait_ended(team, workflow)
    assert found["status"]["phase"] == "Succeeded", found["status"]
    printed = {name: log_of(team, pod) for name, pod in argo.pods_of(team.cluster, workflow).items()}
    assert printed == {
        "prepare": "IBM_TOKEN is not set",
        "compute(0)": "IBM_TOKEN is set",
        "report": "IBM_TOKEN is not set",
    }


def test_only_the_task_that_asks_has_it_each_attempt_anew_and_no_container_of_argo(
    team: Team, node: NodeCluster
) -> None:
    workflow = example(team)
    with_code(workflow, "prepare", SEES)
    with_code(workflow, "compute", ATTEMPT, "{{retries}}")
    with_code(workflow, "report", SEES)
    workflow = team.client.create(workflow)

    def second() -> Object | None:
        pod = argo.pods_of(team.cluster, workflow).get("compute(1)")
        return pod if pod is not None and "sha256" in told(team, pod) else None

    wait_until("the second attempt to have its value", lambda: second() is not None, 2 * PATIENCE)
    pod = second()
    assert pod is not None
    assert {item["name"] for item in pod["spec"]["containers"]} == {"main", "wait"}
    assert carriers(pod, "IBM_TOKEN") == {"main", "runkeys-open"}
    # As the kernel has it: the task and what Argo starts it with have the value, Argo's own container has not.
    having = holders(team.value)
    assert {
        line
        for line in having.values()
        if not re.search(r"/argoexec emissary |^(/usr/local/bin/)?python3 -c ", line)
    } == set()
    assert any("/python3 -c " in line for line in having.values())
    waiting = {
        number for number, line in holders(f"ARGO_NODE_ID={node_id(pod)}").items() if "argoexec wait" in line
    }
    assert waiting
    assert not waiting & having.keys()

    team.tell_pod_to_finish(pod["metadata"]["name"])
    found = wait_ended(team, workflow)
    assert found["status"]["phase"] == "Succeeded", found["status"]
    printed = {name: log_of(team, pod) for name, pod in argo.pods_of(team.cluster, workflow).items()}
    assert printed == {
        "prepare": "False",
        "compute(0)": f"sha256 {team.digest}",
        "compute(1)": f"sha256 {team.digest}",
        "report": "False",
    }
    check_nothing_is_stored(team, node, found)


def told(team: Team, pod: Object) -> str:
    """The log of a pod that may not have started yet."""
    running = any(item["state"].get("running") for item in pod["status"].get("containerStatuses", []))
    return log_of(team, pod) if running else ""


def node_id(pod: Object) -> str:
    return str(pod["metadata"]["annotations"]["workflows.argoproj.io/node-id"])


def check_nothing_is_stored(team: Team, node: NodeCluster, ended: Object) -> None:
    """Assert that no revision of anything in etcd has the value, nor a log; a value that Argo passes on is found."""
    planted = canary()
    metadata = {"name": "planted", "namespace": team.namespace}
    container = {
        "image": TASK_IMAGE,
        "command": python("pass"),
        "args": ["{{inputs.parameters.token}}"],
    }
    spec = {
        "entrypoint": "main",
        "serviceAccountName": "runner",
        "arguments": {"parameters": [{"name": "token", "value": planted}]},
        "templates": [
            {"name": "main", "inputs": {"parameters": [{"name": "token"}]}, "container": container}
        ],
    }
    control = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata, "spec": spec}
    with_it = wait_ended(team, team.client.create(control))
    assert planted in json.dumps(with_it["status"]["nodes"]), "the control is in status.nodes"
    where = {
        key.partition(f"{team.namespace}/")[0] for key in node.etcd.find(*forms(planted), since=team.since)
    }
    assert {"/registry/argoproj.io/workflows/", "/registry/pods/"} <= where, "the search finds it"

    assert node.etcd.find(*forms(team.value), since=team.since) == {}
    assert ended["status"]["nodes"]
    assert team.value not in json.dumps(ended)
    logs = [
        path.name for path in node.log_files() if any(form in path.read_bytes() for form in forms(team.value))
    ]
    assert logs == []


def test_a_sealed_parameter_opens_in_the_pod_and_nowhere_else(team: Team, node: NodeCluster) -> None:
    place = PodParameter(team.namespace, "runner")
    value = canary()
    text = seal_parameter(value.encode(), place, datetime.now(UTC) + timedelta(hours=1), public_key(team))
    container = {
        "image": TASK_IMAGE,
        "command": python(
            "import hashlib, os; print(hashlib.sha256(os.environ['API_TOKEN'].encode()).hexdigest())"
        ),
    }
    annotations = {"runkeys.dev/sealed": "API_TOKEN={{inputs.parameters.token}}"}
    template = {
        "name": "main",
        "inputs": {"parameters": [{"name": "token"}]},
        "metadata": {"labels": {"runkeys.dev/secrets": "ask"}, "annotations": annotations},
        "container": container,
    }
    spec = {
        "entrypoint": "main",
        "serviceAccountName": "runner",
        "arguments": {"parameters": [{"name": "token", "value": text}]},
        "templates": [template],
    }
    metadata = {"name": "parameter", "namespace": team.namespace}
    workflow = team.client.create(
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata, "spec": spec}
    )
    found = wait_ended(team, workflow)
    assert found["status"]["phase"] == "Succeeded", found["status"]
    [pod] = argo.pods_of(team.cluster, workflow).values()
    assert log_of(team, pod) == hashlib.sha256(value.encode()).hexdigest()
    assert text in json.dumps(found["status"]["nodes"]), "the sealed text is where a password would be"
    assert node.etcd.find(*forms(value), since=team.since) == {}
    assert node.etcd.find(text.encode(), since=team.since) != {}, "the search finds what is there"


def test_a_pod_that_argo_did_not_create_gets_nothing(team: Team) -> None:
    # Everything else about it is right: label, account, images, what it asks for.
    team.client.create(asking(team, asked="ibm/ibmq-token=IBM_TOKEN", labels={"app": "nightly"}))

    def denials() -> list[str]:
        return [item["message"] for item in events_of(team, "task") if item["reason"] == "AccessDenied"]

    wait_until("an Event with the reason", lambda: bool(denials()))
    assert "createdBy" in denials()[0]
    assert team.client.get("pods", "task", team.namespace)["status"]["phase"] == "Pending"
