"""What a pod that asks is refused for: at its creation, by name, with what mends it. Nothing else is touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from testing.cluster.client import ApiError, Object
from testing.namespace import TASK_IMAGE, Team
from tests.e2e.pods.conftest import asking, refusal

pytestmark = pytest.mark.e2e

KEY = "runkeys.dev/secrets"
NO_TEXT = "rk1.0123456789abcdef.AAAA"
"""Looks like a sealed text, which is all that admission sees."""


def with_spec(pod: Object, **spec: Any) -> Object:
    return {**pod, "spec": {**pod["spec"], **spec}}


def container(pod: Object, **fields: Any) -> Object:
    """The pod, with fields of its container changed."""
    return with_spec(pod, containers=[{**pod["spec"]["containers"][0], **fields}])


def injected(team: Team) -> Object:
    """A pod as admission makes it, as something that copies pods would send it."""
    found = team.client.create(asking(team, "seen"), dryRun="All")
    metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": found["spec"]}


def stamp_of(pod: Object) -> dict[str, str]:
    volume = next(item for item in pod["spec"]["volumes"] if item["name"] == "runkeys-recipient")
    stamp: dict[str, str] = volume["projected"]["sources"][0]["podCertificate"]["userAnnotations"]
    return stamp


def test_every_refusal_names_what_is_wrong(team: Team) -> None:
    two = [{"name": name, "image": TASK_IMAGE} for name in ("main", "proxy")]
    mount = {"name": "runkeys-env", "mountPath": "/here"}
    reference = {"volumeName": "runkeys-env", "path": "secrets.env", "key": "SECRET_API_TOKEN"}
    plain = asking(team)
    cases = {
        "nothing asked": (asking(team, asked=""), "must list what the pod asks for"),
        "bad grammar": (asking(team, asked="keys/token, keys"), "entry 2 of 2"),
        "upper-case binding": (asking(team, asked="Keys/token"), "entry 1 of 1"),
        "33 entries": (
            asking(team, asked=",".join(f"keys/token=V{n}" for n in range(33))),
            "at most 32 entries",
        ),
        "too long": (asking(team, asked="keys/token," * 800), "8192 characters"),
        "one variable twice": (asking(team, asked="keys/token=A, keys/other=A"), "the same variable or file"),
        "a variable that decides what runs": (asking(team, asked="keys/token=LD_PRELOAD"), "LD_*"),
        "a parameter in the clear": (
            asking(team, asked="", annotations={"runkeys.dev/sealed": "API_TOKEN=canary"}),
            "runkeys seal --for-pods",
        ),
        "nine parameters": (
            asking(team, annotations={"runkeys.dev/sealed": ",".join(f"V{n}={NO_TEXT}" for n in range(9))}),
            "at most 8",
        ),
        "a parameter with the variable of an entry": (
            asking(team, annotations={"runkeys.dev/sealed": f"SECRET_API_TOKEN={NO_TEXT}"}),
            "the same variable or file",
        ),
        "another value of the label": (
            asking(team, labels={KEY: "yes"}),
            f"set {KEY}: ask",
        ),
        "no such container": (
            asking(team, annotations={"runkeys.dev/containers": "mian"}),
            "no container under spec.containers is called mian",
        ),
        "several containers": (with_spec(plain, containers=two), "runkeys.dev/containers"),
        "the variable is set": (
            container(plain, env=[{"name": "SECRET_API_TOKEN", "value": "x"}]),
            "sets a variable itself",
        ),
        "our volume is mounted": (container(plain, volumeMounts=[mount]), "only Runkeys mounts"),
        "the file of variables is read": (
            with_spec(
                asking(team, annotations={"runkeys.dev/containers": "main"}),
                containers=[
                    two[0],
                    {**two[1], "env": [{"name": "X", "valueFrom": {"fileKeyRef": reference}}]},
                ],
            ),
            "reads the secrets otherwise",
        ),
        "processes are shared": (
            with_spec(
                asking(team, annotations={"runkeys.dev/containers": "main"}),
                containers=two,
                shareProcessNamespace=True,
            ),
            "shareProcessNamespace",
        ),
        "processes are shared with a sidecar": (
            with_spec(
                plain,
                initContainers=[{**two[1], "restartPolicy": "Always"}],
                shareProcessNamespace=True,
            ),
            "shareProcessNamespace",
        ),
        "a value in the arguments": (
            container(plain, args=["--token=$(SECRET_API_TOKEN)"]),
            "may not have $(NAME)",
        ),
        "a value in the termination message": (
            container(plain, terminationMessagePolicy="FallbackToLogsOnError"),
            "terminationMessagePolicy",
        ),
        "an account without the right": (
            with_spec(plain, serviceAccountName="default"),
            "service account default may not use SecretBinding keys",
        ),
        "a binding that the account may not use": (
            asking(team, asked="keys/token, other/token=B"),
            "may not use SecretBinding other",
        ),
    }
    told = {name: refusal(team, pod) for name, (pod, _) in cases.items()}
    assert {name: text for name, text in told.items() if cases[name][1] not in text} == {}
    assert refusal(team, plain) == "", "the same without the mistake is admitted"
    grant = told["an account without the right"]
    assert f"--serviceaccount={team.namespace}:default" in grant
    assert "kubectl auth reconcile" in grant


def test_what_admission_adds_cannot_be_brought_or_changed(team: Team) -> None:
    brought = injected(team)
    assert stamp_of(brought)["runkeys.dev/asked"] == "keys/token=SECRET_API_TOKEN"
    assert refusal(team, brought) == "", "exactly what admission adds is no mistake"

    other_stamp = copy.deepcopy(brought)
    stamp_of(other_stamp)["runkeys.dev/created-by"] = "system:serviceaccount:argo:argo"
    more_asked = copy.deepcopy(brought)
    stamp_of(more_asked)["runkeys.dev/asked"] = "keys/other"
    other_image, other_command = copy.deepcopy(brought), copy.deepcopy(brought)
    other_image["spec"]["initContainers"][0]["image"] = TASK_IMAGE
    other_command["spec"]["initContainers"][0]["command"] = ["python3", "-c", "pass"]
    other_parameter = copy.deepcopy(brought)
    stamp_of(other_parameter)["runkeys.dev/sealed"] = f"OTHER={NO_TEXT}"
    no_label = copy.deepcopy(brought)
    del no_label["metadata"]["labels"][KEY]
    two_sources = copy.deepcopy(brought)
    volume = next(item for item in two_sources["spec"]["volumes"] if item["name"] == "runkeys-recipient")
    two_sources["spec"]["volumes"].append({**copy.deepcopy(volume), "name": "another"})
    on_disk = copy.deepcopy(brought)
    on_disk["spec"]["volumes"] = [
        {"name": item["name"], "emptyDir": {}} if item["name"] == "runkeys-env" else item
        for item in brought["spec"]["volumes"]
    ]
    told = {
        "values on disk": (on_disk, "are in memory"),
        "created by another": (other_stamp, "is not the one that admission adds for this request"),
        "asks for more": (more_asked, "is not the one that admission adds for this request"),
        "another parameter": (other_parameter, "is not the one that admission adds for this request"),
        "another image": (other_image, "the init container runkeys-open is not the one"),
        "another command": (other_command, "the init container runkeys-open is not the one"),
        "no label": (no_label, "without the label"),
        "two sources": (two_sources, "exactly one certificate"),
    }
    found = {name: refusal(team, pod) for name, (pod, _) in told.items()}
    assert {name: text for name, text in found.items() if told[name][1] not in text} == {}


def test_a_waiting_pod_stays_as_it_was_admitted(team: Team) -> None:
    gates = [{"name": "runkeys.test/held"}]
    team.client.create(with_spec(asking(team), schedulingGates=gates))
    plain = asking(team, "plain")
    plain["metadata"] = {"name": "plain", "namespace": team.namespace}
    team.client.create(with_spec(plain, schedulingGates=gates))

    def refused(name: str, change: Object) -> str:
        try:
            team.client.patch("pods", name, team.namespace, change, "strategic")
        except ApiError as error:
            return str(error)
        return ""

    images = {"spec": {"containers": [{"name": "main", "image": "localhost/other:1"}]}}
    more = {"metadata": {"annotations": {KEY: "keys/other"}}}
    assert "cannot be changed" in refused("task", more)
    assert "cannot be changed" in refused("task", {"metadata": {"labels": {KEY: None}}})
    brought = {"metadata": {"annotations": {"runkeys.dev/sealed": f"V={NO_TEXT}"}}}
    assert "cannot be changed" in refused("task", brought)
    assert "images of a pod that asks" in refused("task", images)
    assert "label runkeys.dev/secrets counts when" in refused("plain", {"metadata": {"labels": {KEY: "ask"}}})
    assert refused("task", {"metadata": {"labels": {"app": "x"}}}) == "", "anything else is as it was"
    assert refused("plain", images) == "", "a pod that does not ask is nobody's business"


def test_no_container_is_added_to_a_pod_that_has_secrets(team: Team) -> None:
    team.client.create(asking(team, code="import time; time.sleep(600)"))
    team.client.wait_for("pods", "task", team.namespace, lambda pod: pod["status"].get("phase") == "Running")
    path = f"/api/v1/namespaces/{team.namespace}/pods/task/ephemeralcontainers"
    extra = {"ephemeralContainers": [{"name": "debug", "image": TASK_IMAGE, "targetContainerName": "main"}]}
    with pytest.raises(ApiError, match="no container can be added"):
        team.client.request(
            "PATCH", path, body={"spec": extra}, content_type="application/strategic-merge-patch+json"
        )
