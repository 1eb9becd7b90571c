"""The API server's time.

Many decisions compare the time with one that the API server, or another part of Kubernetes, has written into an object:
how long a pod has had a node, when a Job ended. And two replicas use times that the other one wrote. So all use one
clock, that of the API server, which each of its answers shows (docs/decisions/0049).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from runkeys_operator.process import metrics
from runkeys_operator.process.logs import get_logger

log = get_logger(__name__)

TOLERANCE = timedelta(seconds=2)
"""An answer gives whole seconds, and took a while to arrive. Up to this, the local clock is good enough, and finer."""

_ASK_AGAIN, _SURE_AFTER = 1.0, 10.0
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _wall() -> datetime:
    return datetime.now(UTC)


def _elapsed() -> float:
    return time.clock_gettime(_CLOCK)


class ServerClock:
    """A clock that runs from its creation, unaffected by changes of the machine's clock. Answers correct it."""

    def __init__(self, wall: Callable[[], datetime] = _wall, elapsed: Callable[[], float] = _elapsed) -> None:
        self._elapsed = elapsed
        self._zero = wall() - timedelta(seconds=elapsed())
        self._ahead = timedelta()
        self._known = False
        self._next = float("-inf")
        self._less_since: float | None = None

    def now(self) -> datetime:
        """The time, in UTC."""
        return self._zero + timedelta(seconds=self._elapsed()) + self._ahead

    def heard(self, date: str | None) -> None:
        """The head of an answer has arrived, with this date.

        An answer that arrives late shows too early a time, and none shows too late a time. So the clock moves forward
        at once. It moves back only if nothing was known before, or if all answers have shown less for a while.
        """
        moment = self._elapsed()
        if date is None or moment < self._next:
            return
        self._next = moment + _ASK_AGAIN
        shown = _parsed(date)
        if shown is None:
            return
        off = shown + timedelta(seconds=0.5) - self.now()
        if off < -TOLERANCE and self._known:
            self._less_since = moment if self._less_since is None else self._less_since
            if moment < self._less_since + _SURE_AFTER:
                return
        self._known, self._less_since = True, None
        if abs(off) > TOLERANCE:
            self._ahead += off
            metrics.clock_offset.set(self._ahead.total_seconds())
            log.warning(
                "the API server's clock differs from this machine's by %+.0f s; the operator uses the API"
                " server's clock",
                self._ahead.total_seconds(),
            )


def _parsed(date: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(date)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
