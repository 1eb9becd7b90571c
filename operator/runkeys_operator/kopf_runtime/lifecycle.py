"""Runs kopf from its start to its end. Outside this folder nothing knows kopf."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, cast

from runkeys_operator.kopf_runtime import handlers
from runkeys_operator.kopf_runtime.kopf_module import kopf
from runkeys_operator.kopf_runtime.session import Sessions
from runkeys_operator.kopf_runtime.settings import settings
from runkeys_operator.kube import Resource
from runkeys_operator.kube.credentials import Access
from runkeys_operator.kube.watch import Sink
from runkeys_operator.process.logs import get_logger

log = get_logger(__name__)

_ENDS_SECONDS = 3.0


class Kopf:
    """kopf, with one handler for each of Runkeys' kinds."""

    def __init__(
        self, load: Callable[[], Access], sinks: Mapping[Resource, Sink], watch_opened: Callable[[str], None]
    ) -> None:
        """``load`` reads the credentials; ``watch_opened`` is given the path of each watch that has begun."""
        self._sinks = sinks
        self._sessions = Sessions(load, watch_opened)
        self._stop = asyncio.Event()
        self._last_resort: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Make :meth:`run` return."""
        self._stop.set()

    async def run(
        self, namespaces: tuple[str, ...], started: Callable[[], None], ended: Callable[[], Awaitable[None]]
    ) -> None:
        """Watch until :meth:`stop`, SIGTERM or SIGINT.

        :param namespaces: to watch in; ``()``: all.
        :param started: called when kopf has logged in.
        :param ended: awaited when kopf watches nothing any more. The sessions are open until it returns.
        :raises Exception: what kopf raises if it cannot go on.
        """

        async def on_startup(**_: Any) -> None:
            started()

        before = asyncio.all_tasks()
        roots: set[asyncio.Task[None]] = set()

        async def on_cleanup(**_: Any) -> None:
            await ended()
            # kopf would wait 5 s for every other task to end, and some never do: those that it has lost itself, such
            # as a request for the kinds, and one for each connection that a client of the metrics keeps.
            for task in asyncio.all_tasks() - before - roots - {asyncio.current_task()}:
                task.cancel()
            # When one watch fails, kopf leaves the others running, and then waits for them forever.
            self._last_resort = self._last_resort or asyncio.get_running_loop().call_later(
                _ENDS_SECONDS, _end_process
            )

        registry = kopf.OperatorRegistry()
        handlers.register(registry, self._sinks)
        for when, handler in (
            (kopf.on.login, self._sessions.log_in),
            (kopf.on.startup, on_startup),
            (kopf.on.cleanup, on_cleanup),
        ):
            when(registry=registry, errors=kopf.ErrorsMode.PERMANENT)(handler)
        try:
            spawned = await kopf.spawn_tasks(
                registry=registry,
                settings=settings(),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=self._stop,
                # For kopf's peering, which is off. Without it kopf asks for the name of the process's user, and in an
                # image, or with a user that the cluster chose, there is none.
                identity=cast("Any", "runkeys"),
            )
            roots.update(cast("Collection[asyncio.Task[None]]", spawned))
            await kopf.run_tasks(spawned, ignored=before)
        finally:
            await on_cleanup()
            if self._last_resort is not None:
                self._last_resort.cancel()


def _end_process() -> None:
    log.critical("not everything stopped by itself; ending the process")
    os._exit(1)
