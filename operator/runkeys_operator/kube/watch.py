"""Watches of kinds with thousands of objects: one task for each kind and namespace, none for each object.

kopf watches Runkeys' kinds. It gives each object its own task, queue and memory, which is too much for Jobs and
pods with their many events (docs/decisions/0008).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runkeys_operator.errors import ApiError, Expired, Unauthorized
from runkeys_operator.kube import Json, Kube, Resource
from runkeys_operator.process.logs import describe, get_logger

log = get_logger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 3.0
_REFUSED_SECONDS = 30.0


Sink = Callable[[Json], None]
"""Takes what a watch shows: ``{"type": "ADDED" | "MODIFIED" | "DELETED" | None, "object": {…}}``.

The type is None for a listed object. Called in the event loop; must not block. Its exceptions are
logged, and the object is passed over.
"""


class Watch:
    """Lists and then watches the objects of one kind, for as long as it runs."""

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        namespace: str | None,
        sink: Sink,
        *,
        labels: str = "",
        fields: str = "",
        opened: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`opened` is given the path of the watch when it has begun."""
        self._kube = kube
        self._resource = resource
        self._namespace = namespace
        self._sink = sink
        self._labels, self._fields = labels, fields
        self._opened = lambda: opened(resource.path(namespace))

    async def run(self) -> None:
        """Run until cancelled. Failures are retried, with a list if the position in the watch is lost.

        Raises Unauthorized when the credentials are refused for half a minute.
        """
        pause, version = _FIRST_PAUSE, ""
        clock = asyncio.get_running_loop().time
        accepted = clock()
        while True:
            try:
                if not version:
                    version = await self._list()
                async for event in self._kube.watch(
                    self._resource,
                    self._namespace,
                    since=version,
                    label_selector=self._labels,
                    field_selector=self._fields,
                    opened=self._opened,
                ):
                    pause, accepted = _FIRST_PAUSE, clock()
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        hand_on(self._resource, self._sink, event)
            except Expired:
                version = ""
            except ApiError as error:
                if not isinstance(error, Unauthorized):
                    accepted = clock()
                elif clock() - accepted > _REFUSED_SECONDS:
                    raise
                log.warning("%s; retrying in %.1f s", error, pause)
                await asyncio.sleep(max(pause, error.retry_after or 0.0))
                pause = min(_LONGEST_PAUSE, 2 * pause)

    async def _list(self) -> str:
        version = ""
        async for page in self._kube.pages(
            self._resource, self._namespace, label_selector=self._labels, field_selector=self._fields
        ):
            for item in page.items:
                hand_on(self._resource, self._sink, {"type": None, "object": item})
            version = page.version
        return version


def hand_on(resource: Resource, sink: Sink, event: Json) -> None:
    """Give an event to its sink. One unreadable object must not hide the others."""
    try:
        sink(event)
    except Exception as error:  # noqa: BLE001 -- whatever is wrong, it is wrong with this object
        log.error("skipped one of %s: %s", resource, describe(error))  # noqa: TRY400
