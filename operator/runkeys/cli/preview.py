"""`runkeys plan` and `runkeys who-can`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import click
from pydantic import ValidationError

from runkeys._text.words import line
from runkeys.api import AccessRule, SecretBinding, WorkflowRun
from runkeys.api.common import GROUP, describe_invalid
from runkeys.cli._framework import Settings, command
from runkeys.cli._output import NOTHING, print_object, print_table
from runkeys.cli._printing import echo
from runkeys.cli._stores import Note, needs, stored
from runkeys.cli.preview_pods import asking_templates, preview_pods, print_previews
from runkeys.cli.runs import only_run, read_manifests
from runkeys.client import Client
from runkeys.client.rights import bound_to_role
from runkeys.client.submission import LOCAL, parse_run, prepared, take_secrets
from runkeys.planning.access import REVEAL, USE, grant, subject_of
from runkeys.planning.actions import CreateJob
from runkeys.planning.bindings import Bindings, bindings_of, requester_of
from runkeys.planning.memory import Finding, Memory
from runkeys.planning.observation import Observation
from runkeys.planning.plan import plan as plan_of
from runkeys.planning.refusal import Refusal
from runkeys.planning.requirements import (
    ANYWHERE,
    SealedValue,
    SecretReference,
    StoreValue,
    TaskRequirements,
    TemplateValue,
    task_requirements,
)
from runkeys.problems import Denied, Invalid, NotFound, Problem, Usage

Json = dict[str, Any]

BINDINGS = SecretBinding.CRD.plural


@dataclass
class Preview:
    """Preview of a run.

    :ivar told: what the operator says of the tasks of a run in the cluster.
    :ivar requirements: requirements by task, without tasks that are refused.
    :ivar jobs: Jobs of the tasks that would start at once.
    :ivar refusals: reasons that prevent the run.
    :ivar missing: rights that the user does not have, each with the command that grants it.
    :ivar server: refusals of the API server.
    :ivar stores: what the run needs of SecretStores, and what of it is missing.
    """

    run: WorkflowRun
    told: list[str] = field(default_factory=list)
    requirements: dict[str, TaskRequirements] = field(default_factory=dict)
    jobs: list[Json] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    server: list[str] = field(default_factory=list)
    stores: list[Note] = field(default_factory=list)


@command()
@click.argument("name", required=False)
@click.option(
    "-f",
    "--file",
    type=click.Path(),
    help="Manifest of a WorkflowRun, or of pods that ask for secrets themselves.",
)
def plan(settings: Settings, name: str | None, file: str | None) -> None:
    """Show every pod, variable and source of a run, and missing rights. It changes nothing.

    The run is a manifest (-f), or NAME in the cluster, which is shown as if it began now. A manifest of a Pod, Job,
    CronJob, Deployment or similar with the label runkeys.dev/secrets shows what each pod would get.

    The plan is computed by the operator's own code, so it shows what the operator would do. Exit codes: 4 a right is
    missing, 5 something else prevents the run.
    """
    if (name is None) == (file is None):
        raise Usage("give either the name of a run, or a manifest with -f")
    documents = read_manifests(file) if file is not None else []
    asking = asking_templates(documents)
    if asking and not any(isinstance(item, dict) and item.get("kind") == "WorkflowRun" for item in documents):
        _plan_pods(settings, asking)
        return
    client = settings.client()
    if file is not None:
        found = preview(client, only_run(file, documents))
    else:
        found = _preview_of(client, client.read(client.path("workflowruns", str(name))))
    if settings.output in ("json", "yaml"):
        print_object(settings, _as_object(found))
    else:
        _print(settings, found)
    if found.missing or any(note.problem is Denied for note in found.stores):
        raise Denied("")
    if found.refusals or found.server or any(note.problem for note in found.stores):
        raise Invalid("")


def _plan_pods(settings: Settings, asking: list[tuple[Json, Json]]) -> None:
    client = settings.client()
    found = [preview_pods(client, manifest, template) for manifest, template in asking]
    print_previews(settings, found)
    if any(item.problems for item in found):
        raise Invalid("")


def preview(client: Client, manifest: Json) -> Preview:
    """Return the plan for a run without creating it."""
    _, values = take_secrets(manifest)
    made = copy.deepcopy(manifest)
    if values:  # what they are is of no account here
        made["spec"]["input"].pop("$secrets")
        made["spec"]["sealedInput"] = {
            **(made["spec"].get("sealedInput") or {}),
            **dict.fromkeys(values, LOCAL),
        }
    made = prepared(made, client.namespace, client.requester, client.published_key)
    run = parse_run({**made, "metadata": {**made["metadata"], "uid": str(uuid4()), "generation": 1}})
    return _previewed(client, run, made)


def _preview_of(client: Client, raw: Json) -> Preview:
    """Return the plan for a run that is in the cluster, as if it began now."""
    run = parse_run({key: value for key, value in raw.items() if key != "status"})
    found = _previewed(client, run, None)
    status = WorkflowRun.parse(raw).status
    if not status.finished:
        found.told = [f"{task.name}: {task.message}" for task in status.tasks if task.message]
    return found


def _previewed(client: Client, run: WorkflowRun, made: Json | None) -> Preview:
    """Return the plan for a run.

    :param made: the run as it would be sent; None: the API server has accepted it already.
    """
    bindings = _read_bindings(client, run)
    found = Preview(run)
    for index, task in enumerate(run.spec.tasks):
        requirements = task_requirements(run, index, bindings)
        if isinstance(requirements, TaskRequirements):
            found.requirements[task.name] = requirements
        else:
            found.refusals += [item for item in requirements if item not in found.refusals]
    now = datetime.now(UTC)
    # That the values can be read is for the operator alone to see.
    observation = Observation(
        run, bindings, {}, (), Memory(sources=Finding(now, None)), fresh=True, support=ANYWHERE
    )
    step = plan_of(observation, now)
    found.jobs = [dict(action.manifest) for action in step.actions if isinstance(action, CreateJob)]
    found.missing = list(_missing(client, run, bindings))
    read = [item for needed in found.requirements.values() for item in stored(needed.references)]
    found.stores = list(needs(client, run.spec.service_account_name, dict.fromkeys(read)))
    if not found.refusals and not found.missing:
        found.server = list(_refused_by_server(client, made, found.jobs))
    return found


def _read_bindings(client: Client, run: WorkflowRun) -> Bindings:
    found: dict[str, SecretBinding] = {}
    unreadable: dict[str, str] = {}
    me = requester_of(run)
    own: list[str] = []
    if any(reference.personal for reference in run.spec.bindings):
        for binding in client.bindings():
            if binding.spec.owner is not None and binding.spec.owner.username == me:
                own.append(binding.metadata.name)
                found[binding.metadata.name] = binding
    for name in {item.name for item in run.spec.bindings if item.name is not None}:
        try:
            found[name] = SecretBinding.parse(client.read(client.path("secretbindings", name)))
        except NotFound:
            continue
        except ValidationError as error:
            unreadable[name] = describe_invalid(error)
        except Denied as error:
            unreadable[name] = str(error)
    return Bindings(found, unreadable, tuple(sorted(own)))


def _missing(client: Client, run: WorkflowRun, bindings: Bindings) -> Iterator[str]:
    user = client.requester["username"]
    if user != requester_of(run):
        return  # the operator asks for the rights of who created it
    if not client.may("create", "workflowruns"):
        yield (
            f"{user} may not create WorkflowRuns in namespace {client.namespace}; an administrator of the namespace:"
            f" {bound_to_role(client.namespace, user)}"
        )
    for name in bindings_of(run, bindings):
        binding = bindings.found.get(name)
        if binding is not None and binding.spec.owner is None and not client.may(USE, BINDINGS, name=name):
            command_ = grant(USE, client.namespace, name, subject_of(user))
            yield f"{user} may not use SecretBinding {name}; an administrator of the namespace can allow it: {command_}"


def _refused_by_server(client: Client, made: Json | None, jobs: list[Json]) -> Iterator[str]:
    """Return the API server's refusals of the run, and of a Job and a pod like those that would be created."""
    name = f"runkeys-plan-{uuid4().hex[:8]}"
    if made is not None:
        sent = {**made, "metadata": {**made["metadata"], "name": name}}
        # Fields that stand for sealed values are none that the policies or the operator would take apart here.
        yield from _tried(client, client.path("workflowruns"), sent, "the run")
    for job_of_run in jobs:
        task = job_of_run["metadata"]["labels"][f"{GROUP}/task"]
        # The policies allow the name of a run's Secret to the pods of that run's Job alone, so another one stands here.
        manifest = _renamed(job_of_run, job_of_run["metadata"]["name"], name)
        template, spec = manifest["spec"]["template"], manifest["spec"]
        plain = {**template, "metadata": {"annotations": template["metadata"].get("annotations") or {}}}
        meta = {"name": name, "namespace": client.namespace}
        pod = {"apiVersion": "v1", "kind": "Pod", **plain, "metadata": {**plain["metadata"], **meta}}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {**spec, "template": plain}}
        if client.may("create", "jobs", group="batch"):
            path = f"/apis/batch/v1/namespaces/{client.namespace}/jobs"
            yield from _tried(client, path, job, f"the Job of task {task}")
        if client.may("create", "pods", group=""):
            path = f"/api/v1/namespaces/{client.namespace}/pods"
            yield from _tried(client, path, pod, f"the pod of task {task}")


