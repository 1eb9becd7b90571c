"""What tools do to the example's objects, with the rights of the example's account and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runkeys.sealing import NamespaceEntry
from testing.cluster import build
from testing.cluster.base import ClusterError, wait_until
from testing.namespace import TASK_IMAGE, Team, canary, phase
from testing.people import may
from tests.e2e.gitops.test_manifests_in_git import GITOPS, Checkout, checkout

__all__ = ["checkout"]

pytestmark = pytest.mark.e2e


class Deployer:
    """A tool's account."""

    def __init__(self, team: Team, folder: Path) -> None:
        self.team = team
        for manifest in yaml.safe_load_all((GITOPS / "account.yaml").read_text()):
            manifest["metadata"]["namespace"] = team.namespace
            for subject in manifest.get("subjects", []):
                subject["namespace"] = team.namespace
            team.client.create(manifest)
        self.name = f"system:serviceaccount:{team.namespace}:deployer"
        self.wait_may_use(True)
        token = team.client.token(team.namespace, "deployer")
        self.kubeconfig = team.cluster.kubeconfig_for(token, folder / "deployer", namespace=team.namespace)

    def wait_may_use(self, expected: bool) -> None:
        client = self.team.client.as_user(self.name)
        use = (client, self.team.namespace, "use", "secretbindings", "nightly")
        wait_until(f"its right to be {expected}", lambda: may(*use) is expected)

    def kubectl(self, *words: str | Path) -> str:
        """Raises ClusterError with what it said."""
        kubectl = build.program("kubectl")
        return self.team.cluster.run(kubectl, "--kubeconfig", self.kubeconfig, *words)


@pytest.fixture
def deployer(team: Team, tmp_path: Path) -> Deployer:
    return Deployer(team, tmp_path)


def test_its_rights_are_enough_and_it_is_on_record(
    team: Team, checkout: Checkout, deployer: Deployer
) -> None:
    flags = ("--server-side", "--field-manager=kustomize-controller", "-k", checkout.folder)
    deployer.kubectl("apply", *flags)
    found = team.wait_phase("nightly", "Succeeded", "Failed")
    assert (phase(found), found["spec"]["requester"]["username"]) == ("Succeeded", deployer.name)
    assert deployer.kubectl("diff", *flags) == ""
    deployer.kubectl("apply", *flags)
    assert team.run("nightly")["metadata"]["uid"] == found["metadata"]["uid"], "it did not run again"


def test_control_without_use_it_deploys_neither(team: Team, checkout: Checkout, deployer: Deployer) -> None:
    """What is in Git is no way round, whoever may push."""
    role = team.client.get("roles", "deployer", team.namespace)
    team.client.patch("roles", "deployer", team.namespace, {"rules": role["rules"][:1]})
    deployer.wait_may_use(False)
    for folder in ("bindings", "runs"):
        with pytest.raises(ClusterError, match="deployer may not use SecretBinding nightly"):
            deployer.kubectl("apply", "-k", checkout.folder / "team" / folder)


@pytest.mark.parametrize("words", [("replace", "--force"), ("apply", "--force")], ids=["replace", "apply"])
def test_a_run_that_holds_a_secret_is_made_again_and_leaves_none(
    team: Team, checkout: Checkout, deployer: Deployer, words: tuple[str, ...]
) -> None:
    """`replace --force` is what Argo CD does for Force=true,Replace=true."""
    checkout.replace(checkout.run, "test -n", "sleep 600; test -n")
    deployer.kubectl("apply", "-k", checkout.folder)
    first = team.run("nightly")
    team.wait_running(first)
    assert team.live_secrets() == [team.object_name(first)]
    checkout.replace(checkout.run, "sleep 600; ", "")
    deployer.kubectl(*words, "-f", checkout.run)
    second = team.wait_phase("nightly", "Succeeded", "Failed")
    assert phase(second) == "Succeeded", second["status"]
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert team.secret_story(team.object_name(first)) == ["made", "gone"]
    assert team.live_secrets() == []


def test_a_hook_is_a_run_for_each_sync(
    team: Team, checkout: Checkout, deployer: Deployer, tmp_path: Path
) -> None:
    hook = tmp_path / "hook.yaml"
    hook.write_text((GITOPS / "argocd" / "hook.yaml").read_text().replace("busybox:1.37", TASK_IMAGE))
    deployer.kubectl("apply", "-k", checkout.folder / "team" / "bindings")
    made = [deployer.kubectl("create", "-f", hook, "-o", "name").strip().partition("/")[2] for _ in range(2)]
    assert len(set(made)) == 2
    for name in made:
        found = team.wait_phase(name, "Succeeded", "Failed")
        assert (phase(found), found["spec"]["requester"]["username"]) == ("Succeeded", deployer.name)
    # Nothing else takes it: it lies in a folder of plain files.
    with pytest.raises(ClusterError, match="generate name"):
        deployer.kubectl("apply", "-f", hook)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "kustomization.yaml").write_text("resources: [hook.yaml]\n")
    (tmp_path / "plain" / "hook.yaml").write_text(hook.read_text())
    with pytest.raises(ClusterError, match=r"missing metadata\.name"):
        deployer.kubectl("kustomize", tmp_path / "plain")


def test_a_prefix_reaches_the_runs_too(team: Team, checkout: Checkout) -> None:
    checkout.seal(NamespaceEntry(team.namespace, "api-token"), canary())
    checkout.replace(checkout.binding, r"( +)sealed: ", r"\1scope: Namespace\n\1sealed: ")
    checkout.overlay(namePrefix="a-")
    with_strange_name = checkout.team.cluster.kubectl("kustomize", str(checkout.folder))
    assert "- name: nightly\n" in with_strange_name, (
        "the twin: without names.yaml the run asks for the old name"
    )
    checkout.overlay(namePrefix="a-", configurations=["team/names.yaml"])
    checkout.kubectl("apply", "--server-side")
    found = team.wait_phase("a-nightly", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert found["spec"]["bindings"] == [{"name": "a-nightly"}]
