"""Reports in a SecretStore's status whether it can be used, as far as that can be said without a pod."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from runkeys.api import SecretStore
from runkeys.api.conditions import Condition, next_condition
from runkeys.api.store import SecretStoreStatus
from runkeys.planning.refusal import Reason
from runkeys_operator.controllers.key import Key, Kind
from runkeys_operator.controllers.reading import UnreadableError, parse, report_unreadable
from runkeys_operator.controllers.workqueue import ReconcileQueue, Urgency
from runkeys_operator.errors import NotFound
from runkeys_operator.kube import STORES, Json, Kube
from runkeys_operator.values.stores import Stores

log = logging.getLogger(__name__)

_READY_SECONDS, _NOT_READY_SECONDS = 300.0, 30.0
"""How often a store is asked whether it is there."""


class StoreController:
    """Updates the status of one store. Pods do not wait for it: whoever needs a value asks the store itself."""

    def __init__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        stores: Stores,
        clock: Callable[[], datetime],
        changed: Callable[[str], None],
    ) -> None:
        """``changed`` is given the name of each store that is another than before, is ready now, or no longer."""
        self._kube = kube
        self._queue = queue
        self._stores = stores
        self._now = clock
        self._changed = changed
        self._generations: dict[str, tuple[str, int]] = {}
        self._ready: dict[str, bool] = {}
        # Uids of stores that this operator could log in to as revoker.
        self._revokers: set[str] = set()

    def on_event(self, event: Json) -> None:
        """A SecretStore was added, changed or deleted."""
        metadata = event["object"]["metadata"]
        name, version = metadata["name"], (metadata["uid"], metadata["generation"])
        if event.get("type") == "DELETED":
            self._generations.pop(name, None)
            self._ready.pop(name, None)
        elif self._generations.get(name) == version:
            return  # its status, which only the operator writes
        else:
            self._generations[name] = version
        self._queue.add(Key(Kind.STORE, "", name), urgency=Urgency.EVENT)
        self._changed(name)

    async def reconcile(self, key: Key) -> float | None:
        """Ask the store whether it is there, and write changes; return seconds until the next look."""
        try:
            raw = await self._kube.get(STORES, None, key.name)
        except NotFound:
            return None
        try:
            store = parse(SecretStore, raw)
        except UnreadableError as error:
            log.warning("SecretStore %s: %s", key.name, error)
            await report_unreadable(self._kube, STORES, key, error, self._now())
            return None
        found = await self._stores.problem(store)
        of_this = store.status.observed_generation == store.metadata.generation
        if (
            found is not None
            and found[0] is Reason.STORES_UNAVAILABLE
            and of_this
            and store.status.conditions
        ):
            return None  # another operator of the cluster serves it
        reason, message = ("Reachable", "") if found is None else (found[0].value, found[1])
        condition = next_condition(
            store.status.conditions,
            "Ready",
            found is None,
            reason,
            message,
            generation=store.metadata.generation,
            now=self._now().replace(microsecond=0),
        )
        conditions = [condition]
        if store.spec.revoker is not None:
            conditions.append(await self._leases(store, found))
        status = SecretStoreStatus(observed_generation=store.metadata.generation, conditions=conditions)
        if status.to_wire() != store.status.to_wire():
            await self._kube.patch_status(
                *(STORES, None, key.name, status.to_wire()), resource_version=store.metadata.resource_version
            )
        ready = all(item.status == "True" for item in conditions)
        before, self._ready[key.name] = self._ready.get(key.name), ready
        if before is not None and before != ready:
            self._changed(key.name)
        return _READY_SECONDS if ready else _NOT_READY_SECONDS

    async def _leases(self, store: SecretStore, problem: tuple[Reason, str] | None) -> Condition:
        """Whether leases of the store can be revoked. ``problem``: why nobody can use it at all."""
        found = problem or await self._stores.revocation_problem(store)
        known = next((item for item in store.status.conditions if item.type == "LeasesReady"), None)
        if found is None:
            self._revokers.add(store.metadata.uid)
        elif (
            store.metadata.uid not in self._revokers
            and known is not None
            and known.observed_generation == store.metadata.generation
        ):
            return known  # the revoker may be another operator of the cluster, which says how it is
        reason, message = ("LoggedIn", "") if found is None else (found[0].value, found[1])
        return next_condition(
            store.status.conditions,
            "LeasesReady",
            found is None,
            reason,
            message,
            generation=store.metadata.generation,
            now=self._now().replace(microsecond=0),
        )
