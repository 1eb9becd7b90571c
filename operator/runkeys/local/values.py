"""Values of a local run: those that tasks ask for, and those that the user gave."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runkeys._text.templates import NotTextError, TooLongError
from runkeys.api import AccessRule, BindingEntry, SecretBinding, WorkflowRun, offline
from runkeys.api.binding import Owner, SecretBindingSpec
from runkeys.api.common import LabelSelector, ObjectMeta
from runkeys.client.submission import LOCAL, PERSONAL, refusals
from runkeys.names import secret_variable
from runkeys.planning.bindings import Bindings, requester_of
from runkeys.planning.requirements import SecretReference, TaskRequirements, TemplateValue, task_requirements
from runkeys.problems import Invalid, NotFound

Values = Mapping[str, str]

MOST_BYTES = 512 * 1024
"""Maximum length of a template's value, as in the cluster."""


@dataclass
class Material:
    """Values of a run.

    :ivar by_field: the value of each secret, by the field of the task that asks for it.
    :ivar parts: values that are in others only, to be masked as well.
    """

    by_field: dict[str, bytes] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)


def known_bindings(run: WorkflowRun, documents: Sequence[Mapping[str, Any]]) -> dict[str, SecretBinding]:
    """Those of the manifests that the run names, for :func:`assumed_bindings`: as they are, but open to this run.

    :raises Invalid: the API server would refuse one.
    """
    named = {item.name if item.name is not None else PERSONAL for item in run.spec.bindings}
    found: dict[str, SecretBinding] = {}
    for number, raw in enumerate(documents):
        if raw in documents[:number]:
            continue  # a file that was named twice
        metadata, spec = raw.get("metadata") or {}, raw.get("spec") or {}
        if not isinstance(metadata, dict) or not isinstance(spec, dict):
            continue
        name = PERSONAL if spec.get("owner") else metadata.get("name")
        if name not in named or metadata.get("namespace", run.metadata.namespace) != run.metadata.namespace:
            continue
        if name in found:
            raise Invalid(f"SecretBinding {name} is there twice; leave one of them out")
        problems = offline.refusals(SecretBinding, raw)
        if problems:
            lines = "\n".join(f"  {item}" for item in problems)
            raise Invalid(f"the API server would refuse SecretBinding {name}:\n{lines}")
        found[name] = _open(run, name, SecretBinding.parse(dict(raw)))
    return found


def _open(run: WorkflowRun, name: str, binding: SecretBinding) -> SecretBinding:
    """Whom a binding admits, for how long and how is for the cluster to say."""
    secrets = [
        entry if entry.template is not None else BindingEntry(name=entry.name, sealed=LOCAL)
        for entry in binding.spec.secrets
    ]
    owner = Owner(username=requester_of(run)) if name == PERSONAL else None
    spec = SecretBindingSpec(
        owner=owner,
        secrets=secrets,
        access=[AccessRule(run_selector=LabelSelector())],
        max_lifetime_seconds=604800,
    )
    return SecretBinding(metadata=ObjectMeta(name=name, namespace=run.metadata.namespace), spec=spec)


def resolve(run: WorkflowRun, bindings: Bindings, values: Values, own: Values) -> Material:
    """The values of all secrets of a run."""
    found = Material()
    missing: list[str] = []
    problems = refusals(run, bindings)
    if problems:
        raise Invalid("the run cannot work as it is written:\n" + "\n".join(f"  {item}" for item in problems))
    for index, task in enumerate(run.spec.tasks):
        requirements = task_requirements(run, index, bindings)
        for reference in requirements.references if isinstance(requirements, TaskRequirements) else ():
            value = _value_of(reference, values, own)
            if value is None and isinstance(reference.source, TemplateValue):
                value = _of_template(task.name, reference, reference.source, values, found.parts, missing)
            elif value is None:
                missing.append(f"  task {task.name}, {reference.what}: {_names_of(reference)[0]}=…")
            if value is None:
                continue
            if reference.variable and b"\0" in value:
                raise Invalid(
                    f"{reference.what} holds a NUL byte, which no variable can; deliver it as a file"
                )
            found.by_field[reference.field] = value
    if missing:
        raise NotFound(
            "these secrets have no value; add them to the file of --env-file:\n"
            + "\n".join(dict.fromkeys(missing))
        )
    return found


def _of_template(
    task: str,
    reference: SecretReference,
    source: TemplateValue,
    values: Values,
    seen: list[bytes],
    missing: list[str],
) -> bytes | None:
    """The value of a template; None if parts are missing, which are noted. Its parts are added to ``seen``."""
    parts: dict[str, bytes] = {}
    for part in source.parts:
        value = _value_of(part, values, {})
        if value is None:
            missing.append(
                f"  task {task}, {part.what}, for the template of {reference.entry!r}: {_names_of(part)[0]}=…"
            )
        else:
            parts[part.entry] = value
    seen += parts.values()
    if len(parts) < len(source.parts):
        return None
    try:
        return source.template.render(parts, MOST_BYTES)
    except TooLongError:
        problem = f"the result of its template has more than {MOST_BYTES} bytes; shorten it, or split it"
    except NotTextError as error:
        name = error.name
        problem = f"the value of {name!r} is not text, and {{{{ {name} | json }}}} takes UTF-8; use | base64"
    raise Invalid(f"{reference.what}: {problem}")


def _value_of(reference: SecretReference, values: Values, own: Values) -> bytes | None:
    if not reference.binding:
        return os.fsencode(own[reference.entry])
    name = next((name for name in _names_of(reference) if name in values), None)
    return None if name is None else os.fsencode(values[name])


def _names_of(reference: SecretReference) -> Sequence[str]:
    names = [reference.variable, secret_variable(reference.entry), reference.entry]
    return [name for name in dict.fromkeys(names) if name]
