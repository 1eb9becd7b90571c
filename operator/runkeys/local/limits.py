"""What a pod template may hold in a local run: what the API server would refuse of it, and what a process cannot have.

What would change the outcome is refused. What has no effect here is named in `notes`. What is about the place in a
cluster and not about the program (images, resources, scheduling, accounts) is neither: a local run does not look at it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from runkeys.api import WorkflowRun
from runkeys.client.pod_types import misfits, unknown_fields
from runkeys.planning.pod_template import CONTAINER_FIELDS, template_refusals

Json = Mapping[str, Any]

_NAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\Z")
_NAME_RULE = (
    "Invalid value: a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must"
    " start and end with an alphanumeric character, at most 63 of them"
)
_VOLUMES = ("emptyDir", "downwardAPI")
_FIELDS = ("metadata.name", "metadata.namespace", "metadata.uid", "spec.serviceAccountName")

_OF_PLACE = {
    # the pod
    *("affinity", "automountServiceAccountToken", "enableServiceLinks", "imagePullSecrets", "nodeName"),
    *("nodeSelector", "overhead", "preemptionPolicy", "priority", "priorityClassName", "resources"),
    *("restartPolicy", "runtimeClassName", "schedulerName", "schedulingGates", "serviceAccount"),
    *("serviceAccountName", "tolerations", "topologySpreadConstraints", "os", "resourceClaims", "hostUsers"),
    # a container
    *("image", "imagePullPolicy", "ports", "resizePolicy"),
}
_DONE = {
    "pod": {"containers", "initContainers", "volumes", "terminationGracePeriodSeconds"},
    "container": {"name", "command", "args", "env", "volumeMounts", "workingDir"},
    "mount": {"name", "mountPath", "subPath", "readOnly"},
}


def refusals(run: WorkflowRun) -> list[str]:
    """What the API server would refuse of the tasks' pods, and what they cannot have here."""
    found = ["spec.suspend: a suspended run starts nothing; remove it"] if run.spec.suspend else []
    for index, task in enumerate(run.spec.tasks):
        at = f"spec.tasks[{index}].template"
        shape = list(misfits(task.template, f"{at}"))
        found += shape
        # What Runkeys itself refuses of a template is said by the plan.
        if not shape and not _is_refused(run, index):
            found += _of_pod(task.template["spec"], f"{at}.spec")
    return found


def notes(run: WorkflowRun) -> list[str]:
    """What has no effect in a local run, for people: one line for each task."""
    found = []
    for index, task in enumerate(run.spec.tasks):
        spec, at = task.template["spec"], f"spec.tasks[{index}].template"
        unknown = list(unknown_fields(task.template, at))
        ignored = _without_effect(spec, "pod", "spec")
        for field, number, container in _each(spec):
            ignored += _without_effect(container, "container", f"spec.{field}[{number}]")
            for position, mount in enumerate(container.get("volumeMounts") or []):
                ignored += _without_effect(mount, "mount", f"spec.{field}[{number}].volumeMounts[{position}]")
        ignored = [path for path in ignored if f"{at}.{path}" not in unknown]
        if ignored:
            found.append(f"task {task.name}: without effect in a local run: {', '.join(ignored)}")
        found += [
            f"task {task.name}: {path} is no field of a pod; the cluster leaves it out" for path in unknown
        ]
    return found


def _is_refused(run: WorkflowRun, index: int) -> bool:
    task = run.spec.tasks[index]
    return next(template_refusals(task, "", run.spec.service_account_name, []), None) is not None


def _without_effect(node: Json, kind: str, path: str) -> list[str]:
    return [
        f"{path}.{key}"
        for key, value in node.items()
        if value not in (None, [], {}, "", False) and key not in _DONE[kind] | _OF_PLACE
    ]


def _each(spec: Json) -> Iterator[tuple[str, int, Json]]:
    for field in CONTAINER_FIELDS:
        for number, container in enumerate(spec.get(field) or []):
            yield field, number, container


