"""The kubelet shows nothing of a container that has secrets: no field by which it would is run, nor put in later.

Without Runkeys each of them gives the value away: that is what `leaks/entries_shown.py` plays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runkeys.planning.kubelet import COPIED, EXPANDED
from testing.cluster.base import wait_until
from testing.cluster.client import ApiError, KubeClient, Object
from testing.namespace import CHECKS_ITS_VARIABLE, TASK_IMAGE, Team, condition, python
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.trust.golden import check_golden, plain, told

pytestmark = pytest.mark.e2e

WORK: Object = {"name": "work", "emptyDir": {}}
CHECK = {"exec": {"command": ["sh", "-c", "echo $SECRET_API_TOKEN; exit 1"]}}
VALUE = "$(SECRET_API_TOKEN)"
FIELDS: dict[str, Object] = {
    "command[]": {"command": ["echo", VALUE]},
    "args[]": {"args": [VALUE]},
    "env[].value": {"env": [{"name": "COPY", "value": VALUE}]},
    "volumeMounts[].subPathExpr": {
        "volumeMounts": [{"name": "work", "mountPath": "/work", "subPathExpr": VALUE}]
    },
    "terminationMessagePolicy": {"terminationMessagePolicy": "FallbackToLogsOnError"},
    "terminationMessagePath": {"terminationMessagePath": "/var/runtime/secrets/token"},
    "livenessProbe.exec": {"livenessProbe": CHECK},
    "readinessProbe.exec": {"readinessProbe": CHECK},
    "startupProbe.exec": {"startupProbe": CHECK},
    "lifecycle.postStart.exec": {"lifecycle": {"postStart": CHECK}},
    "lifecycle.preStop.exec": {"lifecycle": {"preStop": CHECK}},
}
AS_FILE = {"secrets": [{"name": "api_token", "secret": "token", "file": "token"}]}


def main(**fields: Any) -> Object:
    return {"name": "main", "image": TASK_IMAGE, "command": python(CHECKS_ITS_VARIABLE), **fields}


def other(**fields: Any) -> Object:
    return {"name": "other", "image": TASK_IMAGE, **fields}


def mounted_at(path: str) -> Object:
    return {"containers": [main(volumeMounts=[{"name": "work", "mountPath": path}])]}


BESIDE: dict[str, Object] = {
    "a container without secrets mounts runkeys-secrets": {
        "containers": [main(), other(volumeMounts=[{"name": "runkeys-secrets", "mountPath": "/stolen"}])]
    },
    "hostPID beside another container": {"hostPID": True, "containers": [main(), other()]},
    "a mount at //var/runtime/secrets": mounted_at("//var/runtime/secrets"),
    "a mount at /var/./runtime": mounted_at("/var/./runtime"),
    "a mount at var/runtime": mounted_at("var/runtime"),
    "a mount at /dev/termination-log": mounted_at("/dev/termination-log"),
}


def test_no_run_with_such_a_field_is_started(new_team: TeamMaker, tmp_path: Path) -> None:
    team = new_team()
    team.make_source()
    team.make_binding()
    pods = {field: {"containers": [main(**fields)]} for field, fields in FIELDS.items()} | BESIDE
    names = {what: f"run-{number}" for number, what in enumerate(pods)}
    for what, pod in pods.items():
        team.make_run(names[what], pod={**pod, "volumes": [WORK]}, task=AS_FILE if what in BESIDE else {})
    rows = {}
    for what, name in names.items():
        found = team.wait_phase(name, "Failed")
        task = found["status"]["tasks"][0]
        rows[what] = plain(f"[{task['reason']}] {task['message']}", team)
        assert condition(found, "SecretsReleased")["reason"] == "NeverMade", found["status"]
    check_golden("shown.txt", rows, tmp_path)
    assert team.jobs() == []
    assert team.secret_story() == []


def test_each_of_them_is_refused_in_a_runs_pod_too_whoever_put_it_there(
    new_team: TeamMaker, tmp_path: Path
) -> None:
    """The Job controller asks for the pod, as it does after a webhook has changed the Job."""
    team = new_team()
    rows = {}
    for field, pod in hostile_pods(team):
        with pytest.raises(ApiError) as refused:
            job_controller(team).create(pod, dryRun="All")
        rows[field] = told(refused.value.message, team)
    check_golden("shown-in-pods.txt", rows, tmp_path)
    for pod in (harmless_pod(team), of_nobody(team)):
        assert job_controller(team).create(pod, dryRun="All")


def test_control_without_the_policy_each_of_them_is_let_in(new_team: TeamMaker) -> None:
    team = new_team()
    with team.without_policies("shown"):
        for _, pod in hostile_pods(team):
            assert job_controller(team).create(pod, dryRun="All")


def test_a_policy_of_others_that_changes_the_pod_leaves_it_without_a_secret(new_team: TeamMaker) -> None:
    team = new_team()
    team.make_source()
    team.make_binding()
    with falls_back_to_logs(team):
        team.make_run(command=python("raise SystemExit(__import__('os').environ['SECRET_API_TOKEN'])"))
        found = team.wait_condition("job", "Stalled", reason="PodNotCreated")
    message = condition(found, "Stalled")["message"]
    assert "terminationMessagePolicy" in message, message
    assert "mutating policy or webhook" in message, message
    assert team.secret_story() == []
    # The Job controller asks again, and nothing changes the pod now.
    found = team.wait_phase("job", "Failed")
    assert team.secret_story() == ["made", "gone"]
    [pod] = team.client.list("pods", team.namespace)
    assert team.value in team.output(found)
    assert team.value not in str(pod)


def test_the_list_has_all_that_kubernetes_describes_so(new_team: TeamMaker) -> None:
    """What the API server's own description of a container says to be expanded, run in it, or copied out of it."""
    answer = new_team().client.request("GET", "/openapi/v3/api/v1")
    schemas = answer["components"]["schemas"]
    found = dict(described("io.k8s.api.core.v1.Container", schemas))

    assert {path for path, schema in found.items() if "$(VAR_NAME)" in schema.get("description", "")} == {
        path.removesuffix("[]") for path in EXPANDED
    }
    copied = {path for path in found if path.endswith(".exec") or path.startswith("terminationMessage")}
    assert copied == {field.path for field in COPIED}


