"""Kill the operator at a chosen request, and start it again as its Deployment would."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from testing.cluster.faults import Action, LoseAnswer, Request, Reset
from testing.cluster.proxy import ApiProxy
from testing.operators import Operator


class When(StrEnum):
    """On which side of the API server's work the operator dies."""

    BEFORE = "before it was forwarded"
    AFTER = "after its answer was lost"


@dataclass(frozen=True)
class Kill:
    """Which request kills the operator.

    :ivar shape: verb and resource, such as ``create secrets``; empty: any request.
    :ivar occurrence: which one of those, 1 for the first.
    """

    when: When
    shape: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.shape or 'request'} #{self.occurrence}, {self.when}"


@dataclass(frozen=True)
class Hit:
    """A kill that took place."""

    kill: Kill
    request: Request

    def __str__(self) -> str:
        return f"{self.kill.when}: {self.request.number} {self.request.verb} {self.request.path}"


def shape(request: Request) -> str:
    """Verb and resource: the request without the names in it."""
    return f"{request.verb} {request.resource or request.path}"


class Killer:
    """Hooks of a proxy that kill ``operator`` at each of ``kills``, one after the other (SIGKILL).

    ``hits`` gets those that took place.
    """

    def __init__(
        self,
        proxy: ApiProxy,
        operator: Operator,
        kills: Sequence[Kill],
        hits: list[Hit],
        *,
        start_again: bool = True,
    ) -> None:
        self.hits = hits
        self._operator = operator
        self._left = list(kills)
        self._start_again = start_again
        self._seen: Counter[str] = Counter()
        self._condemned: Request | None = None
        self._lock = threading.Lock()
        proxy.before_forward, proxy.after_answer = self._before, self._after

    def disarm(self) -> None:
        """Kill nobody any more."""
        with self._lock:
            self._left.clear()

    async def _before(self, request: Request) -> Action | None:
        # "" counts all of them: it is the shape of a kill at any request.
        self._seen.update((shape(request), ""))
        kill = next(iter(self._left), None)
        if (
            kill is None
            or kill.shape not in ("", shape(request))
            or self._seen[kill.shape] != kill.occurrence
            or self._condemned is not None
        ):
            return None
        if kill.when is When.AFTER:
            self._condemned = request
            return None
        await asyncio.to_thread(self._kill, request)
        return Reset()

    async def _after(self, request: Request) -> Action | None:
        if request is not self._condemned:
            return None
        self._condemned = None
        await asyncio.to_thread(self._kill, request)
        return LoseAnswer()

    def _kill(self, request: Request) -> None:
        with self._lock:
            if not self._left:
                return
            self.hits.append(Hit(self._left.pop(0), request))
            self._operator.kill()
            if self._start_again:
                self._operator.start()


_Case = TypeVar("_Case")


def play_side_by_side(
    cases: Sequence[_Case], play: Callable[[_Case, list[Hit]], object], at_once: int
) -> list[Hit]:
    """Play all cases, ``at_once`` at a time, print what each did, and return the kills that took place.

    :raises AssertionError: some of them failed; it tells of each.
    """

    def heard(case: _Case) -> tuple[str, list[Hit], Exception | None]:
        hits: list[Hit] = []
        try:
            play(case, hits)
        except Exception as error:  # noqa: BLE001 -- all cases are heard before the test fails
            return str(case), hits, error
        return str(case), hits, None

    with ThreadPoolExecutor(at_once) as players:
        played = list(players.map(heard, cases))
    for name, hits, error in played:
        print("FAILED" if error else "ok    ", name, "->", "; ".join(map(str, hits)) or "did not come")
    failed = [f"{name}: {error}" for name, _, error in played if error]
    assert not failed, f"{len(failed)} of {len(cases)} cases ended otherwise:\n" + "\n\n".join(failed)
    return [hit for _, hits, _ in played for hit in hits]
