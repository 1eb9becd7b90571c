"""Creates the controllers and routes events and keys to them by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from runkeys.planning.requirements import NO_SUPPORT, SealedSupport
from runkeys_operator.checks.access_review import Authorizer
from runkeys_operator.checks.policies import PolicyCheck
from runkeys_operator.controllers.asking_pods import AskingPods
from runkeys_operator.controllers.bindings import BindingController
from runkeys_operator.controllers.certificates import CertificateController, CertificateRequests
from runkeys_operator.controllers.controller import Controller
from runkeys_operator.controllers.key import Key, Kind
from runkeys_operator.controllers.reveals import RevealController
from runkeys_operator.controllers.runs.cache import OwnedObjects
from runkeys_operator.controllers.runs.controller import RunController
from runkeys_operator.controllers.runs.executor import Executor
from runkeys_operator.controllers.runs.observer import Observer
from runkeys_operator.controllers.runs.resync import Resync
from runkeys_operator.controllers.stores import StoreController
from runkeys_operator.controllers.workqueue import ReconcileQueue
from runkeys_operator.errors import Conflict
from runkeys_operator.kube import BINDINGS, JOBS, PODS, REQUESTS, REVEALS, RUNS, STORES, Kube, Resource
from runkeys_operator.kube.watch import Sink
from runkeys_operator.process import metrics
from runkeys_operator.values.keys import Keys
from runkeys_operator.values.leases import Leases
from runkeys_operator.values.sources import Sources
from runkeys_operator.values.stores import Stores


class Manager:
    """All controllers, behind the interface that the application asks for.

    :ivar sinks: what takes the events of each kind.
    :ivar runs: the controller of WorkflowRuns, which resyncs everything now and then.
    """

    def __init__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        namespaces: tuple[str, ...],
        keys: Keys,
        policy_check: PolicyCheck,
        support: SealedSupport = NO_SUPPORT,
        pod_policy_check: PolicyCheck | None = None,
        stores: Stores | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        now = clock or kube.clock.now
        stores = stores or Stores(kube)
        sources, owned = Sources(kube, keys, stores), OwnedObjects()
        requests = CertificateRequests(kube, support)
        self.runs = RunController(
            kube,
            queue,
            owned,
            requests,
            Observer(kube, owned, requests, policy_check),
            Executor(kube, sources, Leases(kube, stores, now), owned.jobs, policy_check, requests, now),
            Resync(kube, owned, namespaces),
            now,
        )
        self._asking: AskingPods | None = None
        if pod_policy_check is not None:
            self._asking = AskingPods(kube, queue, requests, sources, pod_policy_check, policy_check, now)

        def binding_changed(namespace: str, name: str) -> None:
            self.runs.binding_changed(namespace, name)
            if self._asking is not None:
                self._asking.binding_changed(namespace, name)

        bindings = BindingController(kube, queue, sources, now, binding_changed)
        reveals = RevealController(kube, queue, sources, Authorizer(kube), policy_check, now)
        certificates = CertificateController(
            kube, queue, requests, owned.pods, self.runs.pod_asks, self._asking
        )
        store_status = StoreController(kube, queue, stores, now, bindings.store_changed)
        self._controllers: dict[Kind, Controller] = {
            Kind.RUN: self.runs,
            Kind.BINDING: bindings,
            Kind.REVEAL: reveals,
            Kind.REQUEST: certificates,
            Kind.STORE: store_status,
        }
        self.sinks: Mapping[Resource, Sink] = {
            RUNS: self.runs.on_event,
            JOBS: self.runs.on_job_event,
            PODS: self.runs.on_pod_event,
            BINDINGS: bindings.on_event,
            REVEALS: reveals.on_event,
            REQUESTS: certificates.on_event,
            STORES: store_status.on_event,
        }

    async def reconcile(self, key: Key) -> float | None:
        """Reconcile one object; return seconds until the next look even if nothing happens."""
        try:
            return await self._controllers[key.kind].reconcile(key)
        except Conflict as error:
            metrics.count_failure(key.kind, error)
            return 0.0  # it changed meanwhile: read it again

    async def resync(self) -> None:
        """Look at everything that is open once, for what the watches did not show."""
        await self.runs.resync()

    async def expire(self) -> None:
        """Now and then, see which finished runs are at the end of their time to live."""
        await self.runs.expire()

    def policies_restored(self) -> None:
        """Admission policies are in force again: what was refused for want of them can have its secrets."""
        self.runs.policies_restored()
        if self._asking is not None:
            self._asking.policies_restored()
