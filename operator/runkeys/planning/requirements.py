"""A task's requirements: its run and bindings resolved into references, or a refusal. Pure; sees no value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from runkeys import sealing
from runkeys._text.templates import Template
from runkeys.api import (
    BindingEntry,
    SecretBinding,
    SecretKeySelector,
    StoreFieldSelector,
    Task,
    TaskSecret,
    WorkflowRun,
)
from runkeys.api.binding import NAMESPACE, ON_COMPLETION, ON_START, SEALED, SECRET
from runkeys.names import is_reserved_variable, is_variable_name, secret_variable
from runkeys.planning.bindings import Bindings, binding_refusals, bindings_of, requester_of
from runkeys.planning.graph import graph_refusals
from runkeys.planning.pod_template import (
    containers,
    restart_refusals,
    sealed_refusals,
    shape_refusals,
    template_refusals,
)
from runkeys.planning.refusal import Reason, Refusal, listed
from runkeys.planning.templates import template_of


@dataclass(frozen=True)
class SealedValue:
    """A sealed value, and the only place where it can be unsealed.

    :ivar at: of a parameter of a pod: when the pod was created, which must be before the parameter expires.
    """

    text: str
    context: sealing.Context
    at: datetime | None = None


@dataclass(frozen=True)
class StoreValue:
    """A field of what a SecretStore answers for a path, read as the pod's service account.

    :ivar role: empty if the entry names none. :ivar field: empty for all that is at the path.
    :ivar leased: the store creates a credential for this pod alone, which is revoked at its end.
    """

    store: str
    role: str
    path: str
    field: str
    leased: bool = False


@dataclass(frozen=True)
class TemplateValue:
    """A value that is put together from others.

    :ivar parts: one for each entry that the template refers to. They are read, and are not delivered by themselves.
    """

    template: Template
    parts: tuple[SecretReference, ...]


Source = SecretKeySelector | SealedValue | StoreValue
"""Where a value comes from that is read."""


@dataclass(frozen=True)
class PodIdentity:
    """The pod that values are for: a store decides by its service account what it may read."""

    namespace: str
    service_account: str
    name: str
    uid: str


@dataclass(frozen=True)
class SecretReference:
    """A variable or file, and the source of its value.

    :ivar variable: name of the variable; of a file empty.
    :ivar file: name of the file; of a variable empty.
    :ivar binding: name of the SecretBinding; empty for a value of the run's or the pod's own.
    :ivar entry: name in the binding, of the field in the run's sealedInput, or of the variable or file of a
        pod's parameter.
    :ivar field: path of the task's entry in the run, for messages.
    :ivar sealed: delivery is sealed, so the value must be one that can be sealed.
    """

    variable: str
    file: str
    source: Source | TemplateValue
    binding: str
    entry: str
    field: str
    sealed: bool = False

    @property
    def what(self) -> str:
        """The source in words."""
        if self.binding:
            return f"entry {self.entry!r} of SecretBinding {self.binding}"
        if isinstance(self.source, SealedValue) and isinstance(self.source.context, sealing.PodParameter):
            return f"the sealed parameter {self.entry!r}"
        return f"field {self.entry!r} of the run's sealedInput"

    @property
    def key(self) -> str:
        """The key in the attempt's Secret. No variable has a dot in its name."""
        return self.variable or f"file.{self.file}"


def read_by(references: Iterable[SecretReference]) -> Iterator[SecretReference]:
    """What has to be read for ``references``: in place of a template its parts."""
    for reference in references:
        if isinstance(reference.source, TemplateValue):
            yield from reference.source.parts
        else:
            yield reference


INPUT_LIFETIME = 3600
"""Seconds that values of a run's own may be in the cluster if neither a binding nor the task gives a limit."""


@dataclass(frozen=True)
class TaskRequirements:
    """What one task needs to start.

    :ivar references: one for each variable; empty for a task without secrets.
    :ivar lifetime_seconds: longest time that its Secret may exist; None without secrets.
    :ivar deadline_seconds: ``activeDeadlineSeconds`` of the pod; None: unlimited.
    :ivar release_policy: when its Secret goes: the earliest that its bindings and itself ask for.
    :ivar delivery: Sealed if itself or one of its bindings asks for that; then there is no Secret.
    """

    references: tuple[SecretReference, ...]
    lifetime_seconds: int | None
    deadline_seconds: int | None
    release_policy: str = ON_COMPLETION
    delivery: str = SECRET


UNSEAL_RESOURCES: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "10m", "memory": "32Mi"},
    "limits": {"memory": "64Mi"},
}


@dataclass(frozen=True)
class SealedSupport:
    """Whether this operator can deliver sealed.

    :ivar image: of the container that opens in the pod; empty if it cannot. :ivar problem: why not.
    :ivar resources: of that container.
    """

    image: str = ""
    problem: str = ""
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: UNSEAL_RESOURCES)


NO_SUPPORT = SealedSupport(problem="sealed delivery is not enabled (sealedDelivery.enabled of the chart)")

ANYWHERE = SealedSupport(image="localhost/runkeys-operator")
"""For previews, which do not know the operator: whether it can is for itself to say."""


