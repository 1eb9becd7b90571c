"""Checks what a task's pod template must not contain, before anything starts. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from runkeys._text.documents import TOO_DEEP, is_too_deep
from runkeys.api import GROUP, Task
from runkeys.names import RUNTIME, SIGNER
from runkeys.planning.kubelet import (
    OURS,
    TERMINATION_LOG,
    copies,
    expansions,
    is_secret,
    is_taken,
    left_as_text,
    references,
)
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.shape import misshapen

MOST_CONTAINERS = 100
"""Limit on the containers of a pod. Each of their images is compared with the patterns of a binding."""

MOST_GRACE = 600
"""Limit on the seconds between a pod's deadline and its end, for a task with secrets."""

CONTAINER_FIELDS = ("initContainers", "containers")
_QUANTITIES, _QUANTITY = ("limits", "requests", "overhead"), ("sizeLimit", "divisor")
_HUGE, _MOST_DIGITS = re.compile(r"[eE][+-]?[0-9]{3,}\Z"), 64
_SECRET_REFERENCES = ("secretKeyRef", "secretRef", "secretName", "nodePublishSecretRef", "secretFile")


def containers(template: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all containers of a pod template, init containers first. Items that are no objects are left out."""
    spec = template.get("spec")
    if not isinstance(spec, dict):
        return []
    lists = [spec[field] for field in CONTAINER_FIELDS if isinstance(spec.get(field), list)]
    return [container for found in lists for container in found if isinstance(container, dict)]


def images(template: Mapping[str, Any]) -> list[str]:
    """Return the images of a pod template: of all containers, and of image volumes."""
    spec = template.get("spec")
    found = [str(container.get("image", "")) for container in containers(template)]
    return found + volume_images(spec if isinstance(spec, dict) else {})


def volume_images(spec: Mapping[str, Any]) -> list[str]:
    """Return the images that a pod mounts as volumes: a container may run the programs in them."""
    volumes = spec.get("volumes")
    mounted = [
        volume["image"]
        for volume in (volumes if isinstance(volumes, list) else [])
        if isinstance(volume, dict) and isinstance(volume.get("image"), dict)
    ]
    return [str(image.get("reference", "")) for image in mounted]


def shape_refusals(task: Task, path: str) -> Iterator[Refusal]:
    """Yield a permanent refusal for each part of ``task.template`` that has the wrong shape.

    All other functions need a template for which there is none.

    :param path: path of the task in the run, e.g. ``spec.tasks[0]``.
    """
    if is_too_deep(task.template):
        message = f"{TOO_DEEP}, deeper than any pod; remove what does not belong there"
        yield Refusal(Reason.TEMPLATE_REFUSED, f"{path}.template", message, permanent=True)
        return
    for field, message in misshapen(task.template):
        yield Refusal(Reason.TEMPLATE_REFUSED, f"{path}.template.{field}", message, permanent=True)


def template_refusals(
    task: Task, path: str, service_account: str, secret_names: Sequence[str]
) -> Iterator[Refusal]:
    """Yield a permanent refusal for everything in ``task.template``, of the right shape, that Runkeys does not run.

    :param path: path of the task in the run, e.g. ``spec.tasks[0]``.
    :param service_account: the run's service account.
    :param secret_names: names of the variables with secrets.
    """
    template, at = task.template, f"{path}.template"

    def refuse(field: str, message: str, reason: Reason = Reason.TEMPLATE_REFUSED) -> Refusal:
        return Refusal(reason, f"{at}.{field}", message, permanent=True)

    spec = template["spec"]
    if (count := len(containers(template))) > MOST_CONTAINERS:
        yield refuse("spec", f"has {count} containers; the pod of a task may have at most {MOST_CONTAINERS}")
        return
    names = [str(container.get("name", "")) for container in containers(template)]
    for name in task.secret_containers:
        if name not in names:
            yield Refusal(
                Reason.CONTAINER_NOT_FOUND,
                f"{path}.containers",
                f"no container is called {name!r}; the template has {', '.join(names)}",
                permanent=True,
            )
    yield from _refused_pod_fields(spec, service_account, refuse)
    yield from _taken_places(task, spec, refuse)
    for kind in ("labels", "annotations"):
        for key in (template.get("metadata") or {}).get(kind) or {}:
            if f".{key.split('/')[0]}".endswith(f".{GROUP}"):
                yield refuse(f"metadata.{kind}", f"{key} is set by Runkeys itself; remove it")
    for where in secret_references(spec, "spec"):
        yield refuse(
            where, "refers to a Secret directly; name the secret in a SecretBinding and list it under secrets"
        )
    for where in _hostile_quantities(spec, "spec"):
        yield refuse(
            where,
            "is a quantity with a huge exponent, which would keep the API server busy without end; write it out",
        )
    if secret_names:
        grace = spec.get("terminationGracePeriodSeconds")
        if isinstance(grace, int) and grace > MOST_GRACE:
            yield refuse(
                "spec.terminationGracePeriodSeconds",
                f"is {grace}: the pod could keep its secrets for so long after its deadline while the operator"
                f" is down; a task with secrets may have at most {MOST_GRACE}",
            )
        yield from _given_away(task, spec, secret_names, refuse)
    yield from _left_as_text(task, path, secret_names)


def _left_as_text(task: Task, path: str, secret_names: Sequence[str]) -> Iterator[Refusal]:
    """Yield refusals of ``$(NAME)`` where a secret is meant and the kubelet has none to put there."""
    plain = {item.name for item in task.env}
    for index, item in enumerate(task.env):
        # The kubelet would not even find the task's own secrets, which are listed after env.
        for name in references(item.value):
            if is_secret(name, secret_names) and name not in plain:
                yield Refusal(
                    Reason.TEMPLATE_REFUSED,
                    f"{path}.env[{index}].value",
                    f"$({name}) would stay as it is written, because env is not for secrets; remove it, and list the"
                    f" secret under secrets, with env: {item.name} if it needs that name",
                    permanent=True,
                )
    for where, container in _each(task.template["spec"]):
        gets = container["name"] in task.secret_containers
        known = {*plain, *secret_names} if gets else set()
        for part, name in left_as_text(container, secret_names):
            if name not in known:
                yield Refusal(
                    Reason.TEMPLATE_REFUSED,
                    f"{path}.template.{where}.{part}",
                    f"$({name}) would stay as it is written, because the container has no variable {name}; list the"
                    " secret under secrets and the container under containers of the task, and read the variable in"
                    " the program",
                    permanent=True,
                )


def _given_away(
    task: Task, spec: Mapping[str, Any], secret_names: Sequence[str], refuse: _Refuse
) -> Iterator[Refusal]:
    """Yield refusals of fields that would show the secrets to other containers than those that get them."""
    names = {str(container.get("name", "")) for container in containers({"spec": spec})}
    for field in ("shareProcessNamespace", "hostPID"):
        if spec.get(field) and names - set(task.secret_containers):
            yield refuse(
                f"spec.{field}",
                "would let containers that do not get the secrets read them from the others' processes; remove it or"
                " list every container under containers",
            )
    for where, container in _each(spec):
        if container.get("name") in task.secret_containers:
            for part, message in (*expansions(container, secret_names), *copies(container)):
                yield refuse(f"{where}.{part}", message)


def _hostile_quantities(node: Any, path: str) -> Iterator[str]:
    """Yield the paths of quantities that the API server would parse for minutes, such as ``1e999999999``."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _hostile_quantities(item, f"{path}[{index}]")
    elif isinstance(node, dict):
        for key, value in node.items():
            quantities = value if key in _QUANTITIES and isinstance(value, dict) else {key: value}
            for name, text in quantities.items():
                if (key in _QUANTITIES or name in _QUANTITY) and _is_hostile(text):
                    yield f"{path}.{key}" + (f".{name}" if quantities is value else "")
            yield from _hostile_quantities(value, f"{path}.{key}")


def _is_hostile(text: object) -> bool:
    return isinstance(text, str) and (_HUGE.search(text) is not None or len(text) > _MOST_DIGITS)


def _each(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path of every container, and the container."""
    for field in CONTAINER_FIELDS:
        for number, container in enumerate(spec.get(field) or []):
            yield f"spec.{field}[{number}]", container


def _items(node: Mapping[str, Any], field: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield index and object of each object in a list that may be absent."""
    yield from enumerate(node.get(field) or [])


def restart_refusals(task: Task, path: str) -> Iterator[Refusal]:
    """Yield refusals of containers that could start again, without the secret that OnStart has deleted."""
    for container in containers(task.template):
        if container.get("name") in task.secret_containers and "restartPolicy" in container:
            yield Refusal(
                Reason.TEMPLATE_REFUSED,
                f"{path}.releasePolicy",
                f"container {container.get('name')!r} has a restartPolicy: when it starts again, its secret no"
                " longer exists. Use OnCompletion, or give the secret to another container (containers)",
                permanent=True,
            )


def sealed_refusals(task: Task, path: str) -> Iterator[Refusal]:
    """Yield refusals of volumes that ask Runkeys' signer for a certificate, which would hold the values."""
    for index, volume in _items(task.template["spec"], "volumes"):
        sources = _items(volume.get("projected") or {}, "sources")
        if any((source.get("podCertificate") or {}).get("signerName") == SIGNER for _, source in sources):
            yield Refusal(
                Reason.TEMPLATE_REFUSED,
                f"{path}.template.spec.volumes[{index}]",
                f"requests a certificate from {SIGNER}, which Runkeys does itself, once for each pod; remove"
                " the volume",
                permanent=True,
            )


def _taken_places(task: Task, spec: Mapping[str, Any], refuse: _Refuse) -> Iterator[Refusal]:
    """Yield refusals of volumes, containers and paths with names that Runkeys needs for itself.

    Any container can mount a volume of Runkeys by its name. So that name is refused in containers.
    """
    for index, volume in _items(spec, "volumes"):
        if _is_ours(volume.get("name")):
            yield refuse(
                f"spec.volumes[{index}].name",
                f"names that begin with {OURS} are reserved for Runkeys; choose another",
            )
    for where, container in _each(spec):
        if _is_ours(container.get("name")):
            yield refuse(
                f"{where}.name", f"names that begin with {OURS} are reserved for Runkeys; choose another"
            )
        for field in ("volumeMounts", "volumeDevices"):
            for index, mount in _items(container, field):
                if _is_ours(mount.get("name")):
                    yield refuse(
                        f"{where}.{field}[{index}].name",
                        f"only Runkeys mounts volumes whose names begin with {OURS}; remove it",
                    )
        for index, variable in _items(container, "env"):
            reference = (variable.get("valueFrom") or {}).get("fileKeyRef") or {}
            if _is_ours(reference.get("volumeName")):
                yield refuse(
                    f"{where}.env[{index}].valueFrom.fileKeyRef",
                    "reads secrets of sealed delivery; remove it, and list the container under containers of the task",
                )
        if container.get("name") in task.secret_containers:
            yield from _covered(task, where, container, refuse)


def _covered(task: Task, where: str, container: Mapping[str, Any], refuse: _Refuse) -> Iterator[Refusal]:
    """Yield refusals of mounts that would cover the files of Runkeys, and of fields that recordOutput sets itself."""
    for field, key in (("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")):
        for index, mount in _items(container, field):
            if is_taken(mount.get(key, "")):
                yield refuse(
                    f"{where}.{field}[{index}].{key}",
                    f"{RUNTIME} is reserved for input, output, secrets and data pools, and the content of"
                    f" {TERMINATION_LOG} is shown in the pod's status; choose another path",
                )
    if task.record_output and container.get("name") == task.secret_containers[0]:
        for name in ("terminationMessagePath", "terminationMessagePolicy"):
            if name in container:
                yield refuse(f"{where}.{name}", "recordOutput uses this field itself; remove it")


def _is_ours(name: object) -> bool:
    return str(name).startswith(OURS)


class _Refuse(Protocol):
    def __call__(self, field: str, message: str, reason: Reason = ...) -> Refusal: ...


def _refused_pod_fields(spec: Mapping[str, Any], service_account: str, refuse: _Refuse) -> Iterator[Refusal]:
    if spec.get("restartPolicy", "Never") != "Never":
        yield refuse("spec.restartPolicy", "must be Never or absent: an attempt is one pod that starts once")
    for field in ("serviceAccountName", "serviceAccount"):
        if spec.get(field, service_account) != service_account:
            yield refuse(f"spec.{field}", "differs from the run's; remove it and set spec.serviceAccountName")
    if "activeDeadlineSeconds" in spec:
        yield refuse("spec.activeDeadlineSeconds", "set activeDeadlineSeconds of the task instead")
    for field in CONTAINER_FIELDS:
        for index, container in enumerate(spec.get(field) or []):
            if container.get("restartPolicyRules") or (
                field == "containers" and container.get("restartPolicy", "Never") != "Never"
            ):
                yield refuse(
                    f"spec.{field}[{index}].restartPolicy",
                    "a container of an attempt starts once; remove restartPolicy and restartPolicyRules",
                )


def secret_references(node: Any, path: str) -> Iterator[str]:
    """Yield the paths below ``node`` of references to a Secret that a container could read.

    Image pull secrets do not count: the kubelet reads them, and no container does.
    """
    if isinstance(node, dict):
        for key, value in node.items():
            here = f"{path}.{key}"
            if key == "imagePullSecrets":
                continue
            if value is not None and (
                key in _SECRET_REFERENCES
                or (key == "secret" and isinstance(value, dict))
                or (key.endswith("SecretRef") and isinstance(value, dict))
            ):
                yield here
            else:
                yield from secret_references(value, here)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from secret_references(value, f"{path}[{index}]")
