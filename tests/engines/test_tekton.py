"""Pods of Tekton ask for secrets: one step has them, and a TaskRun waits for an operator that is away."""

from __future__ import annotations

import time

import pytest

from testing import examples
from testing.cluster.base import wait_until
from testing.cluster.client import PATIENCE, Object
from testing.namespace import Team, python
from tests.e2e.pods.conftest import events_of
from tests.engines import tekton
from tests.engines.conftest import EngineTeam, carriers, holders, show

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

EXAMPLE = "tekton"
STEPS = ("step-prepare", "step-compute", "step-report")
AWAY = 20
HASH_THEN_WAIT = """
import hashlib, os, time
print('sha256', hashlib.sha256(os.environ['IBM_TOKEN'].encode()).hexdigest(), flush=True)
while not os.path.exists('/tmp/finish'):
    time.sleep(0.05)
"""


@pytest.fixture
def team(tekton_pipelines: None, engine_team: EngineTeam) -> Team:  # noqa: ARG001
    """A namespace with the account and the binding of the example."""
    return engine_team(EXAMPLE)


def example(team: Team) -> Object:
    """The TaskRun of the example."""
    [run] = examples.of_engine(f"{EXAMPLE}/taskrun.yaml", team.namespace, tekton.SWAPS)
    return run


def wait_ended(team: Team, run: Object) -> Object:
    """The TaskRun, once it has ended; shows its pods' Events and the controller's log if that never comes."""
    name = run["metadata"]["name"]
    try:
        return team.client.wait_for("taskruns", name, team.namespace, tekton.ended, 2 * PATIENCE)
    except AssertionError as error:
        told = [f"{item['reason']}: {item['message']}" for item in events_of(team, f"{name}-pod")]
        log, operators = show(team.cluster, tekton.NAMESPACE), team.operator.text()[-3000:]
        raise AssertionError(f"{error}\n{told}\n{log}\n{operators}") from None


def printed(team: Team, run: Object) -> dict[str, str]:
    """What each step has printed."""
    pod = f"{run['metadata']['name']}-pod"
    return {step: team.client.logs(pod, team.namespace, step).strip() for step in STEPS}


WRITTEN = {
    "step-prepare": "IBM_TOKEN is not set",
    "step-compute": "IBM_TOKEN is set",
    "step-report": "IBM_TOKEN is not set",
}


def test_the_example_runs_as_it_is_written(team: Team) -> None:
    run = team.client.create(example(team))
    found = wait_ended(team, run)
    assert tekton.outcome(found)["status"] == "True", found["status"]
    assert printed(team, run) == WRITTEN


def test_only_one_step_has_it(team: Team) -> None:
    run = example(team)
    [step] = [item for item in run["spec"]["taskSpec"]["steps"] if item["name"] == "compute"]
    del step["script"]
    step["command"] = python(HASH_THEN_WAIT)
    run = team.client.create(run)
    name = f"{run['metadata']['name']}-pod"
    pod = team.client.wait_for(
        "pods", name, team.namespace, lambda pod: pod["status"].get("phase") == "Running", 2 * PATIENCE
    )
    assert carriers(pod, "IBM_TOKEN") == {"step-compute", "runkeys-open"}
    expected = f"sha256 {team.digest}\n"
    wait_until(
        "the step to have its value",
        lambda: team.client.logs(name, team.namespace, "step-compute") == expected,
    )
    # The next step's container is there already, waiting for this one.
    having = holders(team.value)
    assert any(line.startswith("python3 -c ") for line in having.values())
    others = {line for line in having.values() if "-step_metadata_dir /tekton/run/1/" not in line}
    assert {line for line in others if not line.startswith("python3 -c ")} == set()

    team.tell_pod_to_finish(name, "step-compute")
    assert tekton.outcome(wait_ended(team, run))["status"] == "True"


def test_a_task_run_waits_for_an_operator_that_is_away_over_its_start(team: Team) -> None:
    team.operator.stop()
    run = team.client.create(example(team))
    name = f"{run['metadata']['name']}-pod"

    def asked() -> bool:
        requests = team.client.list("podcertificaterequests", team.namespace)
        return any(item["spec"]["podName"] == name for item in requests)

    wait_until("the pod to ask", asked)
    time.sleep(AWAY)
    assert not tekton.ended(team.client.get("taskruns", run["metadata"]["name"], team.namespace))
    team.operator.start()
    found = wait_ended(team, run)
    assert tekton.outcome(found)["status"] == "True", found["status"]
    assert printed(team, run) == WRITTEN


def test_control_a_secret_that_comes_late_fails_the_task_run(team: Team) -> None:
    run = example(team)
    for key in ("labels", "annotations"):
        del run["metadata"][key]
    reference = {"secretKeyRef": {"name": "late", "key": "token"}}
    run["spec"]["taskSpec"]["steps"][1]["env"] = [{"name": "IBM_TOKEN", "valueFrom": reference}]
    found = wait_ended(team, team.client.create(run))
    assert tekton.outcome(found)["status"] == "False"
    assert tekton.outcome(found)["reason"] == "CreateContainerConfigError"
