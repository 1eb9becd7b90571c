"""Says in a SecretBinding's status whether its values can be read, so that its author need not start a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from runkeys.api import Condition, SecretBinding
from runkeys.api.binding import EntryStatus, SecretBindingStatus
from runkeys.planning.refusal import Reason
from runkeys.planning.requirements import SecretReference, source_of
from runkeys_operator.controllers.key import BindingKey, RunKey
from runkeys_operator.controllers.runs.observer import UnreadableError, parse
from runkeys_operator.errors import NotFound
from runkeys_operator.kube import BINDINGS, Kube, Resource
from runkeys_operator.values.delivery import key_id
from runkeys_operator.values.sources import Sources

log = logging.getLogger(__name__)

_ASK_AGAIN_SECONDS = 60.0
"""How often a source that cannot be read is looked for again. One that can is not read for its own sake."""


class BindingReconciler:
    """Brings the status of one binding up to date."""

    def __init__(
        self,
        kube: Kube,
        sources: Sources,
        clock: Callable[[], datetime],
        read: Callable[[SecretBinding], None],
    ) -> None:
        """``read`` is told of each binding that was read."""
        self._kube = kube
        self._sources = sources
        self._now = clock
        self._read = read

    async def reconcile(self, key: BindingKey) -> float | None:
        """Check every entry and write what changed; seconds until the next look, None when all is well."""
        try:
            raw = await self._kube.get(BINDINGS, key.namespace, key.name)
        except NotFound:
            return None
        try:
            binding = parse(SecretBinding, raw)
        except UnreadableError as error:
            log.warning("SecretBinding %s: %s", key, error)
            await report_unreadable(self._kube, BINDINGS, key, error, self._now())
            return None
        self._read(binding)
        status = self._status(
            binding, [await self._check(binding, index) for index in range(len(binding.spec.secrets))]
        )
        if status.to_wire() != binding.status.to_wire():
            await self._kube.patch_status(
                BINDINGS,
                key.namespace,
                key.name,
                status.to_wire(),
                resource_version=binding.metadata.resource_version,
            )
        return None if all(entry.ready for entry in status.entries) else _ASK_AGAIN_SECONDS

    async def _check(self, binding: SecretBinding, index: int) -> EntryStatus:
        entry = binding.spec.secrets[index]
        reference = SecretReference(
            variable="",
            file=entry.name,  # whether it is fit for a variable is for a task to say
            source=source_of(binding.metadata.namespace, binding, entry),
            binding=binding.metadata.name,
            entry=entry.name,
            field=f"spec.secrets[{index}].{'sealed' if entry.secret_key_ref is None else 'secretKeyRef'}",
        )
        refusal = await self._sources.check(binding.metadata.namespace, [reference])
        return EntryStatus(
            name=entry.name,
            ready=refusal is None,
            key_id=key_id(entry.sealed),
            reason=refusal.reason.value if refusal is not None else "",
            message=refusal.message if refusal is not None else "",
        )

    def _status(self, binding: SecretBinding, entries: list[EntryStatus]) -> SecretBindingStatus:
        bad = [entry for entry in entries if not entry.ready]
        nobody = not binding.spec.access and binding.spec.owner is None
        if bad:
            reason, message = bad[0].reason, f"entry {bad[0].name!r}: {bad[0].message}"
        elif nobody:
            reason, message = (
                Reason.ACCESS_DENIED.value,
                "spec.access is empty, so that no run may use this binding",
            )
        else:
            reason, message = "Readable", ""
        return SecretBindingStatus(
            observed_generation=binding.metadata.generation,
            secrets=f"{len(entries) - len(bad)}/{len(entries)}",
            entries=entries,
            conditions=[
                self._condition(binding, "Ready", not bad and not nobody, reason, message),
                self._condition(binding, "Stalled", bool(bad or nobody), reason, message),
            ],
        )

    def _condition(
        self, binding: SecretBinding, kind: str, holds: bool, reason: str, message: str
    ) -> Condition:
        status = "True" if holds else "False"
        old = next((item for item in binding.status.conditions if item.type == kind), None)
        since = old.last_transition_time if old and old.status == status else self._now()
        return Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            last_transition_time=since.replace(microsecond=0),
            observed_generation=binding.metadata.generation,
        )


async def report_unreadable(
    kube: Kube, resource: Resource, key: RunKey | BindingKey, error: UnreadableError, now: datetime
) -> None:
    """Say in the status of an object that it cannot be read, once."""
    condition = Condition(
        type="Stalled",
        status="True",
        reason=Reason.INVALID.value,
        message=f"this version of Runkeys cannot read it: {error.where}",
        last_transition_time=now,
        observed_generation=error.generation,
    )
    status = {"observedGeneration": error.generation, "conditions": [condition.to_wire()]}
    if _without_times(error.status) == _without_times(status):
        return
    await kube.patch_status(
        *(resource, key.namespace, key.name, status),
        resource_version=error.resource_version,
        metadata_only=True,
    )


def _without_times(status: Any) -> Any:
    """A status that was read, or is to be written, as far as it has to be written anew."""
    conditions = status.get("conditions") if isinstance(status, dict) else None
    if not isinstance(conditions, list) or not all(isinstance(item, dict) for item in conditions):
        return None
    told = [{**item, "lastTransitionTime": None} for item in conditions]
    return status.get("observedGeneration"), told
