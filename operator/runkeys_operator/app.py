"""Puts the operator together and keeps it whole: it runs completely or ends.

kopf watches bindings, logs in and runs the life cycle. Beside it run the watches of
runs, reveals, Jobs and pods, the queue's workers and the sweep. If any of them ends, all of them end, and
the process with an error: whoever runs it starts it again, and nobody waits for half an
operator.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from runkeys.names import LABEL_RUN
from runkeys.planning.requirements import SealedOffer
from runkeys_operator.checks import preflight
from runkeys_operator.checks.policies import Guard
from runkeys_operator.controllers.key import Key
from runkeys_operator.controllers.workqueue import ReconcileQueue
from runkeys_operator.errors import ApiError, BackgroundError, LoginError, Unauthorized
from runkeys_operator.health import Health
from runkeys_operator.kopf_runtime import handlers
from runkeys_operator.kopf_runtime.kopf_module import kopf, stop_asking_for_kinds
from runkeys_operator.kube import credentials
from runkeys_operator.kube.login import Login
from runkeys_operator.kube.selectors import BOUND, OF_SIGNER, OPEN
from runkeys_operator.kube.watch import Watch
from runkeys_operator.leader_election import Lease, LeaseName
from runkeys_operator.process import metrics
from runkeys_operator.process.logs import describe, get_logger
from runkeys_operator.values.keys import Keys

from .kube import BINDINGS, JOBS, PODS, REQUESTS, REVEALS, RUNS, Kube

log = get_logger(__name__)

_DRAIN_SECONDS = 5.0
_KOPF_ENDS_SECONDS = 3.0
_SWEEP_AGAIN_SECONDS = 5.0
_REFUSED_SECONDS = 60.0  # a watch that is open may go on for minutes after our credentials are void


@dataclass(frozen=True)
class Options:
    """How to run. No `namespaces`: all. `health_port` 0: no probes. `sweep_seconds`: between two sweeps.

    No `lease`: there is no other operator. `identity` empty: one that nobody else ever has.
    `operator_namespace`: where the sealing keys are; None: nothing sealed can be opened. `key_rotation_days` 0: keys
    are made by command only. `sealed_delivery_image`: what opens in pods what is delivered sealed; empty: nothing is.
    """

    namespaces: tuple[str, ...] = ()
    kubeconfig: str | None = None
    context: str | None = None
    health_port: int = 8080
    workers: int = 4
    sweep_seconds: float = 30.0
    lease: LeaseName | None = None
    lease_seconds: int = 15
    identity: str = ""
    operator_namespace: str | None = None
    key_rotation_days: int = 30
    sealed_delivery_image: str = ""


class Engine(handlers.EventSink, Protocol):
    """What does the work."""

    async def reconcile(self, key: Key) -> float | None:
        """Bring one run or binding forward; seconds until the next look, or None."""

    async def sweep(self) -> None:
        """Add everything that needs a look to the queue."""

    def policies_restored(self) -> None:
        """Add what was refused while the admission policies were not in force."""

    async def expire(self) -> None:
        """Add what is at the end of its time to live. Called after each sweep."""


class MakeEngine(Protocol):
    """Makes the engine, for the namespaces that it is to serve; `()`: all."""

    def __call__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        namespaces: tuple[str, ...],
        keys: Keys,
        guard: Guard,
        offer: SealedOffer,
    ) -> Engine:
        """Called once, before anything is watched."""


async def serve(options: Options, make_engine: MakeEngine) -> None:
    """Run until SIGTERM or SIGINT.

    Raises LoginError or StartError if it cannot start, BackgroundError or what kopf raises if a part of
    it ended.
    """
    task = asyncio.current_task()
    if task is not None:
        # Until kopf puts its own in place. The first process of a container gets no default handlers.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    session = Login(credentials.find(options.kubeconfig, options.context))
    kube = Kube(session)
    lease = _lease(options, kube)
    health = Health(lease)
    try:
        session.current()  # what cannot be read now will not be readable after half a minute
        async with health.served(options.health_port), AsyncExitStack() as ends:
            namespaces = await preflight.check(kube, options.namespaces, options.lease)
            if lease is None:
                log.info("no lease is named: there must be no other operator")
            else:
                if await ends.enter_async_context(lease.held()):
                    namespaces = await preflight.check(kube, options.namespaces)
                kube = Kube(session, lease.permit)
            queue = ReconcileQueue[Key]()
            metrics.queue_depth.set_function(lambda: queue.depth)
            metrics.queue_working.set_function(lambda: queue.working)
            metrics.queue_failing.set_function(lambda: queue.failing)
            days = options.key_rotation_days
            keys = Keys(kube, options.operator_namespace, rotate_after=timedelta(days=days) if days else None)
            guard = Guard(kube, namespaces, options.operator_namespace)
            offer = await preflight.sealed_offer(kube, options.sealed_delivery_image, namespaces)
            engine = make_engine(kube, queue, namespaces, keys, guard, offer)
            log.info("serving %s", ", ".join(namespaces) or "all namespaces")
            await _Operator(
                options, session, health, kube, queue, engine, keys, guard, lease, sealed=bool(offer.image)
            ).run(namespaces)
    finally:
        await session.close()


def _lease(options: Options, kube: Kube) -> Lease | None:
    if options.lease is None:
        return None
    identity = options.identity or f"{socket.gethostname()}_{uuid.uuid4()}"
    return Lease(kube, options.lease, identity, options.lease_seconds)


class _Operator:
    def __init__(
        self,
        options: Options,
        session: Login,
        health: Health,
        kube: Kube,
        queue: ReconcileQueue[Key],
        engine: Engine,
        keys: Keys,
        guard: Guard,
        lease: Lease | None,
        *,
        sealed: bool,
    ) -> None:
        self._sealed = sealed
        self._kube = kube
        self._keys = keys
        self._guard = guard
        self._lease = lease
        self._options = options
        self._session = session
        self._health = health
        self._queue = queue
        self._engine = engine
        self._background: list[asyncio.Task[None]] = []
        self._failed: BackgroundError | None = None
        self._served: tuple[str | None, ...] = ()
        self._closed_watches: set[str] = set()
        self._sweep_failed = False
        self._ending = False
        self._stop = asyncio.Event()
        self._last_resort: asyncio.TimerHandle | None = None

    async def run(self, namespaces: tuple[str, ...]) -> None:
        self._served = namespaces or (None,)
        self._closed_watches = {
            resource.path(namespace)
            for resource in (RUNS, BINDINGS, REVEALS, PODS, JOBS, *([REQUESTS] if self._sealed else []))
            for namespace in self._served
        }
        if self._lease is not None:
            self._spawn("lease", self._lease.keep())
        registry = kopf.OperatorRegistry()
        handlers.register(registry, self._engine)
        for when, handler in (
            (kopf.on.login, self._log_in),
            (kopf.on.startup, self._start),
            (kopf.on.cleanup, self._end),
        ):
            when(registry=registry, errors=kopf.ErrorsMode.PERMANENT)(handler)
        try:
            await kopf.operator(
                registry=registry,
                settings=settings(),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=self._stop,
            )
        finally:
            await self._end()
            if self._last_resort is not None:
                self._last_resort.cancel()
        if self._failed is not None:
            raise self._failed

    async def _log_in(self, **_: Any) -> kopf.AiohttpSession | None:
        # Never raise here: kopf would go on waiting for credentials. Without any it ends.
        try:
            connection = await self._session.for_kopf(self._watch_opened)
        except LoginError as error:
            log.critical("%s", error)
            return None
        if connection is None:
            log.critical("the API server refuses the operator's credentials again and again")
            return None
        return kopf.AiohttpSession(
            server=connection.server,
            aiohttp_session=connection.http,
            # Only the server's word makes kopf log in anew, but it has none when its certificate changed.
            expiration=datetime.now(UTC) + timedelta(hours=1),
        )

    def _watch_opened(self, path: str) -> None:
        self._closed_watches.discard(path)
        self._tell_ready()

    def _tell_ready(self) -> None:
        """Ready: all watches are open, so that what was there is known, and what is new is heard of at once.

        And the policies are in force, without which nothing would be made.
        """
        self._health.problem = self._guard.problem or "starting"
        working = not self._closed_watches and not self._sweep_failed and not self._ending
        ready = working and not self._guard.problem
        if ready and not self._health.ready:
            log.info("ready")
        self._health.ready = ready

    def _policies_restored(self) -> None:
        self._engine.policies_restored()
        self._tell_ready()

    async def _start(self, **_: Any) -> None:
        self._spawn("workers", self._queue.run(self._engine.reconcile, self._options.workers))
        self._spawn("sweep", self._sweep())
        self._spawn("policy check", self._guard.watch(self._policies_restored))
        self._spawn("look at the policies", self._guard.confirm())
        for namespace in self._served:
            for resource, saw, labels, fields in (
                # A run that ends leaves the watch, and is never listed again.
                (RUNS, self._engine.saw_run, "", OPEN),
                (REVEALS, self._engine.saw_reveal, "", ""),
                (JOBS, self._engine.saw_job, LABEL_RUN, ""),
                # First seen when bound: the moment its Secret is due.
                (PODS, self._engine.saw_pod, LABEL_RUN, BOUND),
                *([(REQUESTS, self._engine.saw_request, "", OF_SIGNER)] if self._sealed else []),
            ):
                # Of what people write, as large as they like, no more than is needed: it is read by name anyway.
                metadata_only = resource in (RUNS, REVEALS)
                watch = Watch(
                    *(self._kube, resource, namespace, saw),
                    labels=labels,
                    fields=fields,
                    metadata_only=metadata_only,
                    opened=self._watch_opened,
                )
                self._spawn(f"watch of {resource}", watch.run())

    async def _end(self, **_: Any) -> None:
        """Finish what is being worked on. By now kopf watches nothing any more, and the session is still open."""
        self._ending = True
        self._tell_ready()
        self._stop.set()  # kopf forgets its own task that waits for this, and would wait 5 s for it to end
        tasks, self._background = self._background, []
        if tasks and not await self._queue.drain(_DRAIN_SECONDS):
            log.warning("some runs were still being worked on after %.0f s", _DRAIN_SECONDS)
            if self._lease is not None:
                self._lease.abandon()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        stop_asking_for_kinds()
        # When one watch fails, kopf leaves the others running, and then waits for them without an end.
        self._last_resort = self._last_resort or asyncio.get_running_loop().call_later(
            _KOPF_ENDS_SECONDS, _end_process
        )

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task not in self._background:
            return  # as told
        error = None if task.cancelled() else task.exception()
        log.critical("the %s ended: %s", task.get_name(), describe(error) if error else "nobody asked it to")
        self._failed = BackgroundError(f"the {task.get_name()} ended")
        self._stop.set()

    async def _sweep(self) -> None:
        clock = asyncio.get_running_loop().time
        worked_at = clock()
        while True:
            pause = self._options.sweep_seconds
            try:
                await self._guard.refusal()
                await self._keys.tend()
                await self._engine.sweep()
                self._sweep_failed = False
                self._tell_ready()
                await self._engine.expire()
            except ApiError as error:
                if isinstance(error, Unauthorized) and clock() - worked_at > _REFUSED_SECONDS:
                    raise
                log.warning("the sweep failed: %s", error)
                metrics.sweep_errors.inc()
                pause = min(pause, error.retry_after or _SWEEP_AGAIN_SECONDS)
                self._sweep_failed = True
                self._tell_ready()
            else:
                worked_at = clock()
            await asyncio.sleep(pause)


def _end_process() -> None:
    log.critical("not everything ended by itself; ending the process")
    os._exit(1)


def settings() -> kopf.OperatorSettings:
    """Kopf, reduced to what we use of it: it watches, and writes nothing to the cluster."""
    found = kopf.OperatorSettings()
    found.scanning.disabled = True  # no rights on namespaces and CRDs
    found.posting.enabled = False
    found.persistence.diffbase_storage = _NoDiffBase()
    found.persistence.progress_storage = _NoProgress()
    found.process.ultimate_exiting_timeout = 15
    found.queueing.idle_timeout = 1.0
    found.networking.request_timeout = 15
    # Missing rights were found before the start, so these are for a server that is away for a minute.
    found.networking.error_backoffs = [0.2, 0.5, 1, 2, *[3] * 20]
    found.watching.server_timeout = 300
    found.watching.client_timeout = 310
    found.watching.chunk_size = 500
    return found


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps nothing: kopf's own would copy whole objects into their annotations."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """Keeps nothing: there are no handlers whose progress would count."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass

    def purge(self, **_: Any) -> None:
        pass

    def touch(self, **_: Any) -> None:
        pass

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence
