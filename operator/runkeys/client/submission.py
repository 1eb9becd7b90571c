"""A user's manifest -> the WorkflowRun to send. Pure except for the key, which is fetched only if needed."""

from __future__ import annotations

import copy
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from runkeys._text.documents import altered, is_too_deep
from runkeys.api import SecretBinding, WorkflowRun
from runkeys.api.common import API_VERSION, describe_invalid
from runkeys.mapping import SECRETS, seal_secrets, split_secrets
from runkeys.names import is_reserved_variable, is_variable_name
from runkeys.planning.bindings import Bindings
from runkeys.planning.refusal import Refusal
from runkeys.planning.requirements import task_requirements
from runkeys.problems import Invalid

if TYPE_CHECKING:
    from runkeys.sealing import PublicKey

LOCAL = "rk1.local"
"""Stands for a sealed value where only names matter."""

PERSONAL = "personal"
"""Name of the requester's personal binding where no cluster says it."""

TTL = 86400
"""Seconds that a run created by the command line is kept after its end."""

_MAX_SOURCE = 200 * 1024
_SOURCE = "source"
_MOST_TOLD = 5

_EXPANDED = re.compile(r"\$(?=[$(])")
_SHAPES: tuple[tuple[str, type], ...] = (
    ("metadata", dict),
    ("metadata.labels", dict),
    ("spec", dict),
    ("spec.input", dict),
    ("spec.sealedInput", dict),
    ("spec.bindings", list),
    ("spec.tasks", list),
)

Json = dict[str, Any]


def check_shape(manifest: Mapping[str, Any]) -> None:
    """Check that what is read before the whole run is checked has the right form.

    :raises Invalid: an object or a list is something else; the message names the field.
    """
    for path, kind in _SHAPES:
        node: Any = manifest
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        if node is not None and not isinstance(node, kind):
            raise Invalid(f"{path}: must be {'an object' if kind is dict else 'a list'}")
    for number, task in enumerate((manifest.get("spec") or {}).get("tasks") or []):
        if not isinstance(task, Mapping):
            raise Invalid(f"spec.tasks[{number}]: must be an object")
        if not isinstance(task.get("secrets"), list | None):
            raise Invalid(f"spec.tasks[{number}].secrets: must be a list")


def take_secrets(manifest: Mapping[str, Any]) -> tuple[Json, dict[str, str]]:
    """A copy of a run without the ``$secrets`` of its input, and these by field.

    :raises Invalid: they are no texts by name, stand in another place, or are in sealedInput too; or the run has a
        number that the API server or a task would read as another one.
    """
    check_shape(manifest)
    made = {"apiVersion": API_VERSION, "kind": "WorkflowRun", **copy.deepcopy(dict(manifest))}
    spec = made.get("spec")
    if not isinstance(spec, dict):
        raise Invalid("spec: found none; a run needs one with its tasks")
    given = spec.get("input")
    found: dict[str, str] = {}
    if isinstance(given, dict):
        spec["input"], found = split_secrets(given, "spec.input.")
    if not is_too_deep(spec):
        wrong = list(islice(altered(spec, "spec"), _MOST_TOLD))
        if wrong:
            raise Invalid("; ".join(f"{path}: {message}" for path, message in wrong))
    twice = sorted(set(found) & set(spec.get("sealedInput") or {}))
    if twice:
        raise Invalid(
            f"spec.input.{SECRETS}: {', '.join(twice)} is in spec.sealedInput too; remove one of them"
        )
    return made, found


def prepared(
    manifest: Mapping[str, Any], namespace: str, requester: Mapping[str, Any], key: Callable[[], PublicKey]
) -> Json:
    """A run as it is sent: named, placed, with ``$secrets`` sealed for the requester and the requester filled in.

    :raises Invalid: it cannot be read.
    """
    made, values = take_secrets(manifest)
    metadata = dict(made.get("metadata") or {})
    if metadata.get("namespace") not in (None, namespace):
        raise Invalid(
            f"metadata.namespace: the manifest is for {metadata['namespace']}, and this is {namespace}; change it,"
            " or give -n"
        )
    metadata["namespace"] = namespace
    if not metadata.get("name"):
        # Named here and not by the server, so that an answer that is lost leaves no run that nobody knows.
        metadata["name"] = f"{metadata.pop('generateName', 'run-')}{secrets.token_hex(3)}"
    made["metadata"] = metadata
    made.pop("status", None)
    spec = made["spec"]
    spec["requester"] = dict(requester)
    if values:
        sealed = seal_secrets(values, namespace, str(requester["username"]), key(), "spec.input.")
        spec["sealedInput"] = {**(spec.get("sealedInput") or {}), **sealed}
    return made


