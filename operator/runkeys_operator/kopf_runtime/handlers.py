"""What the watch shows, handed on as it comes. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from runkeys_operator.kopf_runtime.kopf_module import kopf
from runkeys_operator.kube import BINDINGS

Event = Mapping[str, Any]


class EventSink(Protocol):
    """Takes watch events: `{"type": "ADDED" | "MODIFIED" | "DELETED" | None, "object": {…}}`.

    The type is None for what a LIST found: at the start, and again whenever the watch lost its place.
    Called in the event loop; must not block.
    """

    def saw_run(self, event: Event) -> None:
        """Of a WorkflowRun: its metadata."""

    def saw_binding(self, event: Event) -> None:
        """Of a SecretBinding: its metadata."""

    def saw_reveal(self, event: Event) -> None:
        """Of a SecretReveal: its metadata."""

    def saw_request(self, event: Event) -> None:
        """Of a PodCertificateRequest of our signer."""

    def saw_pod(self, event: Event) -> None:
        """Of a pod that has a run's label and a node."""

    def saw_job(self, event: Event) -> None:
        """Of a Job that has a run's label."""


def register(registry: kopf.OperatorRegistry, sink: EventSink) -> None:
    """Have `sink` see every event of bindings; the other kinds have watches of their own (watch.py)."""
    on_event = kopf.on.event(
        group=BINDINGS.group,
        version=BINDINGS.version,
        plural=BINDINGS.plural,
        id=BINDINGS.plural,
        registry=registry,
    )
    on_event(_handing_to(sink.saw_binding))


def _handing_to(saw: Callable[[Event], None]) -> Callable[..., Coroutine[Any, Any, None]]:
    async def hand_over(event: Event, **_: Any) -> None:
        saw(event)

    return hand_over
