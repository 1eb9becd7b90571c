"""`runkeys plan` of manifests whose pods ask for secrets themselves: Pods, Jobs, CronJobs, Deployments and others."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from runkeys._text.words import line
from runkeys.api import SecretBinding
from runkeys.api.common import describe_invalid
from runkeys.cli._engines import ENGINES, argo_templates, as_map, jobset_templates, tekton_templates
from runkeys.cli._framework import Settings
from runkeys.cli._output import NOTHING, print_object, print_table
from runkeys.cli._printing import echo
from runkeys.cli._stores import needs, stored
from runkeys.client import Client
from runkeys.names import ASK, ASK_CONTAINERS, ASK_SEALED, ASK_VALUE
from runkeys.planning.access import PodSubject
from runkeys.planning.asking_pod import FIELD, Asked, Parameter, binding_problem, parse_ask
from runkeys.planning.pod_template import images
from runkeys.planning.refusal import Refusal
from runkeys.planning.requirements import StoreValue, reference_to
from runkeys.problems import NotFound, Problem

Json = dict[str, Any]

_CONTROLLERS = {
    "Job": ("job-controller", "batch", "Job"),
    "CronJob": ("job-controller", "batch", "Job"),
    "JobSet": ("job-controller", "batch", "Job"),
    "Deployment": ("replicaset-controller", "apps", "ReplicaSet"),
    "ReplicaSet": ("replicaset-controller", "apps", "ReplicaSet"),
    "StatefulSet": ("statefulset-controller", "apps", "StatefulSet"),
    "DaemonSet": ("daemon-set-controller", "apps", "DaemonSet"),
}
"""By kind: what creates the pods, and the group and kind of the object that controls them."""

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


@dataclass
class PodPreview:
    """Preview of the pods of one manifest.

    :ivar name: kind and name of the manifest. :ivar asked: what the pods ask for; empty if that cannot be read.
    :ivar parameters: sealed parameters that they bring along.
    :ivar containers: those that get the secrets. :ivar problems: what keeps the pods from being created, or waiting.
    :ivar needs: what the pods need of SecretStores.
    :ivar note: what cannot be told from the manifest.
    """

    name: str
    asked: tuple[Asked, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    containers: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    note: str = ""


def asking_templates(documents: list[Any]) -> list[tuple[Json, Json]]:
    """The pod templates with the label, each with the manifest that has it.

    A manifest of a workflow engine has several; then its name says which one it is.
    """
    found = []
    for document in documents:
        for name, template in _templates_of(document):
            labels = as_map(as_map(template.get("metadata")).get("labels"))
            if labels.get(ASK) == ASK_VALUE:
                found.append((_named(document, name), template))
    return found


def _named(document: Json, template: str) -> Json:
    metadata = as_map(document.get("metadata"))
    name = str(metadata.get("name") or metadata.get("generateName") or "unnamed")
    return {**document, "metadata": {**metadata, "name": f"{name}, {template}" if template else name}}


def _templates_of(document: Any) -> Iterator[tuple[str, Json]]:
    """By name the pod itself, or what a workload or a workflow engine makes its pods from."""
    if not isinstance(document, dict) or not isinstance(document.get("spec"), dict):
        return
    spec, group = document["spec"], str(document.get("apiVersion", "")).partition("/")[0]
    if group == "argoproj.io":
        yield from argo_templates(document)
    elif group == "tekton.dev":
        yield from tekton_templates(document)
    elif group == "jobset.x-k8s.io":
        yield from jobset_templates(document)
    elif isinstance(spec.get("containers"), list):
        yield "", dict(document)
    else:
        inner = spec.get("jobTemplate") if document.get("kind") == "CronJob" else document
        template = as_map(as_map(inner).get("spec")).get("template")
        if isinstance(template, dict) and isinstance(as_map(template.get("spec")).get("containers"), list):
            yield "", template


def preview_pods(client: Client, manifest: Json, template: Json) -> PodPreview:
    """Return what the pods of a manifest would get and what is missing, without creating one."""
    kind, metadata = str(manifest.get("kind")), as_map(template.get("metadata"))
    notes = as_map(metadata.get("annotations"))
    found = PodPreview(f"{kind}/{manifest['metadata']['name']}")
    read = parse_ask(str(notes.get(ASK, "")), str(notes.get(ASK_SEALED, "")))
    found.asked, found.parameters = read or ((), ())
    found.containers = _containers(template, notes)
    subject = _subject(client, kind, template)
    if kind in ENGINES:
        found.note = (
            "which account creates its pods, and which images the engine adds, is not known here; see pods.createdBy"
            " and images of the SecretBindings"
        )
    stored_values: list[StoreValue] = []
    for binding_name in dict.fromkeys(item.binding for item in found.asked):
        entries = [item.entry for item in found.asked if item.binding == binding_name]
        found.problems += _problems(client, binding_name, entries, subject, stored_values)
    for note in needs(client, subject.service_account, dict.fromkeys(stored_values)):
        (found.problems if note.problem else found.needs).append(note.text)
    if client.may("create", "pods", group=""):
        found.problems += _refused(client, template)
    else:
        found.problems.append(
            "you may not create pods here, so the API server cannot be asked whether it would take this one"
        )
    return found


def _containers(template: Json, notes: Mapping[str, str]) -> tuple[str, ...]:
    containers = [str(item.get("name")) for item in template["spec"]["containers"] if isinstance(item, dict)]
    named = notes.get(
        ASK_CONTAINERS, notes.get(_DEFAULT_CONTAINER, containers[0] if len(containers) == 1 else "")
    )
    return tuple(part.strip() for part in str(named).split(",") if part.strip())


def _subject(client: Client, kind: str, template: Json) -> PodSubject:
    if kind in ENGINES:
        # Which account an engine's controller has is up to its installation.
        created_by, owner = None, ENGINES[kind]
    elif kind in _CONTROLLERS:
        controller, group, owner_kind = _CONTROLLERS[kind]
        created_by, owner = f"system:serviceaccount:kube-system:{controller}", (group, owner_kind)
    else:
        created_by, owner = str(client.requester["username"]), None
    return PodSubject(
        labels=as_map(as_map(template.get("metadata")).get("labels")),
        service_account=str(template["spec"].get("serviceAccountName") or "default"),
        images=images(template),
        created_by=created_by,
        owner=owner,
    )


def _problems(
    client: Client, name: str, entries: list[str], subject: PodSubject, read: list[StoreValue]
) -> Iterator[str]:
    """What keeps a pod from entries of a binding. What they read from stores is added to ``read``."""
    try:
        binding = SecretBinding.parse(client.read(client.path("secretbindings", name)))
    except NotFound:
        yield f"there is no SecretBinding {name} in namespace {client.namespace}; create it, and the pod continues"
        return
    except ValidationError as error:
        yield f"SecretBinding {name} cannot be read: {describe_invalid(error)}"
        return
    for entry in entries:
        refusal = binding_problem(binding, entry, subject)
        if refusal is not None:
            yield refusal.message
            continue
        reference = reference_to(client.namespace, binding, binding.spec.by_name[entry], FIELD, leases=False)
        if isinstance(reference, Refusal):
            yield reference.message
        else:
            read += stored([reference])


def _refused(client: Client, template: Json) -> Iterator[str]:
    """What the API server says of such a pod: the policies check what it asks for, and its account's rights."""
    pod = copy.deepcopy(template)
    metadata = {
        key: value for key, value in as_map(pod.get("metadata")).items() if key in ("labels", "annotations")
    }
    metadata |= {"name": f"runkeys-plan-{uuid4().hex[:8]}", "namespace": client.namespace}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}
    try:
        client.create(f"/api/v1/namespaces/{client.namespace}/pods", body, dryRun="All")
    except Problem as error:
        yield f"the API server refuses such a pod: {error}"


