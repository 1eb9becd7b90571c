"""What is refused before anything starts, with a message that names the field and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys.planning.bindings import Bindings
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import TaskRequirements, task_requirements
from tests.unit.planning.objects import bound_to, make_binding, make_run, task, template


def refusals(run_task: dict[str, Any], **spec: Any) -> tuple[Refusal, ...]:
    requirements = task_requirements(make_run(tasks=[run_task], **spec), 0, bound_to(make_binding()))
    return () if isinstance(requirements, TaskRequirements) else requirements


def container(**fields: Any) -> dict[str, Any]:
    return template(containers=[{"name": "main", "image": "a/b:1", **fields}])


def test_a_good_task_needs_its_variable() -> None:
    requirements = task_requirements(make_run(), 0, bound_to(make_binding()))
    assert isinstance(requirements, TaskRequirements)
    assert [reference.variable for reference in requirements.references] == ["SECRET_API_TOKEN"]
    assert requirements.lifetime_seconds == requirements.deadline_seconds == 3600


TEMPLATES = {
    "no spec": ({}, "spec"),
    "no containers": ({"spec": {"containers": []}}, "spec.containers"),
    "containers of another shape": ({"spec": {"containers": {"a": 1}}}, "spec.containers"),
    "container of another shape": ({"spec": {"containers": ["x"]}}, "spec.containers"),
    "container without a name": ({"spec": {"containers": [{"image": "x"}]}}, "name"),
    "env of another shape": (container(env={"A": "b"}), "env"),
    "args of another shape": (container(args="x"), "args"),
    "labels of another shape": ({**template(), "metadata": {"labels": ["x"]}}, "metadata"),
    "restartPolicy": (template(restartPolicy="Always"), "spec.restartPolicy"),
    "other service account": (template(serviceAccountName="root"), "spec.serviceAccountName"),
    "old service account field": (template(serviceAccount="root"), "spec.serviceAccount"),
    "own deadline": (template(activeDeadlineSeconds=5), "spec.activeDeadlineSeconds"),
    "our label": ({**template(), "metadata": {"labels": {"runkeys.dev/run": "x"}}}, "metadata.labels"),
    "our annotation": ({**template(), "metadata": {"annotations": {"x.runkeys.dev/y": "1"}}}, "annotations"),
    "secretKeyRef": (
        container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        "secretKeyRef",
    ),
    "envFrom": (container(envFrom=[{"secretRef": {"name": "s"}}]), "secretRef"),
    "secret volume": (template(volumes=[{"name": "v", "secret": {"secretName": "s"}}]), "volumes[0].secret"),
    "projected volume": (
        template(volumes=[{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]),
        "sources[0].secret",
    ),
    "csi volume": (
        template(volumes=[{"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}}]),
        "nodePublishSecretRef",
    ),
    "azure volume": (
        template(volumes=[{"name": "v", "azureFile": {"secretName": "s", "shareName": "x"}}]),
        "secretName",
    ),
    "command line": (container(args=["--token=$(SECRET_API_TOKEN)"]), "args"),
    "copy of a variable": (container(env=[{"name": "B", "value": "x$(SECRET_API_TOKEN)"}]), "env"),
    "container restarts": (container(restartPolicy="Always"), "restartPolicy"),
    "a grace of a day": (template(terminationGracePeriodSeconds=86400), "spec.terminationGracePeriodSeconds"),
    "a volume of a huge size": (
        template(volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1e999999999"}}]),
        "spec.volumes[0].emptyDir.sizeLimit",
    ),
    "a huge limit": (container(resources={"limits": {"memory": "1E+1000"}}), "resources.limits.memory"),
    "a limit of many digits": (
        container(resources={"requests": {"cpu": "1" * 65}}),
        "resources.requests.cpu",
    ),
    "shared processes": (
        template(
            shareProcessNamespace=True,
            containers=[{"name": "main", "image": "a/b"}, {"name": "other", "image": "a/b"}],
        ),
        "shareProcessNamespace",
    ),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_templates_that_are_refused(case: str) -> None:
    bad, field = TEMPLATES[case]
    found = refusals(task(template=bad))
    assert found, "not refused"
    assert found[0].permanent
    assert field in found[0].field
    assert len(found[0].message) > 20


@pytest.mark.parametrize(
    "good",
    [
        template(imagePullSecrets=[{"name": "registry"}]),
        container(args=["$$(SECRET_API_TOKEN)", "$(OTHER)"]),
        container(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]),
        template(serviceAccountName="default", restartPolicy="Never"),
        {**template(), "metadata": {"labels": {"app.kubernetes.io/name": "x", "notrunkeys.dev/x": "y"}}},
    ],
)
def test_templates_that_are_not(good: dict[str, Any]) -> None:
    assert refusals(task(template=good)) == ()


@pytest.mark.parametrize(
    ("secrets", "env"),
    [
        ([{"name": "ibmToken", "secret": "token"}, {"name": "ibm_token", "secret": "token"}], []),
        ([{"name": "a", "secret": "token"}], [{"name": "SECRET_A", "value": "x"}]),
        ([{"name": "a", "secret": "token", "env": "X"}, {"name": "b", "secret": "token", "env": "X"}], []),
    ],
)
def test_two_entries_for_one_variable(secrets: list[dict[str, str]], env: list[dict[str, str]]) -> None:
    found = refusals(task(secrets=secrets, env=env))
    assert found[0].reason is Reason.NAME_COLLISION
    assert "env" in found[0].message


def test_a_variable_that_the_container_sets_itself() -> None:
    found = refusals(task(template=container(env=[{"name": "SECRET_API_TOKEN", "value": "x"}])))
    assert found[0].reason is Reason.NAME_COLLISION


def test_an_unknown_container() -> None:
    found = refusals(task(containers=["sidecar"]))
    assert found[0].reason is Reason.CONTAINER_NOT_FOUND
    assert "main" in found[0].message


def test_an_unknown_secret_names_what_there_is() -> None:
    found = refusals(task(secrets=[{"name": "a", "secret": "tokne"}]))
    assert found[0].reason is Reason.SECRET_NOT_FOUND
    assert "'tokne'" in found[0].message
    assert "token" in found[0].message


def test_a_secret_in_two_bindings() -> None:
    run = make_run(bindings=[{"name": "keys"}, {"name": "more"}])
    requirements = task_requirements(run, 0, bound_to(make_binding(), make_binding("more")))
    assert isinstance(requirements, tuple)
    assert requirements[0].reason is Reason.NAME_COLLISION


def test_a_binding_that_cannot_be_read() -> None:
    requirements = task_requirements(make_run(), 0, Bindings({}, {"keys": "spec.secrets: wrong"}))
    assert isinstance(requirements, tuple)
    assert Reason.BINDING_INVALID in {refusal.reason for refusal in requirements}


def test_a_deadline_over_the_lifetime() -> None:
    found = refusals(task(activeDeadlineSeconds=7200))
    assert found[0].reason is Reason.DEADLINE_TOO_LONG
    assert not found[0].permanent


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "spec",
                    "containers",
                    "initContainers",
                    "name",
                    "env",
                    "metadata",
                    "labels",
                    "args",
                    "volumes",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(st.dictionaries(st.sampled_from(["spec", "metadata", "x"]), _json, max_size=3))
def test_no_template_however_odd_crashes_it(odd: dict[str, Any]) -> None:
    refusals(task(template=odd))
