"""What a task needs: its run and bindings resolved into references, or refused. Pure; sees no value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runkeys.access import Subject, denial
from runkeys.api import BindingEntry, SecretBinding, SecretKeySelector, Task, TaskSecret, WorkflowRun
from runkeys.api.binding import ON_COMPLETION, ON_START
from runkeys.graph import graph_refusals
from runkeys.naming import is_reserved_variable, is_variable_name, secret_variable
from runkeys.refusal import Reason, Refusal
from runkeys.template import carriers, containers, images, restart_refusals, template_refusals


@dataclass(frozen=True)
class SecretReference:
    """A variable or file, and where its value comes from.

    :ivar variable: name of the variable; of a file empty.
    :ivar file: name of the file; of a variable empty.
    :ivar field: path of the task's entry in the run, for messages.
    """

    variable: str
    file: str
    source: SecretKeySelector
    binding: str
    entry: str
    field: str

    @property
    def key(self) -> str:
        """The key in the attempt's Secret. No variable has a dot in its name."""
        return self.variable or f"file.{self.file}"


@dataclass(frozen=True)
class TaskNeeds:
    """What one task needs to start.

    :ivar references: one for each variable; empty for a task without secrets.
    :ivar lifetime_seconds: longest time that its Secret may exist; None without secrets.
    :ivar deadline_seconds: ``activeDeadlineSeconds`` of the pod; None: unlimited.
    :ivar release_policy: when its Secret goes: the earliest that its bindings and itself ask for.
    """

    references: tuple[SecretReference, ...]
    lifetime_seconds: int | None
    deadline_seconds: int | None
    release_policy: str = ON_COMPLETION


@dataclass(frozen=True)
class Bindings:
    """The bindings that a run names, as they were read a moment ago.

    :ivar found: by name. A binding that is named but neither here nor in ``unreadable`` does not exist.
    :ivar unreadable: name -> what was wrong, for bindings stored by another version of the schema.
    """

    found: Mapping[str, SecretBinding]
    unreadable: Mapping[str, str]


def task_needs(run: WorkflowRun, index: int, bindings: Bindings) -> TaskNeeds | tuple[Refusal, ...]:
    """Resolve task ``index`` of ``run``, or say everything that is in the way.

    Permanent refusals come first: while there is one, waiting for the others is of no use.
    """
    task, path = run.spec.tasks[index], f"spec.tasks[{index}]"
    refusals = [*graph_refusals(run, index), *_variable_refusals(task, path)]
    variables = [variable_of(item) for item in task.secrets]
    refusals += template_refusals(task, path, run.spec.service_account_name, variables)
    refusals += _binding_refusals(run, task, bindings)
    references: list[SecretReference] = []
    for position, item in enumerate(task.secrets):
        where = f"{path}.secrets[{position}].secret"
        found = _look_up(run, item, where, bindings)
        if isinstance(found, Refusal):
            refusals.append(found)
        else:
            binding, entry = found
            references.append(
                SecretReference(
                    variable=variables[position],
                    file=item.file or "",
                    source=entry.secret_key_ref,
                    binding=binding.metadata.name,
                    entry=entry.name,
                    field=where,
                )
            )
    used = [bindings.found[name] for name in sorted({reference.binding for reference in references})]
    lifetime = min((binding.spec.max_lifetime_seconds for binding in used), default=None)
    deadline = task.active_deadline_seconds
    if deadline is not None and lifetime is not None and deadline > lifetime:
        refusals.append(
            Refusal(
                Reason.DEADLINE_TOO_LONG,
                f"{path}.activeDeadlineSeconds",
                f"{deadline} is more than the {lifetime} s that the bindings allow (maxLifetimeSeconds);"
                " lower it or raise theirs",
                permanent=False,
            )
        )
    early = task.release_policy == ON_START or any(
        binding.spec.release_policy == ON_START for binding in used
    )
    if early and references:
        refusals += restart_refusals(task, path)
    if refusals:
        return tuple(sorted(refusals, key=lambda refusal: not refusal.permanent))
    return TaskNeeds(
        tuple(references),
        lifetime,
        deadline if deadline is not None else lifetime,
        ON_START if early else ON_COMPLETION,
    )


def access_refusal(
    run: WorkflowRun, names: Iterator[str] | list[str], subject: Subject, bindings: Bindings
) -> Refusal | None:
    """Why one of the bindings called ``names`` does not admit ``subject``; None if all do."""
    for name in names:
        binding = bindings.found.get(name)
        if binding is None:
            return _binding_missing(run, name, bindings)
        reason = denial(binding, subject)
        if reason is not None:
            return Refusal(
                Reason.ACCESS_DENIED,
                _binding_path(run, name),
                f"{reason}; its owner can admit the run in spec.access",
                permanent=False,
            )
    return None


def variable_of(item: TaskSecret) -> str:
    """The variable that carries ``item``: its exact ``env``, else SECRET_*; empty if a file does."""
    if item.file is not None:
        return ""
    return item.env if item.env is not None else secret_variable(item.name)


