"""What all controllers have in common: one for each kind, each with its own state."""

from __future__ import annotations

from typing import Protocol

from runkeys_operator.controllers.key import Key
from runkeys_operator.kube import Json


class Controller(Protocol):
    """Brings the objects of one kind forward. It reads no other controller's state; what it needs it is given."""

    def on_event(self, event: Json) -> None:
        """An object was added, changed or deleted, or is there still: add its key to the queue if that matters.

        ``{"type": "ADDED" | "MODIFIED" | "DELETED" | None, "object": {…}}``; None for what a list found. Called in the
        event loop; must not block.
        """

    async def reconcile(self, key: Key) -> float | None:
        """Bring one object as far as it goes now; seconds until the next look, None if only an event changes it.

        :raises Conflict: it changed meanwhile. It is read anew at once.
        :raises ApiError: it is tried again, with back-off.
        """
