"""Operator, chart and command line on the oldest API server, as far as one goes without pods."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from testing.cluster.base import ClusterError, wait_until
from testing.cluster.cache import CHECKOUT
from testing.cluster.node import NodeCluster
from testing.namespace import Team, condition, run
from testing.operators import CHART
from testing.people import give, may_not_use, may_use, person, public_key
from tests.e2e.conftest import OwnNode
from tests.e2e.runs.conftest import TeamMaker
from tests.oldest.test_matrix import FillsIn
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e


GITOPS = CHECKOUT / "docs" / "gitops.md"


def test_it_is_the_version_that_it_is_meant_to_be(cluster: NodeCluster) -> None:
    assert cluster.client.request("GET", "/version")["gitVersion"].startswith("v1.34.")


def test_the_chart_installs_all_but_what_the_server_does_not_know(own_node: OwnNode) -> None:
    server = own_node()
    words = ("runkeys", str(CHART), "--namespace", "runkeys-system")
    # Its hooks are Jobs, and nothing runs them here.
    server.helm("install", *words, "--create-namespace", "--no-hooks")
    manifest = server.helm("get", "manifest", "runkeys", "--namespace", "runkeys-system")
    kinds = [item["kind"] for item in yaml.safe_load_all(manifest) if item]
    assert [kind for kind in kinds if kind.startswith("Mutating")] == []
    assert len(server.client.list("validatingadmissionpolicies")) == kinds.count("ValidatingAdmissionPolicy")
    assert (
        len(server.client.list("customresourcedefinitions")) == kinds.count("CustomResourceDefinition") == 4
    )
    server.helm("upgrade", *words, "--no-hooks")


def ready(new_team: TeamMaker) -> Team:
    team = new_team("--sweep-seconds", "1")
    team.make_source()
    team.make_binding()
    public_key(team)
    team.operator.wait_serving()
    return team


def test_the_operator_acts_for_who_may_use_and_for_nobody_else(new_team: TeamMaker) -> None:
    team = ready(new_team)
    alice = person(team, "alice", use=("keys",))
    client = FillsIn(alice.client)
    made = client.create(run(team.namespace, "allowed"))
    name = team.object_name(made)
    team.client.wait_for("jobs", name, team.namespace, bool)

    # Revoked before the operator has ever seen the run.
    team.operator.kill()
    waits = client.create(run(team.namespace, "revoked"))
    may_not_use(team, "alice", "keys")
    team.operator.start()
    found = team.wait_condition("revoked", "Stalled", reason="UseDenied")
    assert (
        "alice, who created the run, may not use SecretBinding keys" in condition(found, "Stalled")["message"]
    )
    assert team.object_name(waits) not in team.jobs()
    may_use(team, "alice", "keys", role="use-again")
    team.client.wait_for("jobs", team.object_name(waits), team.namespace, bool)
    assert team.secret_story() == [], "no pod has a node here"


def test_control_without_the_policies_it_makes_nothing(new_team: TeamMaker) -> None:
    team = ready(new_team)
    client = FillsIn(person(team, "alice", use=("keys",)).client)
    with team.without_policies("use"):
        wait_until("the operator to notice", lambda: "is missing" in team.operator.text())
        client.create(run(team.namespace, "waits"))
        team.wait_condition("waits", "Stalled", reason="PoliciesMissing")
        assert team.jobs() == []
    found = team.wait_phase("waits", "Failed")
    assert condition(found, "Stalled")["reason"] == "RequesterUnknown", "it was made while they were away"
    found = client.create(run(team.namespace, "again"))
    team.client.wait_for("jobs", team.object_name(found), team.namespace, bool)


def test_the_command_line_fills_in_who_makes_the_run(new_team: TeamMaker, tmp_path: Path) -> None:
    team = ready(new_team)
    account = {"name": "runner", "namespace": team.namespace}
    team.client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    user = f"system:serviceaccount:{team.namespace}:runner"
    person_of(team, user)
    token = team.client.token(team.namespace, "runner")
    kubeconfig = team.cluster.kubeconfig_for(token, tmp_path / "kubeconfig", namespace=team.namespace)
    more = {"KUBECONFIG": str(kubeconfig), "RUNKEYS_OPERATOR_NAMESPACE": team.namespace}
    terminal = Terminal(tmp_path, more)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run(team.namespace)))
    terminal.ok("run", "-f", "run.yaml")
    assert team.run()["spec"]["requester"]["username"] == user
    team.client.wait_for("jobs", team.object_name(team.run()), team.namespace, bool)


def test_a_run_in_git_says_who_makes_it(new_team: TeamMaker, tmp_path: Path) -> None:
    """As docs/gitops.md has it for these versions."""
    team = ready(new_team)
    account = {"name": "deployer", "namespace": team.namespace}
    team.client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    user = f"system:serviceaccount:{team.namespace}:deployer"
    person_of(team, user)
    token = team.client.token(team.namespace, "deployer")
    kubeconfig = team.cluster.kubeconfig_for(token, tmp_path / "kubeconfig", namespace=team.namespace)
    text = re.findall(r"```yaml\n(spec:\n  requester:.*?)```", GITOPS.read_text(), re.DOTALL)[0]
    requester = yaml.safe_load(text.replace("team-a", team.namespace))["spec"]["requester"]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run(team.namespace)))
    with pytest.raises(ClusterError, match=r"spec\.requester must be"):
        team.cluster.kubectl("--kubeconfig", str(kubeconfig), "apply", "--server-side", "-f", str(path))
    path.write_text(yaml.safe_dump(run(team.namespace, requester=requester)))
    team.cluster.kubectl("--kubeconfig", str(kubeconfig), "apply", "--server-side", "-f", str(path))
    assert team.run()["spec"]["requester"] == requester


def person_of(team: Team, user: str) -> None:
    """Let a service account make runs that use the team's binding."""
    runs = {
        "apiGroups": ["runkeys.dev"],
        "resources": ["workflowruns"],
        "verbs": ["create", "get", "list", "watch", "patch"],
    }
    give(team, "edit-runner", user, [runs])
    may_use(team, user, "keys", role="use-runner")
