"""Since when the policies are in force: what uids and generations show, and what they do not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys_operator.checks.admission import SETTLES, Period, Record, Sighting, looked

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def found(**changes: Sighting) -> dict[str, Sighting]:
    return {"use": Sighting("u1", 1, at(0)), "pods": Sighting("p1", 1, at(0)), **changes}


def look(record: Record | None, seconds: float, policies: dict[str, Sighting], *namespaces: str) -> Record:
    return looked(record, policies, namespaces, at(seconds), at(seconds + 1))


def believed(record: Record, *seconds: float, namespace: str = "a") -> list[bool]:
    return [record.covers(namespace, at(moment)) for moment in seconds]


FIRST = look(None, 100, found())


def test_new_policies_count_from_when_they_were_made_and_the_server_goes_by_them() -> None:
    assert timedelta(seconds=3) == SETTLES
    assert believed(FIRST, 0, 1, 2, 3, 99, 5000) == [False, False, False, True, True, True]


def test_after_an_upgrade_from_a_version_that_kept_nothing_what_that_one_believed_is_believed() -> None:
    """It demanded the policies as well: those that were changed, and not the one that the upgrade added."""
    record = look(None, 100, found(use=Sighting("u1", 2, at(10)), more=Sighting("m1", 1, at(99))))
    assert believed(record, 12, 13, 50) == [False, True, True]


def test_the_same_policies_at_two_looks_were_there_in_between_however_long_that_was() -> None:
    record = look(FIRST, 100_000, found())
    assert believed(record, 3, 50_000, 99_999) == [True, True, True]
    assert record.periods == FIRST.periods


@pytest.mark.parametrize(
    ("again", "begins"),
    [
        (Sighting("u2", 1, at(150)), 153),  # deleted, and made again
        (Sighting("u1", 3, at(0)), 204),  # changed, and changed back
        (Sighting("u2", 2, at(150)), 204),  # made again otherwise, then mended
        (Sighting("u1", 0, at(0)), 204),  # a backup of etcd from before
    ],
)
def test_a_break_ends_at_the_last_look_and_what_is_made_in_it_is_not_believed(
    again: Sighting, begins: int
) -> None:
    record = look(look(FIRST, 120, found()), 200 + 1, found(use=again))
    begins = begins if begins == 153 else 205
    assert believed(record, 3, 119, 120, 130, begins - 1, begins) == [True, True, False, False, False, True]


def test_one_change_from_what_was_in_force_to_what_is_makes_no_break() -> None:
    """An upgrade: it was either what the last version demanded or what this one does."""
    record = look(FIRST, 200, found(use=Sighting("u1", 2, at(0)), pods=Sighting("p1", 2, at(0))))
    assert record.periods == FIRST.periods


def test_a_policy_that_an_upgrade_adds_or_takes_away_makes_no_break() -> None:
    record = look(FIRST, 200, found(more=Sighting("m1", 1, at(150))))
    assert record.periods == FIRST.periods
    assert look(record, 300, found()).periods == FIRST.periods
    # but if it comes together with a break, that is what counts
    broken = look(FIRST, 200, found(use=Sighting("u2", 1, at(150)), more=Sighting("m1", 1, at(160))))
    assert believed(broken, 162, 163) == [False, True]


def test_a_namespace_that_is_served_later_is_believed_from_then_on_and_the_others_go_on() -> None:
    first = look(None, 100, found(), "a", "b")
    record = look(first, 200, found(), "a", "c")
    assert believed(record, 50, 150, 250) == [True, True, True]
    assert believed(record, 50, 203, 204, namespace="c") == [False, False, True]
    assert believed(record, 50, 250, namespace="b") == [False, False]
    everywhere = look(record, 300, found())
    assert believed(everywhere, 50, 250, 350) == [True, True, True]
    assert believed(everywhere, 250, 301, 304, namespace="b") == [False, False, True]


def test_what_is_kept_is_read_again_and_anything_else_is_nothing() -> None:
    record = look(look(FIRST, 200, found(use=Sighting("u2", 1, at(150))), "a"), 300, found(), "a")
    assert Record.parse(record.wire()) == record
    for text in ("", "{}", "[]", "1", '{"periods":[],"policies":{},"seen":"2026-01-01"}', "[" * 100_000):
        assert Record.parse(text) is None


@given(st.lists(st.sampled_from(["look", "delete", "change"]), max_size=30))
def test_whatever_happens_nothing_that_was_made_while_they_were_away_is_believed(events: list[str]) -> None:
    """Policies go for ten seconds, in one of the two ways, and come back."""
    use, record, now, away = Sighting("u", 1, at(0)), look(None, 10, found()), 20.0, []
    use = found()["use"]
    for number, event in enumerate(events):
        if event == "look":
            record = look(record, now, found(use=use))
        else:
            away += [now, now + 5, now + 10]
            now += 10
            use = (
                Sighting(f"u{number}-again", 1, at(now))
                if event == "delete"
                else Sighting(use.uid, use.generation + 2, use.created)
            )
        now += 10
    record = look(record, now, found(use=use))
    assert not any(believed(record, *away))
    assert all(isinstance(period, Period) for period in record.periods)
    assert len(record.periods) <= 16
