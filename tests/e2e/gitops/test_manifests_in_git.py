"""The example's manifests through kustomize to a real API server: no drift, no conflict, clear refusals."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from runkeys.sealing import BindingEntry, Context, NamespaceEntry
from testing.cluster.base import ClusterError
from testing.cluster.client import Object
from testing.examples import EXAMPLES
from testing.namespace import TASK_IMAGE, Team, canary
from testing.people import public_key, sealed

pytestmark = pytest.mark.e2e

GITOPS = EXAMPLES / "gitops"
SIDES = {"server": ["--server-side"], "client": []}


class Checkout:
    """A team's clone of its repository, and kustomize's overlay for its namespace."""

    def __init__(self, team: Team, folder: Path) -> None:
        self.team = team
        self.folder = folder
        shutil.copytree(GITOPS / "team", folder / "team")
        self.binding = folder / "team" / "bindings" / "binding.yaml"
        self.run = folder / "team" / "runs" / "run.yaml"
        for path in (self.binding, self.run):
            self.replace(path, r"busybox:[*\d.]+", TASK_IMAGE)
        self.overlay()

    def overlay(self, **more: Any) -> None:
        found = {"namespace": self.team.namespace, "resources": ["team/bindings", "team/runs"], **more}
        (self.folder / "kustomization.yaml").write_text(yaml.safe_dump(found))

    def seal(self, context: Context, value: str) -> None:
        """Put a value into the binding, as `runkeys seal` does."""
        public_key(self.team)
        self.replace(self.binding, r"rk1\.[-\w.]+", sealed(self.team, context, value))

    @staticmethod
    def replace(path: Path, pattern: str, text: str) -> None:
        changed, count = re.subn(pattern, text, path.read_text())
        assert count, pattern
        path.write_text(changed)

    def kubectl(self, verb: str, *options: str) -> str:
        return self.team.cluster.kubectl(verb, *options, "-k", str(self.folder))

    def get_binding(self, name: str = "nightly") -> Object:
        """When the operator has judged it as it is now."""

        def judged(item: Object) -> bool:
            return bool(item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"])

        return self.team.client.wait_for("secretbindings", name, self.team.namespace, judged)


@pytest.fixture
def checkout(team: Team, tmp_path: Path) -> Checkout:
    made = Checkout(team, tmp_path)
    made.seal(BindingEntry(team.namespace, "nightly", "api-token"), canary())
    return made


def ready(binding: Object) -> Object:
    found: Object = next(item for item in binding["status"]["conditions"] if item["type"] == "Ready")
    return found


@pytest.mark.parametrize("side", SIDES)
def test_there_is_no_drift_and_no_conflict(team: Team, checkout: Checkout, side: str) -> None:
    checkout.kubectl("apply", *SIDES[side])
    assert ready(checkout.get_binding())["status"] == "True"
    team.wait_phase("nightly", "Succeeded")
    team.wait_condition("nightly", "SecretsReleased")
    assert checkout.kubectl("diff", *SIDES[side]) == ""
    checkout.kubectl("apply", *SIDES[side])

    # The twin: what has changed in Git is seen.
    checkout.replace(checkout.binding, r"serviceAccountNames: \[default\]", "serviceAccountNames: [other]")
    with pytest.raises(ClusterError, match="ended with 1"):
        checkout.kubectl("diff", *SIDES[side])


def test_a_changed_run_is_refused_in_words_that_tools_know_and_runs_again_when_made_anew(
    team: Team, checkout: Checkout
) -> None:
    checkout.kubectl("apply", "--server-side")
    first = team.wait_phase("nightly", "Succeeded")
    checkout.replace(checkout.run, r"is set", "is there")
    with pytest.raises(ClusterError, match=r"is\simmutable"):
        checkout.kubectl("apply", "--server-side")
    # What tools do then, if the object's annotation says so.
    team.client.delete("workflowruns", "nightly", team.namespace)
    team.client.wait_gone("workflowruns", "nightly", team.namespace)
    checkout.kubectl("apply", "--server-side")
    second = team.wait_phase("nightly", "Succeeded")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_prefix_takes_a_strict_value_out_of_its_place_and_the_message_names_the_remedy(
    team: Team, checkout: Checkout
) -> None:
    checkout.overlay(namePrefix="a-", resources=["team/bindings"])
    checkout.kubectl("apply", "--server-side")
    condition = ready(checkout.get_binding("a-nightly"))
    assert (condition["status"], condition["reason"]) == ("False", "SealContextMismatch")
    assert "namePrefix" in condition["message"]
    assert "scope: Namespace" in condition["message"]

    # The remedy works.
    checkout.seal(NamespaceEntry(team.namespace, "api-token"), canary())
    checkout.replace(checkout.binding, r"( +)sealed: ", r"\1scope: Namespace\n\1sealed: ")
    checkout.kubectl("apply", "--server-side")
    assert ready(checkout.get_binding("a-nightly"))["status"] == "True"


def test_the_config_map_holds_the_health_checks() -> None:
    stored = yaml.safe_load((GITOPS / "argocd" / "argocd-cm.yaml").read_text())["data"]
    assert stored == {
        f"resource.customizations.health.runkeys.dev_{path.stem}": path.read_text()
        for path in sorted((GITOPS / "health").glob("*.lua"))
    }


def test_the_hook_is_a_run_that_the_cluster_takes(team: Team) -> None:
    hook = yaml.safe_load((GITOPS / "argocd" / "hook.yaml").read_text())
    made = [team.client.create(hook, team.namespace, dryRun="All")["metadata"]["name"] for _ in range(2)]
    assert len(set(made)) == 2
    assert all(name.startswith("after-sync-") for name in made)


def test_flux_finds_the_folders_that_are_there() -> None:
    found = list(yaml.safe_load_all((GITOPS / "flux" / "kustomizations.yaml").read_text()))
    assert [(GITOPS / item["spec"]["path"]).is_dir() for item in found] == [True, True]