def _renamed(value: Any, old: str, new: str) -> Any:
    """A copy with another name wherever this one stands by itself."""
    if isinstance(value, dict):
        return {key: _renamed(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, old, new) for item in value]
    return new if value == old else value


def _tried(client: Client, path: str, body: Json, what: str) -> Iterator[str]:
    try:
        client.create(path, body, dryRun="All")
    except Problem as error:
        yield f"the API server refuses {what}: {error}"


def _source(reference: SecretReference) -> str:
    if isinstance(reference.source, SealedValue):
        kind = "sealed" if reference.binding else "sent with the run"
        return f"{reference.binding or 'sealedInput'}/{reference.entry} ({kind})"
    if isinstance(reference.source, StoreValue):
        kind = f"SecretStore {reference.source.store}, {reference.source.path}"
        if reference.source.field:
            kind += f", field {reference.source.field}"
    elif isinstance(reference.source, TemplateValue):
        kind = f"template of {', '.join(part.entry for part in reference.source.parts)}"
    else:
        kind = f"Secret {reference.source.name}, key {reference.source.key}"
    return f"{reference.binding}/{reference.entry} ({kind})"


def _rows(found: Preview) -> Iterator[list[str]]:
    for task in found.run.spec.tasks:
        requirements = found.requirements.get(task.name)
        after = ", ".join(task.depends_on) or NOTHING
        if requirements is None:
            yield [task.name, after, "refused", NOTHING, NOTHING, NOTHING]
            continue
        limit = f"{requirements.lifetime_seconds}s" if requirements.lifetime_seconds is not None else NOTHING
        if not requirements.references:
            yield [task.name, after, NOTHING, NOTHING, NOTHING, NOTHING]
        for number, item in enumerate(requirements.references):
            begin = [task.name, after] if number == 0 else ["", ""]
            yield [
                *begin,
                item.variable or f"file {item.file}",
                _source(item),
                requirements.release_policy,
                limit,
            ]


