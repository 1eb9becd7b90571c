"""The queue: coalescing, one worker for a key, back-off, drain. All in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys_operator.controllers.workqueue import LONGEST_BACKOFF, ReconcileQueue, Urgency
from runkeys_operator.errors import Conflict, TooManyRequests
from tests.unit.operator import virtual_time

Reconcile = Callable[[str], Awaitable[float | None]]


def play(
    script: Callable[[ReconcileQueue[str]], Coroutine[Any, Any, None]], reconcile: Reconcile, workers: int = 4
) -> None:
    """Run `reconcile` on a queue while `script` happens; then drain."""

    async def main() -> None:
        queue = ReconcileQueue[str]()
        running = asyncio.create_task(queue.run(reconcile, workers))
        await script(queue)
        assert await queue.drain(3600)
        await running

    virtual_time.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


class Worked:
    """A reconcile that notes when it worked on what, and answers as told."""

    def __init__(self, *answers: float | Exception | None, takes: float = 0.0) -> None:
        self.runs: list[tuple[str, float]] = []
        self._answers = list(answers)
        self._takes = takes

    async def __call__(self, key: str) -> float | None:
        self.runs.append((key, now()))
        answer = self._answers.pop(0) if self._answers else None
        await asyncio.sleep(self._takes)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def times(self) -> list[float]:
        return [at for _, at in self.runs]


def test_a_key_added_often_is_worked_on_once() -> None:
    worked = Worked()

    async def script(queue: ReconcileQueue[str]) -> None:
        for _ in range(5):
            queue.add("a")
        assert (queue.waiting, queue.depth, queue.working) == (1, 1, 0)
        await asyncio.sleep(1)
        assert (queue.waiting, queue.depth, queue.working) == (0, 0, 0)

    play(script, worked)
    assert worked.runs == [("a", 0.0)]


def test_the_earliest_time_asked_for_counts() -> None:
    worked = Worked()

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("a", after=10)
        queue.add("a", after=3)
        queue.add("a", after=20)
        assert (queue.waiting, queue.depth) == (1, 0)
        await asyncio.sleep(60)

    play(script, worked)
    assert worked.runs == [("a", 3.0)]


def test_a_later_look_gives_way_to_an_event_and_is_asked_for_anew() -> None:
    worked = Worked(100.0, 100.0)

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(40)
        queue.add("a")
        await asyncio.sleep(300)

    play(script, worked)
    assert worked.times == [0.0, 40.0, 140.0]


def test_keys_are_worked_on_in_the_order_in_which_they_are_due() -> None:
    worked = Worked(takes=0.001)

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("late", after=0.5)
        for key in "cab":
            queue.add(key)
        await asyncio.sleep(1)

    play(script, worked, workers=1)
    assert [key for key, _ in worked.runs] == ["c", "a", "b", "late"]


def test_pods_overtake_news_and_news_all_that_is_due() -> None:
    worked = Worked(takes=1)

    async def script(queue: ReconcileQueue[str]) -> None:
        await asyncio.sleep(1)
        for key in ("first", "b", "c"):
            queue.add(key)
        await asyncio.sleep(0.5)
        queue.add("new", urgency=Urgency.EVENT)
        queue.add("d", urgency=Urgency.EVENT)
        for key in ("c", "d", "first"):
            queue.add(key, urgency=Urgency.PODS)
        await asyncio.sleep(10)

    play(script, worked, workers=1)
    assert [key for key, _ in worked.runs] == ["first", "c", "d", "first", "new", "b"]


def test_no_more_than_the_workers_at_once_and_none_idle() -> None:
    busy, most = 0, 0

    async def reconcile(_: str) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(1)
        busy -= 1

    async def script(queue: ReconcileQueue[str]) -> None:
        for key in range(7):
            queue.add(str(key))
        await asyncio.sleep(0.5)
        assert (queue.working, queue.depth) == (3, 4)
        await asyncio.sleep(2)
        assert (queue.working, queue.depth) == (1, 0)
        await asyncio.sleep(1)

    play(script, reconcile, workers=3)
    assert most == 3


def test_a_key_added_while_worked_on_is_worked_on_again_afterwards() -> None:
    worked = Worked(takes=10)

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(2)
        queue.add("a")
        queue.add("a")
        assert (queue.waiting, queue.depth, queue.working) == (1, 0, 1)
        await asyncio.sleep(60)

    play(script, worked)
    assert worked.times == [0.0, 10.0]


def test_a_key_added_for_later_while_worked_on_waits_its_time() -> None:
    worked = Worked(takes=10)

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(2)
        queue.add("a", after=30)
        await asyncio.sleep(60)

    play(script, worked)
    assert worked.times == [0.0, 32.0]


def test_a_failing_key_backs_off_and_starts_afresh_after_a_success() -> None:
    worked = Worked(*[ValueError()] * 10, None, ValueError())

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(1000)
        assert queue.failing == 0
        queue.add("a")
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert queue.failing == 1
        await asyncio.sleep(1000)

    play(script, worked)
    pauses = [after - before for before, after in zip(worked.times, worked.times[1:], strict=False)]
    for failure, pause in enumerate(pauses[:10]):
        most = min(LONGEST_BACKOFF, 0.2 * 2**failure)
        assert most / 2 <= pause <= most
    assert len(worked.runs) == 13
    assert 0.1 <= pauses[11] <= 0.2


def test_one_failing_key_holds_up_no_other() -> None:
    worked = Worked(*[ValueError()] * 3)

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("bad")
        await asyncio.sleep(0.01)
        queue.add("good")
        await asyncio.sleep(0.01)
        assert worked.runs[-1] == ("good", 0.01)

    play(script, worked, workers=1)


def test_news_interrupt_a_back_off() -> None:
    worked = Worked(*[ValueError()] * 8)

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(13)  # 7 failures take 12.7 s at most, and the 8th pause is at least 6.4 s
        before = len(worked.runs)
        queue.add("a")
        await asyncio.sleep(0.01)
        assert len(worked.runs) == before + 1

    play(script, worked)


def test_the_servers_wish_to_be_left_alone_is_kept_even_on_news() -> None:
    worked = Worked(TooManyRequests(429, retry_after=5.0), takes=1)

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(0.5)
        queue.add("a")  # while it is worked on
        await asyncio.sleep(2)
        queue.add("a")  # while it waits
        await asyncio.sleep(60)

    play(script, worked)
    assert worked.times == [0.0, 6.0]


def test_an_absurd_retry_after_does_not_shelve_a_run() -> None:
    worked = Worked(TooManyRequests(429, retry_after=86400.0))

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(100)

    play(script, worked)
    assert worked.times == [0.0, LONGEST_BACKOFF]


def test_a_cancelled_error_from_inside_is_a_failure_and_loses_no_key() -> None:
    runs = 0

    async def reconcile(_: str) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise asyncio.CancelledError

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(10)

    play(script, reconcile)
    assert runs == 2


def test_drain_finishes_what_is_in_progress_and_drops_the_rest() -> None:
    ended: list[str] = []

    async def reconcile(key: str) -> float:
        await asyncio.sleep(3)
        ended.append(key)
        return 0.0

    async def script(queue: ReconcileQueue[str]) -> None:
        for key in "abcd":
            queue.add(key)
        queue.add("later", after=2)
        await asyncio.sleep(1)
        queue.add("a")
        assert await queue.drain(5)
        queue.add("e")
        assert (queue.waiting, queue.working, now()) == (0, 0, 3.0)

    play(script, reconcile, workers=2)
    assert ended == ["a", "b"]


def test_drain_gives_up_after_its_time() -> None:
    cancelled: list[str] = []

    async def reconcile(key: str) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(key)
            raise

    async def main() -> None:
        queue = ReconcileQueue[str]()
        running = asyncio.create_task(queue.run(reconcile, 2))
        queue.add("a")
        await asyncio.sleep(1)
        assert not await queue.drain(5)
        await running
        assert now() == 6.0

    virtual_time.run(main())
    assert cancelled == ["a"]


def test_cancelling_the_queue_cancels_the_work() -> None:
    worked = Worked(takes=3600)

    async def main() -> None:
        queue = ReconcileQueue[str]()
        running = asyncio.create_task(queue.run(worked, 2))
        queue.add("a")
        await asyncio.sleep(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert queue.working == 0

    virtual_time.run(main())


def test_looks_that_events_overtook_do_not_pile_up() -> None:
    worked = Worked(*[900.0] * 5000)

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("b", after=800)  # in front of them all
        for _ in range(2000):
            queue.add("a")
            await asyncio.sleep(0.01)
        assert queue.waiting == 2
        assert len(queue._heap) < 100
        await asyncio.sleep(1000 - now())

    play(script, worked)
    assert [at for key, at in worked.runs if key == "b"] == [800.0]


def test_a_failure_is_logged_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    worked = Worked(
        ValueError("text that quotes what could not be parsed"), Conflict(409, "Conflict", "was changed")
    )

    async def script(queue: ReconcileQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(10)

    play(script, worked)
    first, second = caplog.records
    assert (first.levelname, second.levelname) == ("ERROR", "WARNING")
    assert "ValueError in __call__" in first.getMessage()
    assert "quotes" not in caplog.text
    assert "was changed" in second.getMessage()
    assert first.__dict__["run"] == "a"


@dataclass
class Journal:
    """Every addition and every start of work, numbered in the order in which they happened."""

    added: list[tuple[int, str, float]] = field(default_factory=list)  # number, key, due
    started: list[tuple[int, str, float]] = field(default_factory=list)  # number, key, time
    number: int = 0
    at_work: Counter[str] = field(default_factory=Counter)

    def next(self) -> int:
        self.number += 1
        return self.number


keys = st.sampled_from("abc")
seconds = st.sampled_from([0.0, 0.0, 0.0, 0.1, 1.0, 7.0])
steps = st.lists(st.tuples(keys, seconds, seconds), max_size=40)  # what to add, for when; then pause
outcomes = st.lists(
    st.tuples(seconds, st.sampled_from([None, None, 0.0, 2.0, "fails", "throttled"])), max_size=60
)


@given(steps, outcomes, st.integers(1, 4))
def test_no_addition_is_lost_and_no_key_has_two_workers(
    steps: list[tuple[str, float, float]], outcomes: list[tuple[float, float | str | None]], workers: int
) -> None:
    journal = Journal()
    remaining = list(outcomes)
    crowded: list[Counter[str]] = []  # an assertion inside the work would only be another failure of it

    async def reconcile(key: str) -> float | None:
        journal.started.append((journal.next(), key, now()))
        journal.at_work[key] += 1
        if journal.at_work[key] > 1 or journal.at_work.total() > workers:
            crowded.append(Counter(journal.at_work))
        takes, answer = remaining.pop(0) if remaining else (0.0, None)
        await asyncio.sleep(takes)
        journal.at_work[key] -= 1
        if answer == "fails":
            raise ValueError
        if answer == "throttled":
            raise TooManyRequests(429, retry_after=3.0)
        return answer if isinstance(answer, float) else None

    async def script(queue: ReconcileQueue[str]) -> None:
        for key, after, pause in steps:
            journal.added.append((journal.next(), key, now() + after))
            queue.add(key, after)
            await asyncio.sleep(pause)
        await asyncio.sleep(3600)
        assert (queue.waiting, queue.working, queue.failing) == (0, 0, 0)

    play(script, reconcile, workers)
    assert not crowded
    for number, key, _ in journal.added:
        assert any(started > number and key == other for started, other, _ in journal.started)
    # Nothing is worked on unless somebody asked for it: an addition, an answer or a failure.
    asked = len(journal.added) + sum(answer is not None for _, answer in outcomes[: len(journal.started)])
    assert len(journal.started) <= asked
    first = {key: min(due for _, other, due in journal.added if other == key) for _, key, _ in journal.added}
    for key, due in first.items():
        assert min(at for _, other, at in journal.started if other == key) >= due
