"""kopf's handlers of Runkeys' kinds. They decide nothing: they pass watch events on as they come."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from runkeys_operator.kopf_runtime.kopf_module import kopf
from runkeys_operator.kube import BINDINGS, REVEALS, RUNS, Json, Resource
from runkeys_operator.kube.watch import Sink, hand_on

HANDLED = (RUNS, BINDINGS, REVEALS)
"""The kinds that kopf watches. Other kinds, with thousands of objects, have the lean watch (kube/watch.py)."""


def register(registry: kopf.OperatorRegistry, sinks: Mapping[Resource, Sink]) -> None:
    """Give every event of a kind that kopf watches to its sink. An event holds the object's metadata only."""
    for resource in HANDLED:
        on_event = kopf.on.event(
            group=resource.group,
            version=resource.version,
            plural=resource.plural,
            id=resource.plural,
            registry=registry,
        )
        on_event(_handler(resource, sinks[resource]))


def _handler(resource: Resource, sink: Sink) -> Callable[..., Coroutine[Any, Any, None]]:
    async def handle(event: Json, **_: Any) -> None:
        hand_on(resource, sink, event)

    return handle
