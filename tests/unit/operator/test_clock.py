"""The time is the API server's, whatever this machine's clock shows, and however late an answer comes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys_operator.kube.clock import TOLERANCE, ServerClock

HOUR = 3600.0
BEGIN = datetime(2026, 1, 5, 12, 0, 0, tzinfo=UTC)


@dataclass
class Machines:
    """The server's clock, and the operator's, which is ``ahead``."""

    ahead: float = 0.0
    passed: float = 0.0
    clock: ServerClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = ServerClock(lambda: self.server + timedelta(seconds=self.ahead), lambda: self.passed)

    @property
    def server(self) -> datetime:
        return BEGIN + timedelta(seconds=self.passed)

    @property
    def off(self) -> float:
        """Seconds that the operator's time is ahead of the server's."""
        return (self.clock.now() - self.server).total_seconds()

    def answer(self, after: float = 5.0, late: float = 0.0) -> None:
        """After a while an answer comes that was ``late`` seconds under way."""
        self.passed += after
        date = (self.server - timedelta(seconds=late)).replace(microsecond=0)
        self.clock.heard(format_datetime(date, usegmt=True))


@pytest.mark.parametrize("ahead", [-HOUR, -5.0, 5.0, HOUR])
def test_the_first_answer_puts_it_right(ahead: float) -> None:
    machines = Machines(ahead)
    assert machines.off == ahead
    machines.answer()
    assert abs(machines.off) <= 0.5


@given(st.floats(-1.4, 1.4), st.lists(st.tuples(st.floats(0, 30), st.floats(0, 0.05)), max_size=20))
def test_clocks_that_agree_are_left_alone(ahead: float, answers: list[tuple[float, float]]) -> None:
    machines = Machines(ahead)
    for after, late in answers:
        machines.answer(after, late)
        assert machines.off == pytest.approx(ahead, abs=1e-5)


def test_an_answer_that_comes_late_does_not_put_it_back() -> None:
    machines = Machines()
    machines.answer()
    machines.answer(late=14)
    machines.answer(late=14)
    assert abs(machines.off) <= 0.5
    machines.answer()
    machines.answer(late=14)
    assert abs(machines.off) <= 0.5


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_a_machine_whose_clock_is_set_changes_nothing(step: float) -> None:
    machines = Machines()
    machines.answer()
    machines.ahead = step
    machines.answer()
    assert abs(machines.off) <= 0.5


@pytest.mark.parametrize("jump", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_server_whose_clock_is_set_is_followed(jump: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines()
    machines.answer()
    monkeypatch.setattr("tests.unit.operator.test_clock.BEGIN", BEGIN + jump)
    for _ in range(4):
        machines.answer()
    assert abs(machines.off) <= 0.5


@pytest.mark.parametrize("date", [None, "", "yesterday", "Mon, 05 Jan 2026 12:00:00", "\x00", "9" * 5000])
def test_a_date_that_is_none_is_not_believed(date: str | None) -> None:
    machines = Machines(HOUR)
    machines.clock.heard(date)
    assert machines.off == HOUR


def test_it_never_shows_less_than_before_for_a_late_answer() -> None:
    machines = Machines()
    last = machines.clock.now()
    for late in (0.0, 1.0, 3.0, 0.0, 14.0, 0.0):
        machines.answer(1.5, late)
        assert machines.clock.now() > last - TOLERANCE
        last = machines.clock.now()