def _print(settings: Settings, found: Preview) -> None:
    print_table(settings, ["TASK", "AFTER", "GETS", "FROM", "RELEASE", "AT MOST"], list(_rows(found)))
    names = [job["metadata"]["labels"][f"{GROUP}/task"] for job in found.jobs]
    echo(f"Starts at once: {', '.join(names) or 'nothing'}")
    for text in found.told:
        echo(line(f"The operator says: {text}"))
    for refusal in found.refusals:
        echo(line(f"Problem: {refusal} ({'needs a new run' if refusal.permanent else 'the run would wait'})"))
    for note in found.stores:
        echo(line(f"{'Problem' if note.problem else 'Needs'}: {note.text}"))
    for text in (*found.missing, *found.server):
        echo(line(f"Problem: {text}"))


def _as_object(found: Preview) -> Json:
    return {
        "tasks": [
            {
                "name": task.name,
                "dependsOn": task.depends_on,
                "secrets": [
                    {"variable": item.variable or None, "file": item.file or None, "from": _source(item)}
                    for item in found.requirements[task.name].references
                ]
                if task.name in found.requirements
                else None,
            }
            for task in found.run.spec.tasks
        ],
        "jobs": found.jobs,
        "needs": [note.text for note in found.stores if note.problem is None],
        "problems": [
            *(
                {
                    "reason": item.reason.value,
                    "field": item.field,
                    "message": item.message,
                    "permanent": item.permanent,
                }
                for item in found.refusals
            ),
            *({"reason": "UseDenied", "message": text} for text in found.missing),
            *({"reason": "StoreNotReady", "message": note.text} for note in found.stores if note.problem),
            *({"reason": "Refused", "message": text} for text in found.server),
        ],
    }