def print_previews(settings: Settings, found: list[PodPreview]) -> None:
    """Print them as a table with the problems below it, or as JSON or YAML."""
    if settings.output in ("json", "yaml"):
        print_object(settings, {"pods": [_as_object(item) for item in found]})
        return
    rows = []
    for item in found:
        begin = [item.name, ", ".join(item.containers) or NOTHING]
        for gets, source in _gets(item) or [(NOTHING, NOTHING)]:
            rows.append([*begin, gets, source])
            begin = ["", ""]
    print_table(settings, ["PODS OF", "CONTAINERS", "GETS", "FROM"], rows)
    for item in found:
        for text in dict.fromkeys(item.needs):
            echo(line(f"Needs: {item.name}: {text}"))
        for problem in dict.fromkeys(item.problems):
            echo(line(f"Problem: {item.name}: {problem}"))
    for note in dict.fromkeys(item.note for item in found if item.note):
        names = ", ".join(item.name for item in found if item.note == note)
        echo(line(f"Note: {names}: {note}"))


def _gets(item: PodPreview) -> list[tuple[str, str]]:
    """What carries each secret, and where it comes from."""
    return [
        *((_carrier(asked), f"{asked.binding}/{asked.entry}") for asked in item.asked),
        *((_carrier(parameter), "the pod, sealed") for parameter in item.parameters),
    ]


def _carrier(one: Asked | Parameter) -> str:
    return one.variable or f"file {one.file}"


def _as_object(item: PodPreview) -> Json:
    secrets = [
        {
            "variable": asked.variable or None,
            "file": asked.file or None,
            "from": f"{asked.binding}/{asked.entry}",
        }
        for asked in item.asked
    ] + [
        {"variable": one.variable or None, "file": one.file or None, "from": "sealed"}
        for one in item.parameters
    ]
    return {
        "name": item.name,
        "containers": list(item.containers),
        "secrets": secrets,
        "needs": list(dict.fromkeys(item.needs)),
        "problems": list(dict.fromkeys(item.problems)),
        "note": item.note or None,
    }