def parse_run(manifest: Mapping[str, Any]) -> WorkflowRun:
    """Read a run. Raises Invalid, which names the fields and never their values."""
    from pydantic import ValidationError

    if manifest.get("kind") not in (None, "WorkflowRun"):
        raise Invalid(f"kind: found {manifest.get('kind')!r}; it must be WorkflowRun")
    if manifest.get("apiVersion") not in (None, API_VERSION):
        raise Invalid(
            f"apiVersion: found {manifest.get('apiVersion')!r}; this version of runkeys knows {API_VERSION}"
        )
    try:
        return WorkflowRun.parse(dict(manifest))
    except ValidationError as error:
        problem = Invalid(describe_invalid(error))
    raise problem


def refusals(run: WorkflowRun, bindings: Bindings | None = None) -> list[Refusal]:
    """Everything that is in the way of a run's tasks, without those that only the cluster knows of.

    :param bindings: default: ones that have all that the tasks ask for.
    """
    known = bindings if bindings is not None else assumed_bindings(run)
    found: list[Refusal] = []
    for index in range(len(run.spec.tasks)):
        requirements = task_requirements(run, index, known)
        if isinstance(requirements, tuple):
            found += [item for item in requirements if item not in found]
    return found


def assumed_bindings(run: WorkflowRun, known: Mapping[str, SecretBinding] | None = None) -> Bindings:
    """Bindings of the names that a run gives, which have all that it asks for and admit it.

    :param known: by name, and the personal one as ``PERSONAL``: bindings that are taken as they are.
    """
    known = known or {}
    asked = dict.fromkeys(
        item.secret
        for task in run.spec.tasks
        for item in task.secrets
        if item.secret is not None and not any(binding.entry(item.secret) for binding in known.values())
    )
    requester = run.spec.requester.username if run.spec.requester is not None else ""
    names = list(
        dict.fromkeys(item.name if item.name is not None else PERSONAL for item in run.spec.bindings)
    )
    found = {}
    for position, name in enumerate(names):
        if name in known:
            found[name] = known[name]
            continue
        # All of it in the first one: which binding has what is for the cluster to say.
        entries, asked = list(asked) or [f"none-{position}"], {}
        spec: Json = {
            "secrets": [{"name": entry, "sealed": LOCAL} for entry in entries],
            "access": [{"runSelector": {}}],
            "maxLifetimeSeconds": 604800,
        }
        if name == PERSONAL:
            spec["owner"] = {"username": requester or "nobody"}
        metadata = {"name": name, "namespace": run.metadata.namespace}
        found[name] = SecretBinding.model_validate({"metadata": metadata, "spec": spec})
    own = (PERSONAL,) if PERSONAL in found else ()
    return Bindings(found, {}, own)


# a run from a command line


def assignments(given: Sequence[str], option: str, right: str) -> dict[str, str]:
    """``NAME=…`` as a mapping, in order.

    :param right: what stands on the right, for messages. It is not repeated, since it may be a value.
    :raises Invalid: a part has another form, a name that no variable can have, or comes twice.
    """
    found: dict[str, str] = {}
    for position, text in enumerate(given, 1):
        name, equals, rest = text.partition("=")
        # A plain variable may be empty, and may hold any sign.
        if not equals or not name or (option == "--secret" and ("=" in rest or not rest)):
            shown = f" {name!r}" if name and not equals else ""
            raise Invalid(
                f"{option} number {position}{shown} must be NAME={right}, with one = between the two"
            )
        if not is_variable_name(name) or is_reserved_variable(name):
            raise Invalid(f"{option}: {name!r} cannot be the name of a variable; choose another")
        if name in found:
            raise Invalid(f"{option}: {name} is given twice; a variable has one value")
        found[name] = rest
    return found


