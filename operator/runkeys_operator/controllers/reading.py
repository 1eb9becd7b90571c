"""Objects that others wrote: read them into models, and report in their status what this version cannot read."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from runkeys.api import SecretBinding, SecretStore, WorkflowRun
from runkeys.api.common import describe_invalid
from runkeys.api.conditions import next_condition
from runkeys.planning.refusal import Reason
from runkeys_operator.controllers.key import Key
from runkeys_operator.kube import BINDINGS, Json, Kube, Resource
from runkeys_operator.kube.selectors import OWNER, escaped

Model = TypeVar("Model", WorkflowRun, SecretBinding, SecretStore)


class UnreadableError(Exception):
    """A stored object that this version cannot read, e.g. written under a newer schema. ``where`` names the field."""

    def __init__(self, raw: Json, where: str) -> None:
        super().__init__(f"cannot read it: {where}")
        self.where = where
        self.generation = raw["metadata"].get("generation", 0)
        self.resource_version = raw["metadata"]["resourceVersion"]
        self.status = raw.get("status")


def parse(model: type[Model], raw: Json) -> Model:
    """Read an object that others wrote.

    :raises UnreadableError: if anything is wrong with it; the error repeats nothing else of its content.
    """
    try:
        return model.parse(raw)
    except ValidationError as error:
        where = describe_invalid(error)
    except Exception as error:  # noqa: BLE001 -- nothing that somebody wrote may stop more than its own pass
        where = type(error).__name__
    raise UnreadableError(raw, where)


async def report_unreadable(
    kube: Kube, resource: Resource, key: Key, error: UnreadableError, now: datetime
) -> None:
    """Report in the status of an object, once, that it cannot be read."""
    message = f"this version of Runkeys cannot read it: {error.where}"
    condition = next_condition(
        (), "Stalled", True, Reason.INVALID.value, message, generation=error.generation, now=now
    )
    status = {"observedGeneration": error.generation, "conditions": [condition.to_wire()]}
    if _without_times(error.status) == _without_times(status):
        return
    await kube.patch_status(
        *(resource, key.namespace or None, key.name, status),
        resource_version=error.resource_version,
        metadata_only=True,
    )


async def personal_bindings(kube: Kube, namespace: str, owner: str) -> list[Json]:
    """The personal binding of a user; of several, which is a mistake, two."""
    selector = f"{OWNER}={escaped(owner)}"
    async for page in kube.pages(BINDINGS, namespace, field_selector=selector, size=2):
        return page.items
    return []


def _without_times(status: Any) -> Any:
    """A status that was read, or is to be written, as far as it has to be written anew."""
    conditions = status.get("conditions") if isinstance(status, dict) else None
    if not isinstance(conditions, list) or not all(isinstance(item, dict) for item in conditions):
        return None
    told = [{**item, "lastTransitionTime": None} for item in conditions]
    return status.get("observedGeneration"), told