def support_refusal(
    run: WorkflowRun, index: int, requirements: TaskRequirements, support: SealedSupport
) -> Refusal | None:
    """Why the required delivery is unavailable, or None. The task then waits: no Secret is created instead."""
    if requirements.delivery != SEALED or support.image:
        return None
    task = run.spec.tasks[index]
    asks = "the task" if task.delivery == SEALED else "a binding"
    return Refusal(
        Reason.SEALED_UNAVAILABLE,
        f"spec.tasks[{index}].delivery",
        f"{asks} requires delivery: Sealed, which is not available here:"
        f" {support.problem or NO_SUPPORT.problem}; ask an administrator of the cluster to enable it, or ask"
        " the author of delivery: Sealed to change it to Secret",
        permanent=False,
    )


def source_of(namespace: str, binding: SecretBinding, entry: BindingEntry) -> Source:
    """Where the value of a binding's entry comes from, which is no template.

    Anybody may give a personal binding any name, so neither its name nor a ``scope`` opens anything there: its owner
    does, who alone may write it.
    """
    if entry.secret_key_ref is not None:
        return entry.secret_key_ref
    if entry.value is not None:
        return _in_store(entry.value, leased=False)
    if entry.lease is not None:
        return _in_store(entry.lease, leased=True)
    context: sealing.Context
    if binding.spec.owner is not None:
        context = sealing.PersonalEntry(namespace, binding.spec.owner.username, entry.name)
    elif entry.scope == NAMESPACE:
        context = sealing.NamespaceEntry(namespace, entry.name)
    else:
        context = sealing.BindingEntry(namespace, binding.metadata.name, entry.name)
    return SealedValue(entry.sealed or "", context)


def _in_store(selector: StoreFieldSelector, *, leased: bool) -> StoreValue:
    return StoreValue(selector.store, selector.role or "", selector.path, selector.field or "", leased)


def lease_refusal(binding: SecretBinding, entry: BindingEntry, where: str) -> Refusal | None:
    """Why something that is not a run is not served an entry; None if it is. Its lease could not be put on record."""
    if entry.lease is None:
        return None
    return Refusal(
        Reason.LEASES_UNAVAILABLE,
        where,
        f"entry {entry.name!r} of SecretBinding {binding.metadata.name} is a lease, and only a WorkflowRun has a status"
        " that says what to revoke; use it in a WorkflowRun, or use value for a path that gives no lease",
        permanent=False,
    )


def reference_to(
    namespace: str,
    binding: SecretBinding,
    entry: BindingEntry,
    field: str,
    *,
    variable: str = "",
    file: str = "",
    sealed: bool = False,
    leases: bool = True,
) -> SecretReference | Refusal:
    """The reference to an entry of a binding, or what is wrong with its template.

    :param field: path of what asks for it, for messages.
    :param leases: False: what asks for it cannot have a lease.
    """
    name = binding.metadata.name
    template = template_of(binding, entry, field) if entry.template is not None else None
    if isinstance(template, Refusal):
        return template
    read = [entry] if template is None else [binding.spec.by_name[part] for part in template.names]
    for item in read:
        refusal = None if leases else lease_refusal(binding, item, field)
        if refusal is not None:
            return refusal
    parts = [
        SecretReference(
            *(variable, file) if template is None else ("", ""),
            source_of(namespace, binding, item),
            name,
            item.name,
            field,
            sealed and template is None,
        )
        for item in read
    ]
    if template is None:
        return parts[0]
    return SecretReference(
        variable, file, TemplateValue(template, tuple(parts)), name, entry.name, field, sealed
    )