def from_command(
    name: str,
    image: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    secrets_of: Mapping[str, str],
    bindings: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
    service_account: str | None = None,
    source: tuple[str, str] | None = None,
) -> Json:
    """A run of one task.

    :param secrets_of: by variable the name of the secret.
    :param source: name and text of a Python file that is shipped along and run, with ``command`` as its arguments.
    :raises Invalid: a variable is given both ways, or the file is too large.
    """
    both = sorted(set(env) & set(secrets_of))
    if both:
        raise Invalid(f"{', '.join(both)} is given both by --env and by --secret; a variable has one value")
    words = [as_given(word) for word in command]
    container: Json = {"name": "main", "image": image}
    pod: Json = {"containers": [container]}
    template: Json = {"spec": pod}
    if source is not None:
        file, text = source
        if len(text.encode()) > _MAX_SOURCE:
            raise Invalid(
                f"{file} has more than {_MAX_SOURCE} bytes; build an image with it, and give --image"
            )
        # As input travels: in an annotation of the pod, which needs no further object that would have to go.
        template["metadata"] = {"annotations": {_SOURCE: text}}
        item = {"path": file, "fieldRef": {"fieldPath": f"metadata.annotations['{_SOURCE}']"}}
        pod["volumes"] = [{"name": _SOURCE, "downwardAPI": {"items": [item]}}]
        container["volumeMounts"] = [{"name": _SOURCE, "mountPath": "/app", "readOnly": True}]
        container["workingDir"] = "/app"
        # Python takes a name that begins with a dash for an option.
        container["command"] = ["python3", f"./{file}" if file.startswith("-") else file, *words]
    elif command:
        container["command"] = words
    task: Json = {"name": "main", "template": template}
    if env:
        task["env"] = [{"name": key, "value": as_given(value)} for key, value in env.items()]
    if secrets_of:
        task["secrets"] = [
            {"name": variable, "secret": secret, "env": variable} for variable, secret in secrets_of.items()
        ]
    metadata: Json = {"name": name} if name else {}
    if labels:
        metadata["labels"] = dict(labels)
    spec: Json = {"ttlSecondsAfterFinished": TTL, "tasks": [task]}
    if bindings:
        spec["bindings"] = [dict(item) for item in bindings]
    if service_account is not None:
        spec["serviceAccountName"] = service_account
    return {"apiVersion": API_VERSION, "kind": "WorkflowRun", "metadata": metadata, "spec": spec}


def as_given(text: str) -> str:
    """The text written so that the kubelet hands it on unchanged: it takes ``$$`` and ``$(NAME)`` for its own."""
    return _EXPANDED.sub("$$", text)


def again(run: WorkflowRun, raw: Mapping[str, Any], *, from_failed: bool) -> Json:
    """A new run like a finished one.

    :param from_failed: leave out what succeeded. Outputs that later tasks need are handed on as input.
    :raises Invalid: values that were brought along are gone, or nothing is left to run.
    """
    if any(item.input is not None for task in run.spec.tasks for item in task.secrets):
        raise Invalid(
            f"run {run.metadata.name} used values that were sent with it, and they were removed when it ended;"
            " start a new run with these values: runkeys run -f … --input @…"
        )
    spec = copy.deepcopy(dict(raw["spec"]))
    for field in ("requester", "sealedInput", "cancel", "suspend"):
        spec.pop(field, None)
    if from_failed:
        _leave_out(run, spec)
    metadata = raw["metadata"]
    labels = dict(metadata.get("labels") or {})
    return {
        "apiVersion": API_VERSION,
        "kind": "WorkflowRun",
        "metadata": {"generateName": f"{run.metadata.name[:50]}-", **({"labels": labels} if labels else {})},
        "spec": spec,
    }


def _leave_out(run: WorkflowRun, spec: Json) -> None:
    done = {task.name: task for task in run.status.tasks if task.state == "Succeeded"}
    always = {task.name for task in run.spec.tasks if task.runs == "Always"}
    skipped = set(done) - always
    left = [task for task in spec["tasks"] if task["name"] not in skipped]
    if not any(task["name"] not in always for task in left):
        raise Invalid(
            f"all tasks of run {run.metadata.name} succeeded; leave out --from-failed to run all again"
        )
    given = dict(spec.get("input") or {})
    for task in left:
        task["dependsOn"] = [name for name in task.get("dependsOn") or [] if name not in skipped]
        for item in task.get("input") or []:
            source = str(item["from"])
            if not source.startswith("tasks."):
                continue
            name = source.removeprefix("tasks.").removesuffix(".output")
            if name in skipped:
                if done[name].output is None:
                    raise Invalid(
                        f"task {name} wrote no output that could be passed to task {task['name']} again"
                    )
                key = f"{name}-output"
                while key in given and given[key] != done[name].output:
                    key += "-again"
                given[key] = done[name].output
                item["from"] = f"input.{key}"
    spec["tasks"] = left
    if given:
        spec["input"] = given
