"""Puts the operator together and keeps it whole: it runs completely or ends.

kopf watches our own kinds, logs in and runs the life cycle. Beside it run the watches of Jobs, pods and certificate
requests, the workers of the queue, and the resync. If any of them ends, all of them end, and the process exits with an
error: its supervisor restarts it, and nobody waits for half an operator.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import uuid
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Protocol

from runkeys.names import LABEL_RUN
from runkeys.planning.requirements import SealedSupport
from runkeys_operator.checks import preflight
from runkeys_operator.checks.policies import PolicyCheck, for_pods
from runkeys_operator.controllers.key import Key
from runkeys_operator.controllers.workqueue import ReconcileQueue
from runkeys_operator.errors import ApiError, BackgroundError, Unauthorized
from runkeys_operator.health import Health
from runkeys_operator.kopf_runtime.handlers import HANDLED
from runkeys_operator.kopf_runtime.lifecycle import Kopf
from runkeys_operator.kube import JOBS, PODS, REQUESTS, STORES, Kube, Resource, credentials
from runkeys_operator.kube.login import Login
from runkeys_operator.kube.selectors import BOUND, OF_SIGNER
from runkeys_operator.kube.watch import Sink, Watch
from runkeys_operator.leader_election import Lease
from runkeys_operator.options import Options
from runkeys_operator.process import metrics
from runkeys_operator.process.logs import describe, get_logger
from runkeys_operator.values.keys import Keys
from runkeys_operator.values.stores import Stores

log = get_logger(__name__)

_DRAIN_SECONDS = 5.0
_RESYNC_AGAIN_SECONDS = 5.0
_REFUSED_SECONDS = 60.0  # a watch that is open may go on for minutes after our credentials are void


class Manager(Protocol):
    """Does the work: takes in watch events, and reconciles objects one by one."""

    @property
    def sinks(self) -> Mapping[Resource, Sink]:
        """What takes the events of each kind. Called in the event loop; must not block."""

    async def reconcile(self, key: Key) -> float | None:
        """Bring one object forward; seconds until the next look, or None."""

    async def resync(self) -> None:
        """Add everything that needs a look to the queue."""

    def policies_restored(self) -> None:
        """Add what was refused while the admission policies were not in force."""

    async def expire(self) -> None:
        """Add what is at the end of its time to live. Called after each resync."""


class MakeManager(Protocol):
    """Creates the manager for the namespaces to serve; `()`: all."""

    def __call__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        namespaces: tuple[str, ...],
        keys: Keys,
        policy_check: PolicyCheck,
        support: SealedSupport,
        pod_policy_check: PolicyCheck | None,
        stores: Stores,
    ) -> Manager:
        """Called once, before anything is watched."""


async def serve(options: Options, make_manager: MakeManager) -> None:
    """Run until SIGTERM or SIGINT.

    Raises LoginError or StartError if it cannot start, BackgroundError or what kopf raises if a part of
    it ended.
    """
    task = asyncio.current_task()
    if task is not None:
        # Until kopf puts its own in place. The first process of a container gets no default handlers.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    load = credentials.find(options.kubeconfig, options.context)
    session = Login(load)
    kube = Kube(session)
    lease = _lease(options, kube)
    health = Health(lease)
    try:
        session.current()  # what cannot be read now will not be readable after half a minute
        async with health.served(options.health_port), AsyncExitStack() as ends:
            namespaces = await preflight.check(kube, options.namespaces, options.lease)
            if lease is None:
                log.info("no Lease is configured: no other operator may run")
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
            policy_check = PolicyCheck(
                kube, namespaces, options.operator_namespace, audiences=options.store_audiences
            )
            wanted = SealedSupport(
                image=options.sealed_delivery_image, resources=options.sealed_delivery_resources
            )
            support = await preflight.sealed_support(kube, wanted, namespaces)
            pod_policy_check = None
            if options.pods and support.image:
                pod_policy_check = PolicyCheck(
                    kube, namespaces, options.operator_namespace, policy_set=for_pods(support)
                )
            audiences = await preflight.store_audiences(kube, options.store_audiences)
            stores = Stores(kube, audiences, tokens=options.store_tokens, providers=options.store_providers)
            ends.push_async_callback(stores.close)
            manager = make_manager(
                kube, queue, namespaces, keys, policy_check, support, pod_policy_check, stores
            )
            log.info("serving %s", ", ".join(namespaces) or "all namespaces")
            await _Operator(
                options,
                load,
                health,
                kube,
                queue,
                manager,
                keys,
                policy_check,
                lease,
                pod_policy_check,
                sealed=bool(support.image),
                stores=bool(audiences),
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
        load: Callable[[], credentials.Access],
        health: Health,
        kube: Kube,
        queue: ReconcileQueue[Key],
        manager: Manager,
        keys: Keys,
        policy_check: PolicyCheck,
        lease: Lease | None,
        pod_policy_check: PolicyCheck | None,
        *,
        sealed: bool,
        stores: bool,
    ) -> None:
        self._options = options
        self._health = health
        self._kube = kube
        self._queue = queue
        self._manager = manager
        self._keys = keys
        self._policy_check = policy_check
        self._lease = lease
        self._pod_policy_check = pod_policy_check
        # The lean watches of foreign kinds, with thousands of objects.
        self._lean = {
            JOBS: {"labels": LABEL_RUN},
            # First seen when bound: the moment its Secret is due.
            PODS: {"labels": LABEL_RUN, "fields": BOUND},
            **({REQUESTS: {"fields": OF_SIGNER}} if sealed else {}),
        }
        # kopf watches Runkeys' kinds in the served namespaces. This one is in none.
        self._cluster_wide = (STORES,) if stores else ()
        self._kopf = Kopf(load, manager.sinks, self._watch_opened)
        self._background: list[asyncio.Task[None]] = []
        self._failed: BackgroundError | None = None
        self._served: tuple[str | None, ...] = ()
        self._closed_watches: set[str] = set()
        self._resync_failed = False
        self._ending = False

    async def run(self, namespaces: tuple[str, ...]) -> None:
        self._served = namespaces or (None,)
        self._closed_watches = {
            resource.path(namespace) for resource in (*HANDLED, *self._lean) for namespace in self._served
        } | {resource.path(None) for resource in self._cluster_wide}
        if self._lease is not None:
            self._spawn("lease", self._lease.keep())
        await self._kopf.run(namespaces, self._start, self._end)
        if self._failed is not None:
            raise self._failed

    def _watch_opened(self, path: str) -> None:
        self._closed_watches.discard(path)
        self._tell_ready()

    def _tell_ready(self) -> None:
        """Ready: all watches are open, so that what was there is known, and what is new is heard of at once.

        And the policies are in force, without which nothing would be made.
        """
        self._health.problem = self._policy_check.problem or "starting"
        working = not self._closed_watches and not self._resync_failed and not self._ending
        ready = working and not self._policy_check.problem
        if ready and not self._health.ready:
            log.info("ready")
        self._health.ready = ready

    def _policies_restored(self) -> None:
        self._manager.policies_restored()
        self._tell_ready()

    def _start(self) -> None:
        self._spawn("workers", self._queue.run(self._manager.reconcile, self._options.workers))
        self._spawn("resync", self._resync())
        self._spawn("policy check", self._policy_check.watch(self._policies_restored))
        self._spawn("look at the policies", self._policy_check.confirm())
        if self._pod_policy_check is not None:
            self._spawn(
                "check of the policies on pods",
                self._pod_policy_check.watch(self._manager.policies_restored),
            )
            self._spawn("look at the policies on pods", self._pod_policy_check.confirm())
        for resource in self._cluster_wide:
            watch = Watch(
                self._kube, resource, None, self._manager.sinks[resource], opened=self._watch_opened
            )
            self._spawn(f"watch of {resource}", watch.run())
        for namespace in self._served:
            for resource, selectors in self._lean.items():
                sink = self._manager.sinks[resource]
                watch = Watch(self._kube, resource, namespace, sink, opened=self._watch_opened, **selectors)
                self._spawn(f"watch of {resource}", watch.run())

    async def _end(self) -> None:
        """Finish the work under way. By now kopf watches nothing any more, and the sessions are still open."""
        self._ending = True
        self._tell_ready()
        tasks, self._background = self._background, []
        if tasks and not await self._queue.drain(_DRAIN_SECONDS):
            log.warning("some runs were still being reconciled after %.0f s", _DRAIN_SECONDS)
            if self._lease is not None:
                self._lease.abandon()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
        self._kopf.stop()

    async def _resync(self) -> None:
        clock = asyncio.get_running_loop().time
        worked_at = clock()
        while True:
            pause = self._options.resync_seconds
            try:
                await self._policy_check.refusal()
                if self._pod_policy_check is not None:
                    await self._pod_policy_check.refusal()
                await self._keys.tend()
                await self._manager.resync()
                self._resync_failed = False
                self._tell_ready()
                await self._manager.expire()
            except ApiError as error:
                if isinstance(error, Unauthorized) and clock() - worked_at > _REFUSED_SECONDS:
                    raise
                log.warning("the resync failed: %s", error)
                metrics.sweep_errors.inc()
                pause = min(pause, error.retry_after or _RESYNC_AGAIN_SECONDS)
                self._resync_failed = True
                self._tell_ready()
            else:
                worked_at = clock()
            await asyncio.sleep(pause)
