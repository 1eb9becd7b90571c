"""`plan` of manifests whose pods ask for secrets themselves: what they get, and what the cluster then does."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.namespace import Team
from testing.people import give
from tests.e2e.cli.conftest import UserMaker
from tests.e2e.pods.conftest import asking, new_team, pods_team, team, unsealer, wait_ended
from tests.e2e.pods.test_main_path import template_of
from tests.unit.cli.terminal import Terminal

__all__ = ["new_team", "pods_team", "team", "unsealer"]
pytestmark = pytest.mark.e2e


@pytest.fixture
def alice(team: Team, user: UserMaker) -> Terminal:
    """A user who may create pods, too."""
    who = f"system:serviceaccount:{team.namespace}:alice"
    pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}
    # As in the chart's ClusterRole for users.
    events = {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "list", "watch"]}
    made = user("alice")
    give(team, "pods-alice", who, [pods, events])
    return made


def write(terminal: Terminal, *manifests: Object) -> str:
    (terminal.folder / "pods.yaml").write_text(yaml.safe_dump_all(manifests))
    return "pods.yaml"


def workload(team: Team, kind: str, **changes: Any) -> Object:
    template = template_of(asking(team, **changes))
    metadata = {"name": kind.lower(), "namespace": team.namespace}
    if kind == "CronJob":
        spec: Object = {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": template}}}
        return {"apiVersion": "batch/v1", "kind": kind, "metadata": metadata, "spec": spec}
    spec = {"selector": {"matchLabels": template["metadata"]["labels"]}, "template": template}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


def test_it_shows_what_each_pod_would_get(team: Team, alice: Terminal) -> None:
    pod = asking(team, asked="keys/token, keys/token@token.txt")
    file = write(alice, workload(team, "CronJob"), {"kind": "Service", "spec": {}}, pod)
    assert alice.ok("plan", "-f", file) == (
        "PODS OF          CONTAINERS  GETS              FROM\n"
        "CronJob/cronjob  main        SECRET_API_TOKEN  keys/token\n"
        "Pod/task         main        SECRET_TOKEN      keys/token\n"
        "                             file token.txt    keys/token\n"
    )
    found = json.loads(alice.ok("plan", "-f", file, "-o", "json"))["pods"]
    assert [(item["name"], item["problems"]) for item in found] == [("CronJob/cronjob", []), ("Pod/task", [])]
    # Nothing was created, and what was foreseen happens.
    assert team.client.list("pods", team.namespace) == []
    team.client.create(asking(team))
    assert wait_ended(team, "task")["status"]["phase"] == "Succeeded"


def test_what_is_missing_is_said_with_what_mends_it(team: Team, alice: Terminal) -> None:
    only_web = [{"pods": {"createdBy": ["system:serviceaccount:kube-system:replicaset-controller"]}}]
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": only_web}})
    cron = workload(team, "CronJob", asked="keys/token, keys/tokens=B, nothing/x=C")
    right = workload(team, "Deployment", serviceAccountName="default", restartPolicy="Always")
    done = alice.run("plan", "-f", write(alice, cron, right))
    assert done.code == 5
    problems = done.out.splitlines()[5:]
    assert [line for line in problems if not line.startswith("Problem: ")] == []
    told = "\n".join(problems)
    assert "CronJob/cronjob: SecretBinding keys does not admit this pod" in told
    assert "system:serviceaccount:kube-system:job-controller, which created the pod, is not in" in told
    assert "SecretBinding keys has no entry 'tokens'; it has: token" in told
    assert f"there is no SecretBinding nothing in namespace {team.namespace}" in told
    assert "Deployment/deployment: the API server refuses such a pod" in told
    assert f"--serviceaccount={team.namespace}:default" in told
    assert told.count("Deployment/deployment") == 1, (
        "the binding admits what the ReplicaSet's controller creates"
    )


def test_the_list_of_pods_says_who_has_secrets_and_what_others_wait_for(team: Team, alice: Terminal) -> None:
    assert alice.run("pods").err == f"no pod asks for secrets in namespace {team.namespace}\n"
    team.client.create(asking(team, "has", code="import time; time.sleep(600)"))
    team.client.create(asking(team, "had", asked="keys/token@token.txt", code="pass"))
    team.client.create(asking(team, "waits", asked="keys/absent"))
    team.client.create({**asking(team, "plain"), "metadata": {"name": "plain", "namespace": team.namespace}})
    wait_ended(team, "had")
    team.client.wait_for("pods", "has", team.namespace, lambda pod: pod["status"]["phase"] == "Running")
    wait_until("what is missing", lambda: "Waits: waits: " in alice.ok("pods"))
    lines = alice.ok("pods").splitlines()
    assert lines[0].split() == ["POD", "SECRETS", "SINCE", "CONTAINERS", "FROM"]
    table = {line.split()[0]: line for line in lines[1:4]}
    assert set(table) == {"has", "had", "waits"}
    assert re.fullmatch(r"had +ended +\S+ ago +main +keys", table["had"])
    assert re.fullmatch(r"has +has them +\S+ ago +main +keys", table["has"])
    assert table["waits"].split()[1:] == ["waits", "–", "main", "keys"]  # noqa: RUF001 -- a dash is what is meant
    assert "SecretBinding keys has no entry 'absent'; it has: token" in lines[4]
    found = json.loads(alice.ok("pods", "-o", "json"))["pods"]
    assert {item["name"]: item["state"] for item in found} == {
        "has": "has them",
        "had": "ended",
        "waits": "waits",
    }
    used = team.client.get("secretbindings", "keys", team.namespace)["status"]["lastUsed"]
    assert datetime.fromisoformat(used) >= datetime.fromisoformat(
        team.client.get("pods", "had", team.namespace)["metadata"]["creationTimestamp"]
    )


def test_who_can_speaks_of_pods(team: Team, tmp_path: Path) -> None:
    rule = {
        "pods": {
            "selector": {"matchLabels": {"app": "nightly"}},
            "createdBy": ["system:serviceaccount:kube-system:job-controller"],
            "ownedBy": [{"apiGroup": "batch", "kind": "Job"}],
        },
        "serviceAccountNames": ["runner"],
    }
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": [rule, {"pods": {}}]}})
    team.client.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "by-username", "namespace": team.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "use-keys-by-pods"},
            "subjects": [{"kind": "User", "name": f"system:serviceaccount:{team.namespace}:nightly"}],
        }
    )
    admin = Terminal(tmp_path, {"KUBECONFIG": str(team.cluster.kubeconfig)})
    out = admin.ok("-n", team.namespace, "who-can", "use", "keys")
    rows = [line.split() for line in out.splitlines()]
    assert ["ServiceAccount", f"{team.namespace}:runner", "RoleBinding", "use-keys-by-pods"] in rows
    # Bound by its username, it is a service account as well.
    assert ["ServiceAccount", f"{team.namespace}:nightly", "RoleBinding", "by-username"] in rows
    assert (
        "Admits pods: with labels app=nightly; created by system:serviceaccount:kube-system:job-controller; controlled"
        " by a Job.batch; with service account runner\n"
    ) in out
    assert "Admits pods: all that ask\n" in out