# how


def job_controller(team: Team) -> KubeClient:
    return team.client.as_user(
        "system:serviceaccount:kube-system:job-controller", "system:serviceaccounts", "system:authenticated"
    )


def pod_of(job: str, team: Team, container: Object) -> Object:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": "b3d0", "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one", "namespace": team.namespace, "ownerReferences": [owner]},
        "spec": {"restartPolicy": "Never", "containers": [container], "volumes": [WORK]},
    }


def having(name: str, **fields: Any) -> Object:
    """A container that has the Secret of a Job."""
    variable = {"name": "SECRET_API_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}
    return {**main(**fields), "env": [variable, *fields.get("env", [])]}


def hostile_pods(team: Team) -> Iterator[tuple[str, Object]]:
    for field, fields in FIELDS.items():
        yield field, pod_of("rk-job", team, having("rk-job", **fields))
    text = FIELDS["terminationMessagePolicy"]
    mount = {"volumeMounts": [{"name": "runkeys-secrets", "mountPath": "/x"}]}
    as_file = pod_of("rk-job", team, main(**mount, **text))
    as_file["spec"]["volumes"] = [{"name": "runkeys-secrets", "secret": {"secretName": "rk-job"}}]
    yield "terminationMessagePolicy, of a file", as_file
    yield (
        "terminationMessagePolicy, of an init container",
        with_init(team, {**having("rk-job", **text), "name": "early"}),
    )
    all_of_it = [{"prefix": "P_", "secretRef": {"name": "rk-job"}}]
    yield (
        "envFrom[], of a container that lost its env",
        pod_of("rk-job", team, main(envFrom=all_of_it, **text)),
    )
    yield (
        "envFrom[], of an init container that goes on",
        with_init(
            team, {"name": "early", "image": TASK_IMAGE, "restartPolicy": "Always", "envFrom": all_of_it}
        ),
    )
    sidecar = {**having("rk-job", **text), "name": "early", "restartPolicy": "Always"}
    yield "terminationMessagePolicy, of an init container that goes on", with_init(team, sidecar)
    later = FIELDS["args[]"]["args"]
    yield (
        "args[], after an escape",
        pod_of("rk-job", team, having("rk-job", args=["$$(X) $(X", f"$${later[0]}"])),
    )


def with_init(team: Team, container: Object) -> Object:
    pod = pod_of("rk-job", team, other())
    pod["spec"]["initContainers"] = [container]
    return pod


def harmless_pod(team: Team) -> Object:
    """With the secret, and nothing that shows it: what looks like an expansion is none."""
    return pod_of(
        "rk-job",
        team,
        having(
            "rk-job",
            args=["$$(SECRET_API_TOKEN)", "SECRET_API_TOKEN) $(date) $(", "$(SECRET_API_TOKEN_2)"],
            terminationMessagePath="/var/runtime/output/output.json",
            livenessProbe={"tcpSocket": {"port": 80}},
        ),
    )


def of_nobody(team: Team) -> Object:
    """With all of it, and a Secret that is no run's."""
    fields: Object = {}
    for item in FIELDS.values():
        for name, value in item.items():
            fields[name] = {**fields[name], **value} if name == "lifecycle" and name in fields else value
    return pod_of("theirs", team, having("source", **fields))


@contextmanager
def falls_back_to_logs(team: Team) -> Iterator[None]:
    """An administrator's policy that makes every container of the namespace fall back to its log."""
    name = f"fall-back.{team.namespace}"
    version = "admissionregistration.k8s.io/v1"
    change = (
        "Object{spec: Object.spec{containers: object.spec.containers.map(c, Object.spec.containers{name: c.name,"
        " terminationMessagePolicy: 'FallbackToLogsOnError'})}}"
    )
    here = {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    spec = {
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here},
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": change}}],
    }
    metadata = {"name": name, "labels": {"runkeys.test/namespace": team.namespace}}
    kind = "MutatingAdmissionPolicy"
    team.client.create({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
    bound = {"apiVersion": version, "kind": f"{kind}Binding", "metadata": metadata}
    team.client.create({**bound, "spec": {"policyName": name}})
    wait_until("the policy to change pods", lambda: _policy_of_a_new_pod(team) != "File")
    try:
        yield
    finally:
        team.client.delete("mutatingadmissionpolicybindings", name)
        team.client.delete("mutatingadmissionpolicies", name)


def _policy_of_a_new_pod(team: Team) -> str:
    made = team.client.create(pod_of("theirs", team, main()), dryRun="All")
    return str(made["spec"]["containers"][0]["terminationMessagePolicy"])


def described(name: str, schemas: Object, at: str = "") -> Iterator[tuple[str, Object]]:
    """Every field below a type of the API, with its schema; lists as ``name[]``."""
    for key, schema in schemas[name].get("properties", {}).items():
        path = f"{at}{key}"
        yield path, schema
        of = schema.get("items", schema)
        reference = of.get("$ref") or next((item["$ref"] for item in of.get("allOf", [])), "")
        if reference:
            inner = f"{path}[]." if schema.get("type") == "array" else f"{path}."
            yield from described(reference.rpartition("/")[2], schemas, inner)
