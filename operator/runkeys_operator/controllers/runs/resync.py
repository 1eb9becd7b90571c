"""The resync: lists everything that is open now and then, and returns the runs that have to be reconciled.

Watches lose events: a relist does not show what was deleted meanwhile. The resync finds it. It asks for metadata only
and compares versions with what the watches showed, so an object that is up to date costs nothing more. Finished runs
are not listed, however many there are, unless one of their Secrets may be live.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from runkeys.names import LABEL_RUN, run_uid_of
from runkeys.planning.observation import job_uid_of
from runkeys_operator.controllers.key import Key, Kind
from runkeys_operator.controllers.runs.cache import Cache, OwnedObjects, run_of
from runkeys_operator.controllers.runs.record import Record
from runkeys_operator.errors import NotFound
from runkeys_operator.kube import JOBS, PODS, RUNS, Json, Kube, Resource
from runkeys_operator.kube.selectors import BOUND, EXPIRES, LIVE, OPEN
from runkeys_operator.process.logs import describe, get_logger

log = get_logger(__name__)

T = TypeVar("T")

_WATCH_LAG_SECONDS = 1.0
"""How long the watches may lag behind a list before they count as having missed something."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What the resync needs of one object in a list.

    :ivar run: key of the run that it is, or claims to belong to.
    :ivar job_uid: for a Job its own uid, for a pod the uid in its label.
    :ivar run_uid: for a Job the uid of the run that it was created for; empty if unknown.
    """

    namespace: str
    name: str
    uid: str
    version: int
    generation: int
    labels: Mapping[str, str]
    deleting: bool
    run: Key | None
    job_uid: str
    run_uid: str

    @classmethod
    def parse(cls, resource: Resource, metadata: Mapping[str, Any]) -> Listed:
        """Read the metadata of an object of that kind.

        :raises KeyError, TypeError, ValueError: the metadata is malformed.
        """
        namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
        if not all(isinstance(text, str) for text in (namespace, name, uid)):
            raise TypeError("no metadata of an object")
        is_run = resource == RUNS
        return cls(
            namespace=namespace,
            name=name,
            uid=uid,
            version=int(metadata["resourceVersion"]),
            generation=metadata.get("generation", 0),
            labels=(metadata.get("labels") or {}) if is_run else {},
            deleting="deletionTimestamp" in metadata,
            run=Key(Kind.RUN, namespace, name) if is_run else run_of(metadata),
            job_uid=job_uid_of(metadata) if resource == PODS else uid,
            run_uid=run_uid_of(metadata) if resource == JOBS else "",
        )


@dataclass
class Found:
    """What a resync found.

    :ivar read: runs that have changed or are unknown, and have to be read.
    :ivar look: runs with a Job or a pod that differs from what the watches showed.
    """

    read: set[Key] = field(default_factory=set)
    look: set[Key] = field(default_factory=set)


class Resync:
    """The resync of the served namespaces; ``()``: all."""

    def __init__(self, kube: Kube, owned: OwnedObjects, namespaces: tuple[str, ...]) -> None:
        self._kube = kube
        self._owned = owned
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)

    async def resync(self, known: Mapping[Key, Record]) -> Found:
        """List what exists and compare it with what is ``known``, which may change meanwhile.

        :raises ApiError: a LIST or a GET failed.
        """
        found, settled = Found(), set(self._owned.settled)
        runs_before, jobs_before, pods_before = (
            set(known),
            self._owned.jobs.present(),
            self._owned.pods.present(),
        )
        jobs = await self._all(JOBS, labels=LABEL_RUN)
        pods = await self._all(PODS, labels=LABEL_RUN, fields=BOUND)
        runs, live = await self._all(RUNS, fields=OPEN), await self._all(RUNS, fields=LIVE)
        await asyncio.sleep(_WATCH_LAG_SECONDS)
        self._owned.settled -= settled - {job.uid for job in jobs}
        self._compare_runs(found, known, runs_before, runs, live)
        for resource, store, before, listed in (
            (JOBS, self._owned.jobs, jobs_before, jobs),
            (PODS, self._owned.pods, pods_before, pods),
        ):
            await self._compare(found, known, resource, store, before, listed)
        return found

    def _compare_runs(
        self,
        found: Found,
        known: Mapping[Key, Record],
        before: set[Key],
        listed: list[Listed],
        live: list[Listed],
    ) -> None:
        here = {item.run: item for item in listed if item.run is not None}
        for key, item in here.items():
            run = known.get(key)
            if run is None or run.differs(item.uid, item.generation, item.labels, deleting=item.deleting):
                found.read.add(key)
        found.read |= {item.run for item in live if item.run is not None} - known.keys()
        found.read |= {key for key in before - here.keys() if key in known and not known[key].finished}

    async def _compare(
        self,
        found: Found,
        known: Mapping[Key, Record],
        resource: Resource,
        store: Cache[Any],
        before: Mapping[str, Key],
        listed: list[Listed],
    ) -> None:
        here = {item.uid for item in listed}
        found.look |= {key for uid, key in before.items() if uid not in here and store.mark_gone(uid, key)}
        for item in listed:
            if item.run is None or (item.run not in known and item.job_uid in self._owned.settled):
                continue
            run = known.get(item.run)
            # The Job of an earlier run of that name, which was perhaps deleted without its Jobs while nobody watched.
            left = item.run_uid and not item.deleting and run is not None and run.uid != item.run_uid
            if run is None or left:
                found.read.add(item.run)
            if store.has(item.run, item.uid, item.version):
                continue
            try:
                raw = await self._kube.get(resource, item.namespace, item.name)
            except NotFound:
                continue
            found.look.update(key for key in _readable(resource, store.record, [raw]) if key is not None)

    async def expiring(self, now: datetime, within: timedelta) -> AsyncIterator[tuple[Key, float]]:
        """Yield finished runs whose time to live ends ``within`` this time, and in how many seconds (0: now)."""
        for namespace in self._namespaces:
            async for page in self._kube.pages(RUNS, namespace, field_selector=EXPIRES):
                for key, end in _readable(RUNS, _expiry, page.items):
                    left = end - now
                    if left <= within:
                        yield key, max(0.0, left.total_seconds())

    async def _all(self, resource: Resource, *, labels: str = "", fields: str = "") -> list[Listed]:
        """Return all objects that match. It lists page by page, as whole metadata takes much memory."""
        found: list[Listed] = []
        for namespace in self._namespaces:
            pages = self._kube.pages(
                resource, namespace, label_selector=labels, field_selector=fields, metadata_only=True
            )
            try:
                async for page in pages:
                    found += _readable(resource, partial(_listed, resource), page.items)
            except NotFound:
                continue
        return found


def _listed(resource: Resource, item: Json) -> Listed:
    return Listed.parse(resource, item["metadata"])


def _expiry(item: Json) -> tuple[Key, datetime]:
    """Return the key of a finished run, and when its time to live ends."""
    ttl = timedelta(seconds=item["spec"]["ttlSecondsAfterFinished"])
    key = Key.of(Kind.RUN, item["metadata"])
    return key, datetime.fromisoformat(item["status"]["completionTime"]) + ttl


def _readable(resource: Resource, read: Callable[[Json], T], items: Iterable[Json]) -> Iterator[T]:
    """Parse ``items``. An unreadable one is logged and skipped, so that the others are still seen."""
    for item in items:
        try:
            yield read(item)
        except Exception as error:  # noqa: BLE001 -- any error concerns this object only
            log.error("skipped one of %s: %s", resource, describe(error))  # noqa: TRY400