@command(name="who-can")
@click.argument("verb", type=click.Choice([USE, REVEAL]))
@click.argument("binding")
def who_can(settings: Settings, verb: str, binding: str) -> None:
    """Show who may use or reveal BINDING, through which role, and which runs and pods it admits.

    Users start runs with it. Of a pod that asks for secrets itself, the service account needs the right.

    The command lists the roles and role bindings of the namespace and of the cluster, so you need the right to do that.
    """
    client = settings.client()
    found = SecretBinding.parse(client.read(client.path("secretbindings", binding)))
    if found.spec.owner is not None:
        echo(f"{binding} is the personal binding of {found.spec.owner.username}: nobody else may {verb} it")
        return
    rows = list(_subjects(client, verb, binding))
    if settings.output in ("json", "yaml"):
        items = [{"kind": kind, "name": name, "through": through} for kind, name, through in rows]
        print_object(settings, {"subjects": items, "access": found.to_wire()["spec"].get("access", [])})
        return
    if rows:
        print_table(settings, ["KIND", "NAME", "THROUGH"], rows)
    else:
        echo(f"no role allows anybody to {verb} {binding}")
    echo(f"To allow it: {grant(verb, client.namespace, binding, '--user=USER')}")
    for rule in found.spec.access:
        echo(line(f"Admits {'runs' if rule.pods is None else 'pods'}: {_admits(rule)}"))
    if not found.spec.access:
        echo("Admits no run and no pod: spec.access is empty")


def _admits(rule: AccessRule) -> str:
    """An access rule in words. All its parts must match."""
    parts = []
    selector = rule.run_selector if rule.pods is None else rule.pods.selector
    if selector is not None:
        labels = [f"{key}={value}" for key, value in selector.match_labels.items()]
        labels += [
            f"{item.key} {item.operator}{f' ({chr(44).join(item.values)})' if item.values else ''}"
            for item in selector.match_expressions
        ]
        parts.append(f"with labels {', '.join(labels)}" if labels else "with any labels")
    if rule.pods is not None and rule.pods.created_by is not None:
        parts.append(f"created by {' or '.join(rule.pods.created_by)}")
    if rule.pods is not None and rule.pods.owned_by is not None:
        kinds = [
            f"{item.kind}{f'.{item.api_group}' if item.api_group else ''}" for item in rule.pods.owned_by
        ]
        parts.append(f"controlled by a {' or '.join(kinds)}")
    if rule.service_account_names is not None:
        parts.append(f"with service account {' or '.join(rule.service_account_names)}")
    if rule.images is not None:
        parts.append(f"with images {' or '.join(rule.images)}")
    return "; ".join(parts) or ("none, the rule is empty" if rule.pods is None else "all that ask")


def _subjects(client: Client, verb: str, binding: str) -> Iterator[list[str]]:
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    here = f"{rbac}/namespaces/{client.namespace}"
    roles = {("Role", item["metadata"]["name"]): item for item in client.items(f"{here}/roles")}
    roles |= {
        ("ClusterRole", item["metadata"]["name"]): item for item in client.items(f"{rbac}/clusterroles")
    }
    bound = [("RoleBinding", item) for item in client.items(f"{here}/rolebindings")]
    bound += [("ClusterRoleBinding", item) for item in client.items(f"{rbac}/clusterrolebindings")]
    for kind, item in bound:
        role = roles.get((item["roleRef"]["kind"], item["roleRef"]["name"]))
        if role is None or not any(_allows(rule, verb, binding) for rule in role.get("rules") or []):
            continue
        for subject in item.get("subjects") or []:
            who, name = subject["kind"], subject["name"]
            account = name.removeprefix("system:serviceaccount:")
            if who == "ServiceAccount":
                name = f"{subject.get('namespace', client.namespace)}:{name}"
            elif who == "User" and account != name:
                who, name = "ServiceAccount", account  # one may be bound by its username, too
            yield [who, name, f"{kind} {item['metadata']['name']}"]


def _allows(rule: Json, verb: str, binding: str) -> bool:
    names = rule.get("resourceNames") or []
    return (
        bool({verb, "*"} & set(rule.get("verbs") or []))
        and bool({GROUP, "*"} & set(rule.get("apiGroups") or []))
        and bool({BINDINGS, "*"} & set(rule.get("resources") or []))
        and (not names or binding in names)
    )
