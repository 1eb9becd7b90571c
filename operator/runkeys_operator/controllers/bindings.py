"""Reports in a SecretBinding's status whether its values can be read, so that its author need not start a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from runkeys.api import Condition, SecretBinding
from runkeys.api.binding import EntryStatus, SecretBindingStatus
from runkeys.api.conditions import next_condition
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import reference_to
from runkeys_operator.controllers.key import Key, Kind
from runkeys_operator.controllers.reading import UnreadableError, parse, report_unreadable
from runkeys_operator.controllers.workqueue import ReconcileQueue, Urgency
from runkeys_operator.errors import NotFound
from runkeys_operator.kube import BINDINGS, Json, Kube
from runkeys_operator.values.delivery import key_id
from runkeys_operator.values.sources import Sources

log = logging.getLogger(__name__)

_ASK_AGAIN_SECONDS = 60.0
"""How often an unreadable source is retried. A readable one is not read again for its own sake."""


def of_owner(username: str) -> str:
    """Stands for the personal binding of a user where a name stands for others; no object has such a name."""
    return f"personal:{username}"


class BindingController:
    """Updates the status of one binding."""

    def __init__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        sources: Sources,
        clock: Callable[[], datetime],
        changed: Callable[[str, str], None],
    ) -> None:
        """``changed`` is given the namespace and the name of each binding that is another than before.

        Of a personal binding also :func:`of_owner`, once it is known whose it is: no watch tells.
        """
        self._kube = kube
        self._queue = queue
        self._sources = sources
        self._now = clock
        self._changed = changed
        self._generations: dict[Key, tuple[str, int]] = {}
        # Of the personal bindings that have been read since they changed.
        self._owners: dict[Key, str] = {}
        # Which bindings had a SecretStore among their sources when they were last looked at.
        self._of_store: dict[str, set[Key]] = {}

    def on_event(self, event: Json) -> None:
        """A SecretBinding was added, changed or deleted: its runs may be admitted now, or no longer."""
        metadata = event["object"]["metadata"]
        key = Key.of(Kind.BINDING, metadata)
        version = (metadata["uid"], metadata["generation"])
        if event.get("type") == "DELETED":
            self._generations.pop(key, None)
        elif self._generations.get(key) == version:
            return  # its status, which only the operator writes
        else:
            self._generations[key] = version
        self._queue.add(key, urgency=Urgency.EVENT)
        self._changed(key.namespace, key.name)
        if (owner := self._owners.pop(key, None)) is not None:
            self._changed(key.namespace, of_owner(owner))

    def store_changed(self, name: str) -> None:
        """A SecretStore is another than before: look again at the bindings that have values of it."""
        for key in self._of_store.get(name, set()):
            self._queue.add(key, urgency=Urgency.EVENT)
            self._changed(key.namespace, key.name)

    def _note_stores(self, key: Key, binding: SecretBinding) -> None:
        used = (entry.value or entry.lease for entry in binding.spec.secrets)
        names = {item.store for item in used if item is not None}
        for name in [name for name in self._of_store if name not in names]:
            self._of_store[name].discard(key)
        for name in names:
            self._of_store.setdefault(name, set()).add(key)

    def _note_owner(self, key: Key, binding: SecretBinding) -> None:
        owner = binding.spec.owner
        if owner is not None and key not in self._owners:
            self._owners[key] = owner.username
            self._changed(key.namespace, of_owner(owner.username))

    async def reconcile(self, key: Key) -> float | None:
        """Check every entry and write changes; return seconds until the next look, None if all entries can be read."""
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
        self._note_owner(key, binding)
        self._note_stores(key, binding)
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
        namespace, field = binding.metadata.namespace, f"spec.secrets[{index}].{entry.source}"
        # As a file: whether it is fit for a variable is for a task to say.
        reference = reference_to(namespace, binding, entry, field, file=entry.name)
        refusal = (
            reference if isinstance(reference, Refusal) else await self._sources.check(namespace, [reference])
        )
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
                "spec.access is empty, so no run may use this binding",
            )
        else:
            reason, message = "Readable", ""
        return SecretBindingStatus(
            observed_generation=binding.metadata.generation,
            secrets=f"{len(entries) - len(bad)}/{len(entries)}",
            entries=entries,
            last_used=binding.status.last_used,
            conditions=[
                self._condition(binding, "Ready", not bad and not nobody, reason, message),
                self._condition(binding, "Stalled", bool(bad or nobody), reason, message),
            ],
        )

    def _condition(
        self, binding: SecretBinding, kind: str, holds: bool, reason: str, message: str
    ) -> Condition:
        before, generation = binding.status.conditions, binding.metadata.generation
        now = self._now().replace(microsecond=0)
        return next_condition(before, kind, holds, reason, message, generation=generation, now=now)
