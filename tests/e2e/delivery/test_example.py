"""The shipped example, in a namespace that takes only pods as Pod Security's strictest level wants them."""

from __future__ import annotations

import copy

import pytest

from testing import examples
from testing.cluster.client import ApiError, Object
from testing.namespace import Team, exposures, phase
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture
def team(sealed_team: TeamMaker) -> Team:
    """A team in such a namespace, with what the example's README has people make."""
    made = sealed_team(sources=(examples.SOURCE,))
    made.client.patch("namespaces", made.namespace, None, {"metadata": {"labels": RESTRICTED}})
    made.client.create(examples.source_secret(made.namespace, made.value))
    return made


def a_pod(team: Team, template: Object) -> Object:
    metadata = {"name": "by-hand", "namespace": team.namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def test_the_example_runs_where_pod_security_is_restricted(team: Team) -> None:
    binding, run = examples.sealed_delivery(team.namespace)
    team.client.create(binding)
    made = team.client.create(run)
    name = made["metadata"]["name"]
    found = team.wait_phase(name, "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.output(found) == "SECRET_API_TOKEN is set\n"
    assert exposures(found) == []
    assert team.secret_story() == []
    (pod,) = team.client.list("pods", team.namespace, labels=f"runkeys.dev/run={name}")
    assert [item["name"] for item in pod["spec"]["initContainers"]] == ["runkeys-open"]


def test_control_the_namespace_refuses_a_pod_that_says_less(team: Team) -> None:
    """So that it is the init container of ours that fits, and not the namespace that looks away."""
    _, run = examples.sealed_delivery(team.namespace)
    template = run["spec"]["tasks"][0]["template"]
    team.client.create(a_pod(team, template), dryRun="All")
    for part in ("containers", "initContainers"):
        less = copy.deepcopy(template)
        bare = {"name": "bare", "image": "busybox:1.37"}
        less["spec"][part] = [*less["spec"].get(part, []), bare]
        with pytest.raises(ApiError, match="violates PodSecurity"):
            team.client.create(a_pod(team, less), dryRun="All")
