"""What all controllers have in common: one for each kind, each with its own state."""

from __future__ import annotations

from typing import Protocol

from runkeys_operator.controllers.key import Key
from runkeys_operator.kube import Json


class Controller(Protocol):
    """Reconciles the objects of one kind. It reads no other controller's state; everything it needs is passed in."""

    def on_event(self, event: Json) -> None:
        """An object was added, changed, deleted or listed: add its key to the queue if that matters.

        ``{"type": "ADDED" | "MODIFIED" | "DELETED" | None, "object": {…}}``; None for a listed object. Called in the
        event loop; must not block.
        """

    async def reconcile(self, key: Key) -> float | None:
        """Reconcile one object; return seconds until the next look, None if only an event changes it.

        :raises Conflict: it changed meanwhile. It is read again at once.
        :raises ApiError: it is retried, with back-off.
        """
