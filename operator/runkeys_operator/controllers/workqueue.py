"""The queue between events in the cluster and the reconciling of objects.

Events only add keys. However often a key is added, it waits once, at the earliest time
that was asked for, and two workers never have it. A key that is added while it is
worked on is worked on again afterwards: the event may have come too late for the pass.

Of the due keys the most urgent goes first, and of equals the namespaces take turns. One turn in four goes to the
namespace that has waited longest, however urgent the others are: no namespace waits for another's thousands.

Not thread-safe: everything happens in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from enum import IntEnum
from typing import Generic, TypeAlias, TypeVar

from runkeys_operator.errors import ApiError
from runkeys_operator.process import metrics
from runkeys_operator.process.logs import describe, get_logger

log = get_logger(__name__)

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF, LONGEST_BACKOFF = 0.2, 30.0

_FAIR_TURN = 4


class Urgency(IntEnum):
    """Who goes first among the keys that are due."""

    PODS = 0
    """A pod waits for its Secret, or a Secret for the end of its pod."""
    EVENT = 1
    """Something new, which a user may be watching."""
    RESYNC = 2
    """What existed before, in the order in which it is due."""


# Before every time that the loop's clock can show.
_AHEAD = {Urgency.PODS: -2.0, Urgency.EVENT: -1.0}
_URGENCY = {due: urgency for urgency, due in _AHEAD.items()}

Entry: TypeAlias = tuple[float, int, K]
"""The due time, the place among keys of that time, and the key."""


class _Lanes(Generic[K]):
    """What is due, by namespace and urgency."""

    def __init__(self, is_stale: Callable[[Entry[K]], bool]) -> None:
        self._is_stale = is_stale
        # Namespaces with something due, the one whose turn was longest ago first; each has its heaps by urgency.
        self._namespaces: OrderedDict[str, dict[Urgency, list[Entry[K]]]] = OrderedDict()
        self._turns: dict[Urgency, OrderedDict[str, None]] = {item: OrderedDict() for item in Urgency}
        self._taken = 0

    def put(self, entry: Entry[K]) -> None:
        """Add a key that is due."""
        namespace = getattr(entry[2], "namespace", "")
        urgency = _URGENCY.get(entry[0], Urgency.RESYNC)
        lanes = self._namespaces.setdefault(namespace, {})
        heapq.heappush(lanes.setdefault(urgency, []), entry)
        self._turns[urgency].setdefault(namespace)

    def take(self) -> Entry[K] | None:
        """Remove and return the next entry; None if nothing is due."""
        while self._namespaces:
            if (self._taken + 1) % _FAIR_TURN == 0:
                namespace, lanes = next(iter(self._namespaces.items()))
                urgency = min(lanes)
            else:
                urgency = next(item for item in Urgency if self._turns[item])
                namespace = next(iter(self._turns[urgency]))
            entry = self._pop(namespace, urgency)
            if self._is_stale(entry):
                continue  # it was nobody's turn
            self._taken += 1
            if namespace in self._turns[urgency]:
                self._turns[urgency].move_to_end(namespace)
            if namespace in self._namespaces:
                self._namespaces.move_to_end(namespace)
            return entry
        return None

    def _pop(self, namespace: str, urgency: Urgency) -> Entry[K]:
        lanes = self._namespaces[namespace]
        entry = heapq.heappop(lanes[urgency])
        if not lanes[urgency]:
            del lanes[urgency], self._turns[urgency][namespace]
        if not lanes:
            del self._namespaces[namespace]
        return entry


class ReconcileQueue(Generic[K]):
    """Keys to work on, each at its time. All times are seconds on the event loop's clock."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        # What waits for its time; once that has come it is in one of the lanes.
        self._heap: list[Entry[K]] = []
        self._lanes = _Lanes[K](self._is_stale)
        self._order = itertools.count()
        self._working: dict[K, asyncio.Task[None]] = {}
        self._failures: dict[K, int] = {}
        self._not_before: dict[K, float] = {}
        self._wake = asyncio.Event()
        self._draining = False

    @property
    def waiting(self) -> int:
        """How many keys wait, including those for a later time."""
        return len(self._due)

    @property
    def depth(self) -> int:
        """How many keys are due and wait only for a worker."""
        now = asyncio.get_running_loop().time()
        return sum(due <= now and key not in self._working for key, due in self._due.items())

    @property
    def working(self) -> int:
        """How many keys are being worked on."""
        return len(self._working)

    def is_worked_on(self, key: K) -> bool:
        """Whether a worker has this key now."""
        return key in self._working

    @property
    def failing(self) -> int:
        """How many keys failed last time."""
        return len(self._failures)

    def add(self, key: K, after: float = 0.0, urgency: Urgency = Urgency.RESYNC) -> None:
        """Have `key` worked on `after` seconds from now, or earlier if that was asked for already.

        PODS and EVENT are due at once, before everything less urgent, even a key that backs off after a
        failure: an event may have changed the result. Only the server's own request to wait
        (`ApiError.retry_after`) is respected.
        """
        if self._draining:
            return
        due = _AHEAD.get(urgency) or asyncio.get_running_loop().time() + max(0.0, after)
        due = max(due, self._not_before.get(key, due))
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            self._push(key)

    async def run(self, reconcile: Callable[[K], Awaitable[float | None]], workers: int) -> None:
        """Work until `drain`: call `reconcile` for each key that is due, for at most `workers` at once.

        What it returns is when to look again, in seconds, or None. When it raises, the key waits
        0.2 s, doubled with each failure up to 30 s, and less a random part of up to half.
        """
        try:
            while not (self._draining and not self._working):
                self._wake.clear()
                while len(self._working) < workers and (key := self._pop()) is not None:
                    self._working[key] = asyncio.create_task(
                        self._work(key, reconcile), name=f"reconcile {key}"
                    )
                later = self._heap[0][0] if self._heap and len(self._working) < workers else None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(later):
                        await self._wake.wait()
        finally:
            for task in self._working.values():
                task.cancel()
            if self._working:
                await asyncio.wait(self._working.values())

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109 -- how long to be patient, not a deadline
        """Accept no more keys, drop those that wait, and wait for those being worked on.

        True if all of them finished within `timeout` seconds; the others are cancelled.
        """
        self._draining = True
        self._due.clear()  # with which all entries are stale
        self._heap.clear()
        self._wake.set()
        if not self._working:
            return True
        tasks = list(self._working.values())
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        return not late

    def _push(self, key: K) -> None:
        if len(self._heap) > 2 * len(self._due) + 64:  # mostly stale: looks far ahead that events overtook
            self._heap = [entry for entry in self._heap if not self._is_stale(entry)]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (self._due[key], next(self._order), key))
        self._wake.set()

    def _is_stale(self, entry: Entry[K]) -> bool:
        """Whether it no longer agrees with what is due, or its key is being worked on."""
        due, _, key = entry
        return self._due.get(key) != due or key in self._working

    def _pop(self) -> K | None:
        now = asyncio.get_running_loop().time()
        while self._heap and self._heap[0][0] <= now:
            self._lanes.put(heapq.heappop(self._heap))
        entry = self._lanes.take()
        if entry is None:
            return None
        key = entry[2]
        del self._due[key]
        return key

    async def _work(self, key: K, reconcile: Callable[[K], Awaitable[float | None]]) -> None:
        began = time.monotonic()
        try:
            again = await reconcile(key)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                raise
            metrics.count_failure(_kind_of(key), error)
            again = self._failed(key, error)
        else:
            self._failures.pop(key, None)
            self._not_before.pop(key, None)
        finally:
            metrics.reconcile_seconds.labels(_kind_of(key)).observe(time.monotonic() - began)
            del self._working[key]
            self._wake.set()
        if key in self._due:  # asked for meanwhile: its entry on the heap was skipped
            self._due[key] = max(self._due[key], self._not_before.get(key, float("-inf")))
            self._push(key)
        if again is not None:
            self.add(key, again)

    def _failed(self, key: K, error: BaseException) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        backoff: float = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(failures, 16))
        backoff *= random.uniform(0.5, 1)  # noqa: S311 -- to spread load, not to be unguessable
        if isinstance(error, ApiError) and error.retry_after is not None:
            backoff = max(backoff, min(LONGEST_BACKOFF, error.retry_after))
            self._not_before[key] = asyncio.get_running_loop().time() + backoff
        level = logging.WARNING if isinstance(error, ApiError) and error.retryable else logging.ERROR
        log.log(level, "failed, retrying in %.1f s: %s", backoff, describe(error), extra={"run": key})
        return backoff


def _kind_of(key: Hashable) -> str:
    return str(getattr(key, "kind", "other"))
