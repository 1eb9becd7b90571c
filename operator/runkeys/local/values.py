"""Values of a local run: those that tasks ask for, and those that the user gave."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from runkeys.api import WorkflowRun
from runkeys.client.submission import refusals
from runkeys.names import secret_variable
from runkeys.planning.bindings import Bindings
from runkeys.planning.requirements import SecretReference, TaskRequirements, task_requirements
from runkeys.problems import Invalid, NotFound

Values = Mapping[str, str]


def resolve(run: WorkflowRun, bindings: Bindings, values: Values, own: Values) -> dict[str, bytes]:
    """The value of each secret, by the field of the task that asks for it."""
    found: dict[str, bytes] = {}
    missing: list[str] = []
    problems = refusals(run, bindings)
    if problems:
        raise Invalid("the run cannot work as it is written:\n" + "\n".join(f"  {item}" for item in problems))
    for index, task in enumerate(run.spec.tasks):
        requirements = task_requirements(run, index, bindings)
        for reference in requirements.references if isinstance(requirements, TaskRequirements) else ():
            value = _value_of(reference, values, own)
            if value is None:
                missing.append(f"  task {task.name}, {reference.what}: {_names_of(reference)[0]}=…")
            elif reference.variable and b"\0" in value:
                raise Invalid(
                    f"{reference.what} holds a NUL byte, which no variable can; deliver it as a file"
                )
            else:
                found[reference.field] = value
    if missing:
        raise NotFound(
            "these secrets have no value; add them to the file of --env-file:\n" + "\n".join(missing)
        )
    return found


def _value_of(reference: SecretReference, values: Values, own: Values) -> bytes | None:
    if not reference.binding:
        return os.fsencode(own[reference.entry])
    name = next((name for name in _names_of(reference) if name in values), None)
    return None if name is None else os.fsencode(values[name])


def _names_of(reference: SecretReference) -> Sequence[str]:
    names = [reference.variable, secret_variable(reference.entry), reference.entry]
    return [name for name in dict.fromkeys(names) if name]
