"""The namespace for runs of docs/hardening.md: restricted pods have their values, and submitters can only submit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from testing.cluster.base import ClusterError, wait_until
from testing.cluster.client import KubeClient, Object
from testing.examples import EXAMPLES
from testing.namespace import TASK_IMAGE, Team, condition, phase, run
from tests.e2e.leaks.load import takes_variable
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e


@pytest.fixture
def runs_namespace(new_namespace: Callable[[], str], client: KubeClient) -> str:
    """The example, under another name."""
    name = new_namespace()
    text = (EXAMPLES / "hardening" / "run-namespace.yaml").read_text().replace("team-a-runs", name)
    for manifest in yaml.safe_load_all(text):
        client.apply(manifest)
    return name


RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
BOTH_WAYS: list[dict[str, Any]] = [
    {"name": "api_token", "secret": "token"},
    {"name": "as_file", "secret": "token", "file": "token"},
]


@pytest.fixture
def team(runs_namespace: str, new_team: TeamMaker) -> Team:
    """The operator is in a namespace of its own and serves this one."""
    operators = new_team(others=(runs_namespace,))
    team = Team(operators.cluster, runs_namespace, operators.operator)
    team.make_source()
    team.make_binding()
    return team


@pytest.fixture
def submitter(team: Team) -> KubeClient:
    """Somebody with the example's role and nothing else."""
    name = person(team)
    team.client.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "submitter", "namespace": team.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "submitter"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name}],
        }
    )
    wait_until("the rights", lambda: can(team, "create", "workflowruns.runkeys.dev"))
    return team.client.as_user(name)


def person(team: Team) -> str:
    return f"submitter-{team.namespace}"


def can(team: Team, verb: str, what: str) -> bool:
    """Whether the submitter may do that in the namespace, as kubectl says it."""
    asked = ("auth", "can-i", verb, *what.split(), "-n", team.namespace, f"--as={person(team)}")
    try:
        return team.cluster.kubectl(*asked).strip() == "yes"
    except ClusterError as error:
        if "ended with 1:" not in str(error) or "resource type" in str(error):
            raise  # that is no answer, or about a kind that is not there
        return False


def restricted(team: Team, who: KubeClient, context: dict[str, Any]) -> Object:
    """A run by this user, whose task has its value as variable and as file."""
    command = takes_variable(team.value)
    command[2] += "\nassert open('/var/runtime/secrets/token').read() == os.environ['SECRET_API_TOKEN']"
    main = {"name": "main", "image": TASK_IMAGE, "command": command, "securityContext": context}
    return who.create(
        run(
            team.namespace,
            requester={"username": person(team), "groups": ["system:authenticated"]},
            serviceAccountName="runner",
            task={"secrets": BOTH_WAYS},
            pod={"containers": [{**main, "imagePullPolicy": "IfNotPresent"}]},
        )
    )


def test_a_restricted_task_has_its_value(team: Team, submitter: KubeClient) -> None:
    restricted(team, submitter, RESTRICTED)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.secret_story() == ["made", "gone"]


def test_control_a_task_that_is_not_restricted_is_kept_out(team: Team, submitter: KubeClient) -> None:
    restricted(team, submitter, {})
    found = team.wait_condition("job", "Stalled", reason="PodNotCreated")
    assert 'violates PodSecurity "restricted' in condition(found, "Stalled")["message"]
    assert team.secret_story() == []


@pytest.mark.usefixtures("submitter")
def test_who_starts_runs_can_do_nothing_else(team: Team) -> None:
    here = [
        ("create", "workflowruns.runkeys.dev"),
        ("use", "secretbindings.runkeys.dev/keys"),
        ("get", "pods --subresource=log"),
    ]
    elsewhere = [
        *((verb, "secrets") for verb in ("get", "list", "watch", "create", "patch", "delete")),
        *(("create", what) for what in ("pods", "jobs.batch", "cronjobs.batch", "deployments.apps")),
        *((verb, "pods --subresource=exec") for verb in ("create", "get")),
        ("patch", "pods --subresource=ephemeralcontainers"),
        ("create", "serviceaccounts --subresource=token"),
        *((verb, "secretbindings.runkeys.dev") for verb in ("create", "patch", "use")),
        ("use", "secretbindings.runkeys.dev/another"),
        ("reveal", "secretbindings.runkeys.dev/keys"),
        ("create", "secretreveals.runkeys.dev"),
        ("patch", "workflowruns.runkeys.dev --subresource=status"),
    ]
    assert [what for what in here if not can(team, *what)] == []
    assert [what for what in elsewhere if can(team, *what)] == []
