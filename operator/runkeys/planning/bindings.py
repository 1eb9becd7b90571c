"""The bindings that a run names: which exist, whom they admit, what is wrong with them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runkeys.api import SecretBinding, Task, WorkflowRun
from runkeys.planning.access import Subject, denial
from runkeys.planning.pod_template import images
from runkeys.planning.refusal import Reason, Refusal


@dataclass(frozen=True)
class Bindings:
    """The bindings that a run names, as just read.

    :ivar found: by name. A binding that is named but neither here nor in ``unreadable`` does not exist.
    :ivar unreadable: name -> what was wrong, for bindings stored by another version of the schema.
    :ivar personal: names of those that belong to the requester, if the run asks for its personal one.
    """

    found: Mapping[str, SecretBinding]
    unreadable: Mapping[str, str]
    personal: tuple[str, ...] = ()


def bindings_of(run: WorkflowRun, bindings: Bindings) -> dict[str, str]:
    """The bindings that a run names: by name the path of the field that names it. A personal one once it is found."""
    names: dict[str, str] = {}
    for index, reference in enumerate(run.spec.bindings):
        if reference.name is not None:
            names.setdefault(reference.name, f"spec.bindings[{index}].name")
        elif len(bindings.personal) == 1:
            names.setdefault(bindings.personal[0], f"spec.bindings[{index}].personal")
    return names


def requester_of(run: WorkflowRun) -> str:
    """Username of the requester, who created the run; empty if not on record."""
    return run.spec.requester.username if run.spec.requester is not None else ""


def access_refusal(
    run: WorkflowRun, names: Iterator[str] | list[str], subject: Subject, bindings: Bindings
) -> Refusal | None:
    """Why one of the bindings called ``names`` does not admit ``subject``; None if all do."""
    for name in names:
        binding, where = bindings.found.get(name), bindings_of(run, bindings).get(name, "spec.bindings")
        if binding is None:
            return _binding_missing(run, name, where, bindings)
        reason = denial(binding, subject)
        if reason is not None:
            return Refusal(
                Reason.ACCESS_DENIED,
                where,
                f"{reason}; its owner can admit the run in spec.access",
                permanent=False,
            )
    return None


def binding_refusals(run: WorkflowRun, task: Task, bindings: Bindings) -> Iterator[Refusal]:
    """What is wrong with the bindings of a run, or keeps a task from using them."""
    names = bindings_of(run, bindings)
    for name, where in names.items():
        if name not in bindings.found:
            yield _binding_missing(run, name, where, bindings)
    yield from _personal_refusals(run, bindings)
    wanted = {item.secret for item in task.secrets if item.secret is not None}
    used = [
        name
        for name in names
        if name in bindings.found and any(bindings.found[name].entry(secret) for secret in wanted)
    ]
    subject = Subject(
        run.metadata.labels, run.spec.service_account_name, images(task.template), requester_of(run)
    )
    refusal = access_refusal(run, used, subject, bindings)
    if refusal is not None:
        yield refusal


def _personal_refusals(run: WorkflowRun, bindings: Bindings) -> Iterator[Refusal]:
    position = next((i for i, reference in enumerate(run.spec.bindings) if reference.personal), None)
    if position is None or len(bindings.personal) == 1:
        return
    where, requester = f"spec.bindings[{position}].personal", requester_of(run)
    namespace = run.metadata.namespace
    if not requester:
        yield Refusal(
            Reason.REQUESTER_UNKNOWN,
            where,
            "the run does not record who created it (spec.requester), so its personal binding is unknown;"
            " create the run again",
            permanent=True,
        )
    elif not bindings.personal:
        yield Refusal(
            Reason.BINDING_NOT_FOUND,
            where,
            f"{requester} has no personal SecretBinding in namespace {namespace}; `runkeys secret set` creates"
            " it, and the run then continues",
            permanent=False,
        )
    else:
        yield Refusal(
            Reason.NAME_COLLISION,
            where,
            f"{requester} has several personal SecretBindings in namespace {namespace}"
            f" ({', '.join(bindings.personal)}); delete all but one",
            permanent=False,
        )


def _binding_missing(run: WorkflowRun, name: str, where: str, bindings: Bindings) -> Refusal:
    if name in bindings.unreadable:
        return Refusal(
            Reason.BINDING_INVALID,
            where,
            f"SecretBinding {name} cannot be read: {bindings.unreadable[name]}",
            permanent=False,
        )
    return Refusal(
        Reason.BINDING_NOT_FOUND,
        where,
        f"there is no SecretBinding {name} in namespace {run.metadata.namespace}; create it, and the run then"
        " continues",
        permanent=False,
    )