def task_requirements(
    run: WorkflowRun, index: int, bindings: Bindings
) -> TaskRequirements | tuple[Refusal, ...]:
    """Resolve task ``index`` of ``run``, or say everything that is in the way.

    Permanent refusals come first: while there is one, waiting for the others is of no use.
    """
    task, path = run.spec.tasks[index], f"spec.tasks[{index}]"
    refusals = [*graph_refusals(run, index), *shape_refusals(task, path)]
    if any(refusal.reason is Reason.TEMPLATE_REFUSED for refusal in refusals):
        return tuple(refusals)  # the template cannot be looked at any further
    refusals += _variable_refusals(task, path)
    variables = [variable_of(item) for item in task.secrets]
    refusals += template_refusals(task, path, run.spec.service_account_name, variables)
    refusals += binding_refusals(run, task, bindings)
    references: list[SecretReference] = []
    entries = _Entries(run, bindings)
    for position, item in enumerate(task.secrets):
        found = _resolve(run, item, f"{path}.secrets[{position}]", entries)
        if isinstance(found, Refusal):
            refusals.append(found)
        else:
            references.append(found)
    used = [bindings.found[name] for name in sorted({item.binding for item in references} - {""})]
    lifetime = min((binding.spec.max_lifetime_seconds for binding in used), default=None)
    deadline = task.active_deadline_seconds
    if lifetime is None and references:  # the requester's own values, for as long as the requester says
        lifetime = deadline if deadline is not None else INPUT_LIFETIME
    if deadline is not None and lifetime is not None and deadline > lifetime:
        refusals.append(
            Refusal(
                Reason.DEADLINE_TOO_LONG,
                f"{path}.activeDeadlineSeconds",
                f"{deadline} is more than the {lifetime} s that the bindings allow (maxLifetimeSeconds);"
                " lower it, or raise maxLifetimeSeconds",
                permanent=False,
            )
        )
    early = task.release_policy == ON_START or any(
        binding.spec.release_policy == ON_START for binding in used
    )
    if early and references:
        refusals += restart_refusals(task, path)
    sealed = bool(references) and (
        task.delivery == SEALED or any(binding.spec.delivery == SEALED for binding in used)
    )
    if sealed:
        references = [replace(item, sealed=True) for item in references]
        refusals += sealed_refusals(task, path)
    if refusals:
        return tuple(sorted(refusals, key=lambda refusal: not refusal.permanent))
    return TaskRequirements(
        tuple(references),
        lifetime,
        deadline if deadline is not None else lifetime,
        ON_START if early else ON_COMPLETION,
        SEALED if sealed else SECRET,
    )


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
                f"secret {item.name!r} has the file name {item.file}, and so does {files[item.file]}; give one of them"
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
                f"{what} sets the variable {variable}, and so does {seen[variable]}; give one of them another"
                " name with env",
                permanent=True,
            )
        seen.setdefault(variable, f"{what} at {where}")
    carrying = task.secret_containers
    for container in containers(task.template):
        if container["name"] not in carrying:
            continue
        for item in container.get("env") or []:
            if item["name"] in seen:
                yield Refusal(
                    Reason.NAME_COLLISION,
                    f"{path}.template",
                    f"container {container.get('name')!r} sets the variable {item.get('name')} itself, and so does"
                    f" {seen[str(item.get('name'))]}; remove one of them",
                    permanent=True,
                )


class _Entries:
    """What the bindings of a run have: looked for once for each of up to 4,096 secrets."""

    def __init__(self, run: WorkflowRun, bindings: Bindings) -> None:
        self.names = list(bindings_of(run, bindings))
        self._found = [bindings.found[name] for name in self.names if name in bindings.found]

    def called(self, name: str) -> list[tuple[SecretBinding, BindingEntry]]:
        """The entries of this name, one of each binding that has it."""
        entries = ((binding, binding.entry(name)) for binding in self._found)
        return [(binding, entry) for binding, entry in entries if entry is not None]

    @cached_property
    def offered(self) -> str:
        """Their names in words."""
        return listed(sorted(name for binding in self._found for name in binding.spec.by_name)) or "none"


def _resolve(run: WorkflowRun, item: TaskSecret, where: str, entries: _Entries) -> SecretReference | Refusal:
    if item.input is not None:
        source = _input_source(run, item.input, f"{where}.input")
        if isinstance(source, Refusal):
            return source
        return SecretReference(variable_of(item), item.file or "", source, "", item.input, f"{where}.input")
    found = _look_up(run, item.secret or "", f"{where}.secret", entries)
    if isinstance(found, Refusal):
        return found
    return reference_to(
        run.metadata.namespace, *found, f"{where}.secret", variable=variable_of(item), file=item.file or ""
    )


def _input_source(run: WorkflowRun, field: str, where: str) -> SealedValue | Refusal:
    """The value that the requester brought along, which opens for this requester only."""
    if field not in run.spec.sealed_input:
        there = listed(sorted(run.spec.sealed_input)) or "nothing"
        return Refusal(
            Reason.INPUT_NOT_FOUND,
            where,
            f"the run's sealedInput has no {field!r}; it has: {there}",
            permanent=True,
        )
    requester = requester_of(run)
    if not requester:
        return Refusal(
            Reason.REQUESTER_UNKNOWN,
            where,
            "a value of sealedInput opens only for the user who created the run, and the run does not record"
            " that user (spec.requester); create the run again",
            permanent=True,
        )
    return SealedValue(
        run.spec.sealed_input[field], sealing.RunInput(run.metadata.namespace, requester, field)
    )


def _look_up(
    run: WorkflowRun, secret: str, where: str, entries: _Entries
) -> tuple[SecretBinding, BindingEntry] | Refusal:
    if not run.spec.bindings:
        return Refusal(
            Reason.SECRET_NOT_FOUND,
            where,
            f"the run names no SecretBinding, so there is no secret {secret!r}; list the binding that has it"
            " under spec.bindings",
            permanent=True,
        )
    hits = entries.called(secret)
    if len(hits) == 1:
        return hits[0]
    if hits:
        return Refusal(
            Reason.NAME_COLLISION,
            where,
            f"{secret!r} is in several of the run's bindings"
            f" ({', '.join(binding.metadata.name for binding, _ in hits)}); rename it in all but one, or name only"
            " one of them under spec.bindings",
            permanent=False,
        )
    return Refusal(
        Reason.SECRET_NOT_FOUND,
        where,
        f"no secret {secret!r} in {', '.join(entries.names) or 'any binding that was found'}; they have:"
        f" {entries.offered}",
        permanent=False,
    )
