"""Leader election: of all operators that name one Lease, only its holder changes anything (docs/decisions/0017).

The clocks of two machines are never compared. The holder counts from before it asked for its last renewal. A standby
counts from when it saw that renewal. So the holder stops first. No request of the holder lasts longer than its Lease,
see :meth:`Lease.permit`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from runkeys._text.times import to_microseconds
from runkeys_operator.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    LeaseLostError,
    NotFound,
    NotLeader,
)
from runkeys_operator.kube import LEASES, Json, Kube
from runkeys_operator.process.logs import get_logger

log = get_logger(__name__)

_RELEASE_SECONDS = 3.0
# A clock that continues while the machine sleeps, where there is one.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class LeaseName(NamedTuple):
    """Namespace and name of the Lease."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class _Sighting(NamedTuple):
    """Another operator's Lease.

    :ivar version: its resourceVersion. :ivar until: it holds the Lease at least until then, by `_now`.
    """

    version: str
    holder: str
    until: float


def _now() -> float:
    return time.clock_gettime(_CLOCK)


class Lease:
    """The Lease, and whether this process holds it.

    If a holder gets no answer for a while, it changes nothing and keeps asking. If nobody took the Lease meanwhile, it
    is still the leader. Once another process holds it, this one has to end, and with it all that it remembers.

    :ivar follows: it waits for the Lease, and could read it when it last tried.
    :ivar leads: it has held the Lease, and no longer waits for it.
    """

    def __init__(self, kube: Kube, name: LeaseName, identity: str, seconds: float) -> None:
        """Prepare it. No request is sent yet.

        :param identity: names the holder. A process that finds its own identity in the Lease takes it at once. So it
            must be the name of a pod, whose containers never run twice at a time, or a name that nobody else ever has.
        :param seconds: how long the Lease is valid after each renewal.
        """
        self.name = name
        self.identity = identity
        self._kube = kube
        self._seconds = seconds
        self._glance = min(1.0, seconds / 15)
        self._until = float("-inf")
        self._acquired = ""
        self._lease: Json | None = None
        self._may_be_ours = False
        self._seen: _Sighting | None = None
        self._looked_at = float("-inf")
        self._told = ""
        self.follows = False
        self.leads = False

    @property
    def holds(self) -> bool:
        """Whether this process holds the Lease now."""
        return _now() < self._until

    def permit(self, *, removes: bool) -> float:
        """Return how many seconds a request that changes something may take: what is left of the Lease.

        :param removes: the request deletes a Secret. It may begin as long as anything is left: it rests on a fact that
            never becomes untrue, its name is used once, and the next leader would do the same. Other requests need at
            least a third: nobody would know of a Secret that is created late.
        :raises NotLeader: less is left, so the request must not begin.
        """
        left = self._until - _now()
        if left <= (0 if removes else self._seconds / 3):
            raise NotLeader(f"the lease {self.name} could not be renewed in time")
        return left

    @asynccontextmanager
    async def held(self) -> AsyncIterator[bool]:
        """Wait for the Lease, hold it (while `keep` runs), and give it back. Yields whether it had to wait."""
        try:
            yield await self._acquire()
        finally:
            await self._release()

    async def keep(self) -> None:
        """Renew the Lease until cancelled.

        :raises LeaseLostError: another process holds it.
        """
        pause = max(0.0, self._until - _now() - self._seconds * 5 / 6)
        while True:
            await asyncio.sleep(pause)
            try:
                await self._renew()
            except (ApiError, TimeoutError) as error:
                self._tell(f"cannot renew the lease {self.name}: {_text(error)}")
                pause = self._glance
            else:
                pause = self._seconds / 6

    def abandon(self) -> None:
        """Do not give the Lease back, since a request may still be under way. It runs out by itself."""
        self._may_be_ours = False

    # waiting

    async def _acquire(self) -> bool:
        waited = False
        while True:
            try:
                if await self._take():
                    self.leads = True
                    log.info("leader: %s holds the lease %s", self.identity, self.name)
                    return waited
                if self._seen is not None:
                    self._tell(f"standby: {self._seen.holder} holds the lease {self.name}", problem=False)
                self.follows = True
            except (Conflict, AlreadyExists):
                pass  # another process was faster
            except (ApiError, TimeoutError) as error:
                self.follows = False
                self._tell(f"cannot access the lease {self.name}: {_text(error)}")
            waited = True
            await asyncio.sleep(self._glance)

    async def _take(self) -> bool:
        """Take the Lease if nobody holds it. Return whether this process holds it now."""
        async with asyncio.timeout(self._seconds / 3):
            try:
                found = await self._kube.get(LEASES, *self.name)
            except NotFound:
                found = None
        if _now() - self._looked_at > self._seconds / 3:
            # What kept this process from reading it may have kept the holder from renewing it: its time begins anew.
            self._seen = None
        self._looked_at = _now()
        if self._is_anothers(found):
            return False
        before = (found or {}).get("spec") or {}
        self._acquired = to_microseconds(datetime.now(UTC))
        changes = before.get("leaseTransitions", 0) + (before.get("holderIdentity") != self.identity)
        await self._write(found, acquireTime=self._acquired, leaseTransitions=changes)
        return True

    def _is_anothers(self, found: Json | None) -> bool:
        if found is None:
            # Somebody deleted it, and its holder still relies on it.
            return self._seen is not None and _now() < self._seen.until
        spec = found.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self.identity):
            return False
        version = found["metadata"]["resourceVersion"]
        if self._seen is None or self._seen.version != version:
            self._seen = _Sighting(version, holder, _now() + (spec.get("leaseDurationSeconds") or 0))
        return _now() < self._seen.until

    # holding

    async def _renew(self) -> None:
        try:
            await self._write(self._lease, acquireTime=self._acquired)
        except (AlreadyExists, Conflict, NotFound):
            # An earlier renewal whose answer was lost, a change by somebody, a deletion, or another holder.
            await self._find_ours()
            await self._write(self._lease, acquireTime=self._acquired)

    async def _find_ours(self) -> None:
        """Read the Lease after it was not as this process left it.

        :raises LeaseLostError: another process holds it.
        """
        async with asyncio.timeout(self._seconds / 3):
            try:
                found = await self._kube.get(LEASES, *self.name)
            except NotFound:
                found = None
        if self._is_ours(found) or (found is None and self.holds):
            self._lease = found  # None: somebody deleted it, and it is created again
            return
        self._until, self._may_be_ours = float("-inf"), False
        holder = ((found or {}).get("spec") or {}).get("holderIdentity") or "nobody"
        raise LeaseLostError(f"{holder} holds the lease {self.name}")

    def _is_ours(self, found: Json | None) -> bool:
        spec = (found or {}).get("spec") or {}
        return (spec.get("holderIdentity"), spec.get("acquireTime")) == (self.identity, self._acquired)

    async def _write(self, found: Json | None, **spec: Any) -> None:
        """Write this process into the Lease.

        :param found: the Lease as it was read; None creates it.
        :raises Conflict: it has changed since.
        """
        lease = found or {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name.name},
        }
        ours = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(self._seconds),
            "renewTime": to_microseconds(datetime.now(UTC)),
            **spec,
        }
        body = {**lease, "spec": {**(lease.get("spec") or {}), **ours}}
        asked = _now()
        self._may_be_ours = True
        async with asyncio.timeout(self._seconds / 3):
            if found is None:
                self._lease = await self._kube.create(LEASES, self.name.namespace, body)
            else:
                self._lease = await self._kube.replace(LEASES, *self.name, body)
        self._until = asked + self._seconds
        if self._told and self.leads:
            log.info("renewed the lease %s again", self.name)
        self._told = ""

    async def _release(self) -> None:
        if not self._may_be_ours:
            return
        self._until, self._may_be_ours = float("-inf"), False
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                found = await self._kube.get(LEASES, *self.name)
                if self._is_ours(found):
                    found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._kube.replace(LEASES, *self.name, found)
                    log.info("released the lease %s", self.name)
        except (ApiError, TimeoutError) as error:
            log.warning("could not release the lease %s, which then expires: %s", self.name, _text(error))

    def _tell(self, text: str, *, problem: bool = True) -> None:
        if text != self._told:
            (log.warning if problem else log.info)("%s", text)
        self._told = text


def _text(error: ApiError | TimeoutError) -> str:
    return str(error) if isinstance(error, ApiError) else "no answer in time"