def _of_pod(spec: Json, at: str) -> Iterator[str]:
    if spec.get("ephemeralContainers"):
        yield f"{at}.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template"
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        yield f"{at}.terminationGracePeriodSeconds: Invalid value: {grace}: must be greater than or equal to 0"
    volumes: dict[str, Json] = {}
    for number, volume in enumerate(spec.get("volumes") or []):
        here = f"{at}.volumes[{number}]"
        yield from _name(volume.get("name"), volumes, f"{here}.name")
        volumes.setdefault(str(volume.get("name")), volume)
        yield from _of_volume(volume, here)
    names: dict[str, Json] = {}
    for field, number, container in _each(spec):
        here = f"{at}.{field}[{number}]"
        yield from _name(container.get("name"), names, f"{here}.name")
        names[str(container.get("name"))] = container
        yield from _of_container(container, volumes, here)
        if container.get("restartPolicy") is not None and field == "initContainers":
            yield (
                f"{here}.restartPolicy: a sidecar, which runs beside the containers, cannot be had locally; remove it,"
                " or start it yourself"
            )


def _name(name: Any, seen: Mapping[str, Any], at: str) -> Iterator[str]:
    if not isinstance(name, str) or _NAME.match(name) is None:
        yield f"{at}: {_NAME_RULE}"
    elif name in seen:
        yield f'{at}: Duplicate value: "{name}"'


def _of_volume(volume: Json, at: str) -> Iterator[str]:
    kinds = [key for key, value in volume.items() if key != "name" and value is not None]
    for kind in kinds or ["emptyDir"]:
        if kind not in _VOLUMES:
            yield (
                f"{at}.{kind}: cannot be had locally, where volumes are {' and '.join(_VOLUMES)}; use input or"
                " dataPools of the task, or leave it out for the local run"
            )
    for index, item in enumerate((volume.get("downwardAPI") or {}).get("items") or []):
        here = f"{at}.downwardAPI.items[{index}]"
        yield from _relative(item.get("path"), f"{here}.path")
        yield from _field(item, here)


def _of_container(container: Json, volumes: Json, at: str) -> Iterator[str]:
    if not container.get("command"):
        yield (
            f"{at}.command: the container has none, and locally nothing is known of its image's own; write command"
        )
    if container.get("envFrom"):
        yield f"{at}.envFrom: cannot be had locally; write the variables into env"
    if container.get("volumeDevices"):
        yield f"{at}.volumeDevices: cannot be had locally; leave it out for the local run"
    for index, item in enumerate(container.get("env") or []):
        here = f"{at}.env[{index}]"
        if not isinstance(item.get("name"), str) or not re.fullmatch(r"[!-<>-~]+", item["name"]):
            yield f"{here}.name: Invalid value: a variable's name is printable text without '='"
        if item.get("valueFrom") is not None:
            if item.get("value"):
                yield f"{here}.valueFrom: Invalid value: may not be specified when `value` is not empty"
            yield from _field(item["valueFrom"], f"{here}.valueFrom")
    paths: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or []):
        yield from _of_mount(mount, volumes, paths, f"{at}.volumeMounts[{index}]")


def _of_mount(mount: Json, volumes: Json, paths: set[str], at: str) -> Iterator[str]:
    if mount.get("name") not in volumes:
        yield f"{at}.name: Not found: there is no volume of this name"
    path = mount.get("mountPath")
    if not path:
        yield f"{at}.mountPath: Required value"
    elif not str(path).startswith("/") or ".." in str(path).split("/"):
        yield f"{at}.mountPath: cannot be had locally: write it as an absolute path without '..'"
    elif posixpath.normpath(path) in paths:
        yield f"{at}.mountPath: Invalid value: must be unique"
    else:
        paths.add(posixpath.normpath(path))
    if mount.get("subPath"):
        yield from _relative(mount["subPath"], f"{at}.subPath")
    if mount.get("subPathExpr"):
        yield f"{at}.subPathExpr: cannot be had locally; use subPath"


def _field(origin: Json, at: str) -> Iterator[str]:
    """A valueFrom, or an item of a downwardAPI volume."""
    for kind, reference in origin.items():
        if kind in ("path", "mode") or reference is None:
            continue
        path = reference.get("fieldPath") or "" if kind == "fieldRef" else ""
        if path not in _FIELDS and not re.fullmatch(
            r"metadata\.(labels|annotations)(\['.+'\])?", path, re.DOTALL
        ):
            yield f"{at}.{kind}: cannot be had locally; write the value into env, or use input of the task"


def _relative(path: Any, at: str) -> Iterator[str]:
    if not isinstance(path, str) or not path:
        yield f"{at}: Required value"
    elif path.startswith("/"):
        yield f"{at}: Invalid value: must be a relative path"
    elif ".." in path.split("/"):
        yield f"{at}: Invalid value: must not contain '..'"