def _variable_refusals(task: Task, path: str) -> Iterator[Refusal]:
    """Names that clash or that no task may set. The CRD refuses most of it; older objects may hold it."""
    seen: dict[str, str] = {}
    named = [
        (variable_of(item), f"{path}.secrets[{index}]", f"secret {item.name!r}")
        for index, item in enumerate(task.secrets)
    ] + [(item.name, f"{path}.env[{index}]", "env") for index, item in enumerate(task.env)]
    files: dict[str, str] = {}
    for index, item in enumerate(task.secrets):
        if item.file is not None and item.file in files:
            yield Refusal(
                Reason.NAME_COLLISION,
                f"{path}.secrets[{index}].file",
                f"secret {item.name!r} is to be the file {item.file}, and so is {files[item.file]}; give one of them"
                " another name",
                permanent=True,
            )
        files.setdefault(item.file or "", f"secret {item.name!r}")
    for variable, where, what in named:
        if not variable:
            continue
        if not is_variable_name(variable) or is_reserved_variable(variable):
            yield Refusal(
                Reason.INVALID,
                where,
                f"{variable!r} cannot be set as a variable; give another name with env",
                permanent=True,
            )
        if variable in seen:
            yield Refusal(
                Reason.NAME_COLLISION,
                where,
                f"{what} gives the variable {variable}, and so does {seen[variable]}; give one of them another"
                " name with env",
                permanent=True,
            )
        seen.setdefault(variable, f"{what} at {where}")
    for container in containers(task.template):
        if container.get("name") not in carriers(task) or not isinstance(container.get("env"), list):
            continue
        for item in container["env"]:
            if isinstance(item, dict) and item.get("name") in seen:
                yield Refusal(
                    Reason.NAME_COLLISION,
                    f"{path}.template",
                    f"container {container.get('name')!r} sets the variable {item.get('name')} itself, and so does"
                    f" {seen[str(item.get('name'))]}; remove one of them",
                    permanent=True,
                )


def _look_up(
    run: WorkflowRun, item: TaskSecret, where: str, bindings: Bindings
) -> tuple[SecretBinding, BindingEntry] | Refusal:
    names = [reference.name for reference in run.spec.bindings]
    if not names:
        return Refusal(
            Reason.SECRET_NOT_FOUND,
            where,
            f"the run names no SecretBinding, so there is no secret {item.secret!r}; list the binding that has it"
            " under spec.bindings",
            permanent=True,
        )
    hits = [
        (bindings.found[name], entry)
        for name in dict.fromkeys(names)
        if name in bindings.found and (entry := bindings.found[name].entry(item.secret)) is not None
    ]
    if len(hits) == 1:
        return hits[0]
    if hits:
        return Refusal(
            Reason.NAME_COLLISION,
            where,
            f"{item.secret!r} is in several of the run's bindings"
            f" ({', '.join(binding.metadata.name for binding, _ in hits)}); rename it in all but one, or name only"
            " one of them under spec.bindings",
            permanent=False,
        )
    offered = sorted(
        entry.name for name in names if name in bindings.found for entry in bindings.found[name].spec.secrets
    )
    return Refusal(
        Reason.SECRET_NOT_FOUND,
        where,
        f"no secret {item.secret!r} in {', '.join(names)}; they have: {', '.join(offered) or 'none'}",
        permanent=False,
    )


def _binding_refusals(run: WorkflowRun, task: Task, bindings: Bindings) -> Iterator[Refusal]:
    missing = [ref.name for ref in run.spec.bindings if ref.name not in bindings.found]
    for name in dict.fromkeys(missing):
        yield _binding_missing(run, name, bindings)
    wanted = {item.secret for item in task.secrets}
    used = [
        ref.name
        for ref in run.spec.bindings
        if ref.name in bindings.found and any(bindings.found[ref.name].entry(name) for name in wanted)
    ]
    subject = Subject(run.metadata.labels, run.spec.service_account_name, images(task.template))
    refusal = access_refusal(run, list(dict.fromkeys(used)), subject, bindings)
    if refusal is not None:
        yield refusal


def _binding_missing(run: WorkflowRun, name: str, bindings: Bindings) -> Refusal:
    if name in bindings.unreadable:
        return Refusal(
            Reason.BINDING_INVALID,
            _binding_path(run, name),
            f"SecretBinding {name} cannot be read: {bindings.unreadable[name]}",
            permanent=False,
        )
    return Refusal(
        Reason.BINDING_NOT_FOUND,
        _binding_path(run, name),
        f"there is no SecretBinding {name} in namespace {run.metadata.namespace}; create it, and the run goes on",
        permanent=False,
    )


def _binding_path(run: WorkflowRun, name: str) -> str:
    index = next((i for i, ref in enumerate(run.spec.bindings) if ref.name == name), 0)
    return f"spec.bindings[{index}].name"
