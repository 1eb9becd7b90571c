"""Pods of a JobSet ask for secrets: those of one of its Jobs have them, and after a restart of the set again."""

from __future__ import annotations

import pytest

from testing import examples
from testing.cluster.base import wait_until
from testing.cluster.client import PATIENCE, Object
from testing.namespace import Team, python
from tests.e2e.pods.conftest import events_of
from tests.engines import jobset
from tests.engines.conftest import EngineTeam, carriers, show

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

EXAMPLE = "jobset"
FAIL_FIRST = """
import hashlib, os, sys
print('sha256', hashlib.sha256(os.environ['IBM_TOKEN'].encode()).hexdigest(), flush=True)
sys.exit(os.environ['RESTARTS'] == '0')
"""
RESTARTS = {
    "name": "RESTARTS",
    "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['jobset.sigs.k8s.io/restart-attempt']"}},
}


@pytest.fixture
def team(job_sets: None, engine_team: EngineTeam) -> Team:  # noqa: ARG001
    """A namespace with the account and the binding of the example."""
    return engine_team(EXAMPLE)


def example(team: Team) -> Object:
    """The JobSet of the example."""
    [found] = examples.of_engine(f"{EXAMPLE}/jobset.yaml", team.namespace, {})
    return found


def wait_ended(team: Team, job_set: Object) -> Object:
    """The JobSet, once it has ended; shows its pods' Events and the controller's log if that never comes."""
    name = job_set["metadata"]["name"]
    try:
        return team.client.wait_for(
            "jobsets", name, team.namespace, lambda found: bool(jobset.outcome(found)), 2 * PATIENCE
        )
    except AssertionError as error:
        told = [
            f"{pod['metadata']['name']}: {item['reason']}: {item['message']}"
            for pod in team.client.list("pods", team.namespace)
            for item in events_of(team, pod["metadata"]["name"])
        ]
        log, operators = show(team.cluster, jobset.NAMESPACE), team.operator.text()[-3000:]
        raise AssertionError(f"{error}\n{told}\n{log}\n{operators}") from None


def printed(team: Team, job_set: Object) -> dict[str, list[str]]:
    """What the pods that are there have printed, by the name of their Job."""
    return {
        job: sorted(team.client.logs(pod["metadata"]["name"], team.namespace, "main").strip() for pod in pods)
        for job, pods in jobset.pods_of(team.cluster, job_set).items()
    }


def test_the_example_runs_as_it_is_written(team: Team) -> None:
    found = wait_ended(team, team.client.create(example(team)))
    assert jobset.outcome(found) == "Completed", found["status"]
    assert printed(team, found) == {
        "driver": ["IBM_TOKEN is not set"],
        "workers": ["IBM_TOKEN is set"] * 4,
    }
    for job, pods in jobset.pods_of(team.cluster, found).items():
        expected = {"main", "runkeys-open"} if job == "workers" else set()
        assert [carriers(pod, "IBM_TOKEN") for pod in pods] == [expected] * len(pods)


def test_pods_of_a_set_that_starts_again_have_it_again(team: Team) -> None:
    job_set = example(team)
    job_set["spec"]["failurePolicy"] = {"maxRestarts": 1}
    [workers] = [item for item in job_set["spec"]["replicatedJobs"] if item["name"] == "workers"]
    workers["replicas"] = 1
    workers["template"]["spec"] |= {"parallelism": 1, "completions": 1}
    [container] = workers["template"]["spec"]["template"]["spec"]["containers"]
    container |= {"command": python(FAIL_FIRST), "env": [RESTARTS]}
    job_set = team.client.create(job_set)
    seen: dict[str, str] = {}

    def both_answered() -> bool:
        for pod in jobset.pods_of(team.cluster, job_set).get("workers", []):
            for item in events_of(team, pod["metadata"]["name"]):
                if item["reason"] == "SecretsDelivered":
                    attempt = pod["metadata"]["labels"]["jobset.sigs.k8s.io/restart-attempt"]
                    seen[attempt] = pod["metadata"]["uid"]
        return set(seen) == {"0", "1"}

    wait_until("a pod of each attempt to have its value", both_answered, 2 * PATIENCE)
    found = wait_ended(team, job_set)
    assert (jobset.outcome(found), found["status"]["restarts"]) == ("Completed", 1), found["status"]
    assert len(set(seen.values())) == 2
    assert printed(team, found)["workers"] == [f"sha256 {team.digest}"]
