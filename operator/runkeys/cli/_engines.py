"""Pods of Argo Workflows, Tekton and JobSet: their manifests as pod templates, as far as that can be told.

Only what a preview looks at is there: labels, annotations, service account, and the containers with their images. What
a controller adds, such as its own helpers, is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from runkeys.names import ASK_SEALED

Json = dict[str, Any]

_PARAMETER, _ANY = re.compile(r"\{\{[^{}]*\}\}"), "rk1.0000000000000000.AAAA"
"""A parameter in a manifest of Argo Workflows, and what looks like a sealed text in its place."""

ENGINES: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow"),
        ("argoproj.io", "Workflow"),
    ),
    **dict.fromkeys(("TaskRun", "Task", "PipelineRun", "Pipeline"), ("tekton.dev", "TaskRun")),
}
"""By kind: the API group and kind of the object that controls the pods."""


def argo_templates(document: Json) -> Iterator[tuple[str, Json]]:
    """By name the templates of a Workflow that run a pod: ``container`` and ``script``, which is called main there."""
    spec = as_map(document.get("spec"))
    spec = as_map(spec.get("workflowSpec")) or spec
    for template in _maps(spec.get("templates")):
        task = template.get("container") or template.get("script")
        if not isinstance(task, dict):
            continue
        sidecars, first = _maps(template.get("sidecars")), _maps(template.get("initContainers"))
        yield (
            str(template.get("name", "")),
            _template(
                [as_map(spec.get("podMetadata")), as_map(template.get("metadata"))],
                template.get("serviceAccountName") or spec.get("serviceAccountName"),
                [{**task, "name": "main"}, *sidecars],
                first,
            ),
        )


def tekton_templates(document: Json) -> Iterator[tuple[str, Json]]:
    """By name the tasks of a TaskRun, a Task or a PipelineRun that stand in it; each step is a container step-NAME."""
    kind, spec, metadata = (
        document.get("kind"),
        as_map(document.get("spec")),
        as_map(document.get("metadata")),
    )
    account = spec.get("serviceAccountName") or as_map(spec.get("taskRunTemplate")).get("serviceAccountName")
    if kind == "Task":
        yield "", _template([metadata], account, _steps(spec), [])
    elif kind == "TaskRun":
        yield "", _template([metadata], account, _steps(as_map(spec.get("taskSpec"))), [])
    else:
        runs = {str(item.get("pipelineTaskName")): item for item in _maps(spec.get("taskRunSpecs"))}
        pipeline = as_map(spec.get("pipelineSpec")) or spec
        for task in (*_maps(pipeline.get("tasks")), *_maps(pipeline.get("finally"))):
            inner, own = as_map(task.get("taskSpec")), runs.get(str(task.get("name")), {})
            metas = [metadata, as_map(inner.get("metadata")), as_map(own.get("metadata"))]
            yield (
                str(task.get("name", "")),
                _template(metas, own.get("serviceAccountName") or account, _steps(inner), []),
            )


def jobset_templates(document: Json) -> Iterator[tuple[str, Json]]:
    """By name the Jobs of a JobSet. Their pod templates are Kubernetes' own."""
    for job in _maps(as_map(document.get("spec")).get("replicatedJobs")):
        template = as_map(as_map(as_map(job.get("template")).get("spec")).get("template"))
        if isinstance(as_map(template.get("spec")).get("containers"), list):
            yield str(job.get("name", "")), template


def _steps(spec: Mapping[str, Any]) -> list[Json]:
    steps = [
        {**item, "name": f"step-{item.get('name') or f'unnamed-{index}'}"}
        for index, item in enumerate(_maps(spec.get("steps")))
    ]
    return steps + [{**item, "name": f"sidecar-{item.get('name')}"} for item in _maps(spec.get("sidecars"))]


def _template(metas: list[Json], account: Any, containers: list[Json], first: list[Json]) -> Json:
    """:param metas: metadata of the pod; labels and annotations of the later ones count."""
    metadata: dict[str, Json] = {
        field: {key: value for meta in metas for key, value in as_map(meta.get(field)).items()}
        for field in ("labels", "annotations")
    }
    if ASK_SEALED in metadata["annotations"]:
        # A parameter of the engine, which it fills in when it creates the pod.
        metadata["annotations"][ASK_SEALED] = _PARAMETER.sub(_ANY, str(metadata["annotations"][ASK_SEALED]))
    wanted = ("name", "image", "env", "command", "args")

    def plain(items: list[Json]) -> list[Json]:
        found = [{key: item[key] for key in wanted if item.get(key) is not None} for item in items]
        return [{"image": "unknown", **item} for item in found]

    spec: Json = {"serviceAccountName": account or "default", "containers": plain(containers)}
    return {"metadata": metadata, "spec": {**spec, **({"initContainers": plain(first)} if first else {})}}


def as_map(value: Any) -> Json:
    """Return a value of a manifest if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def _maps(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
