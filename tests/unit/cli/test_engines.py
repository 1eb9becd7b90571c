"""What `plan` reads from manifests of workflow engines: the pods that ask, and how they ask."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runkeys.cli.preview_pods import asking_templates

WORKFLOW = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: report-}
spec:
  serviceAccountName: runner
  templates:
  - name: all
    dag: {tasks: [{name: one, template: one}]}
  - name: one
    container: {image: one, command: [sh]}
  - name: two
    metadata:
      labels: {runkeys.dev/secrets: ask}
      annotations:
        runkeys.dev/secrets: db/password
        runkeys.dev/sealed: "API_TOKEN={{inputs.parameters.token}}"
        runkeys.dev/containers: main
    script: {image: two, command: [python], source: print()}
    sidecars: [{name: proxy, image: proxy}]
  - name: three
    serviceAccountName: other
    metadata: {labels: {runkeys.dev/secrets: ask}, annotations: {runkeys.dev/secrets: db/password}}
    container: {image: three}
"""

PIPELINE = """
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: nightly, labels: {team: a}}
spec:
  taskRunTemplate: {serviceAccountName: runner}
  taskRunSpecs: [{pipelineTaskName: push, serviceAccountName: pusher}]
  pipelineSpec:
    tasks:
    - name: build
      taskSpec: {steps: [{name: build, image: one}]}
    - name: push
      taskSpec:
        metadata:
          labels: {runkeys.dev/secrets: ask}
          annotations: {runkeys.dev/secrets: registry/token, runkeys.dev/containers: step-push}
        steps: [{name: login, image: two}, {name: push, image: three}, {image: four}]
"""


def found(text: str) -> list[tuple[str, str, list[tuple[str, str]]]]:
    return [
        (
            manifest["metadata"]["name"],
            template["spec"]["serviceAccountName"],
            [(item["name"], item["image"]) for item in template["spec"]["containers"]],
        )
        for manifest, template in asking_templates(list(yaml.safe_load_all(text)))
    ]


def test_argo_workflows() -> None:
    assert found(WORKFLOW) == [
        ("report-, two", "runner", [("main", "two"), ("proxy", "proxy")]),
        ("report-, three", "other", [("main", "three")]),
    ]
    manifest = yaml.safe_load(WORKFLOW)
    (_, two), _ = asking_templates([manifest])
    assert two["metadata"]["annotations"]["runkeys.dev/sealed"] == "API_TOKEN=rk1.0000000000000000.AAAA"
    cron = {
        **manifest,
        "kind": "CronWorkflow",
        "spec": {"schedule": "@daily", "workflowSpec": manifest["spec"]},
    }
    assert [template for _, template in asking_templates([cron])] == [
        template for _, template in asking_templates([manifest])
    ]


def test_tekton() -> None:
    steps = [("step-login", "two"), ("step-push", "three"), ("step-unnamed-2", "four")]
    assert found(PIPELINE) == [("nightly, push", "pusher", steps)]
    (_, template), *_ = asking_templates([yaml.safe_load(PIPELINE)])
    assert template["metadata"]["labels"] == {"team": "a", "runkeys.dev/secrets": "ask"}
    metadata = {"name": "one", "labels": {"runkeys.dev/secrets": "ask"}}
    spec: Any = {"steps": [{"name": "push", "image": "x"}]}
    task_run = {
        "apiVersion": "tekton.dev/v1",
        "kind": "TaskRun",
        "metadata": metadata,
        "spec": {"taskSpec": spec},
    }
    ((named, template),) = asking_templates([task_run])
    assert (named["metadata"]["name"], template["spec"]["serviceAccountName"]) == ("one", "default")


JOBSET = """
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {name: training}
spec:
  replicatedJobs:
  - name: prepare
    template: {spec: {template: {spec: {containers: [{name: main, image: one}]}}}}
  - name: workers
    replicas: 2
    template:
      spec:
        template:
          metadata: {labels: {runkeys.dev/secrets: ask}, annotations: {runkeys.dev/secrets: db/password}}
          spec: {serviceAccountName: runner, containers: [{name: main, image: two}]}
"""


def test_jobset() -> None:
    assert found(JOBSET) == [("training, workers", "runner", [("main", "two")])]


@pytest.mark.parametrize("metadata", ["text", ["labels"], {"labels": "text"}, None])
def test_metadata_of_another_shape_is_no_label(metadata: Any) -> None:
    pod = {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "one"}]}}
    job = {"metadata": {"name": "job"}, "spec": {"template": pod}}
    assert asking_templates([{"kind": "Pod", **pod}, {"kind": "Job", **job}]) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "spec",
                    "templates",
                    "metadata",
                    "labels",
                    "container",
                    "steps",
                    "taskSpec",
                    "name",
                    "replicatedJobs",
                    "template",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@pytest.mark.parametrize("group", ["argoproj.io/v1alpha1", "tekton.dev/v1", "jobset.x-k8s.io/v1alpha2"])
@given(document=JSON)
def test_any_document_is_read_without_an_error(group: str, document: Any) -> None:
    asking_templates([{"apiVersion": group, "kind": "PipelineRun", "metadata": {}, "spec": document}])
    asking_templates([document, {"apiVersion": group, "spec": {"templates": document, "tasks": document}}])
