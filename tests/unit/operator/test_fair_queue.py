"""Whose turn it is: nobody waits for another namespace's thousands. All in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys_operator.controllers.key import Key, Kind
from runkeys_operator.controllers.workqueue import ReconcileQueue, Urgency
from tests.unit.operator import virtual_time

MANY = 3_000
Answer = Callable[[ReconcileQueue[Key], Key], None]


def order(
    keys: list[tuple[Key, Urgency]], seconds: float, *, workers: int = 1, then: Answer | None = None
) -> list[Key]:
    """In which order keys that are due at once are worked on, one a second.

    :param then: what becomes of the queue with each.
    """
    worked: list[Key] = []

    async def main() -> None:
        queue = ReconcileQueue[Key]()

        async def reconcile(key: Key) -> None:
            worked.append(key)
            await asyncio.sleep(1)
            if then is not None:
                then(queue, key)

        for key, urgency in keys:
            queue.add(key, urgency=urgency)
        running = asyncio.create_task(queue.run(reconcile, workers))
        await asyncio.sleep(seconds - 0.5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    virtual_time.run(main())
    return worked


@pytest.mark.parametrize("urgency", Urgency)
def test_namespaces_take_turns(urgency: Urgency) -> None:
    crowd = [(Key(Kind.RUN, "crowd", str(number)), urgency) for number in range(MANY)]
    others = [(Key(Kind.RUN, name, str(number)), urgency) for number in range(2) for name in ("a", "b")]
    worked = order([*crowd, *others], 9)
    assert [f"{key.namespace}/{key.name}" for key in worked] == [
        *("crowd/0", "a/0", "b/0"),
        *("crowd/1", "a/1", "b/1"),
        *("crowd/2", "crowd/3", "crowd/4"),
    ]


@pytest.mark.parametrize("mine", [Urgency.EVENT, Urgency.RESYNC])
@pytest.mark.parametrize("workers", [1, 4])
def test_what_is_less_urgent_waits_for_a_few_turns_of_another_namespace_only(
    mine: Urgency, workers: int
) -> None:
    """Its pods are due again as soon as they have been looked at."""

    def again(queue: ReconcileQueue[Key], key: Key) -> None:
        queue.add(key, urgency=Urgency.PODS)

    crowd = [(Key(Kind.RUN, "crowd", str(number)), Urgency.PODS) for number in range(MANY)]
    worked = order([*crowd, (Key(Kind.RUN, "a", "run"), mine)], 20, workers=workers, then=again)
    assert Key(Kind.RUN, "a", "run") in worked[:8]


def test_what_is_more_urgent_still_goes_first_in_three_turns_of_four() -> None:
    keys: list[tuple[Key, Urgency]] = [
        (Key(Kind.RUN, f"n{number}", "run"), Urgency.RESYNC) for number in range(MANY)
    ]
    keys += [(Key(Kind.RUN, "a", str(number)), Urgency.PODS) for number in range(6)]
    worked = order(keys, 8)
    assert [key.namespace for key in worked].count("a") == 6


def test_in_one_namespace_the_most_urgent_goes_first() -> None:
    keys: list[tuple[Key, Urgency]] = [
        (Key(Kind.RUN, "a", f"old-{number}"), Urgency.RESYNC) for number in range(9)
    ]
    keys += [(Key(Kind.BINDING, "a", "new"), Urgency.EVENT), (Key(Kind.RUN, "a", "old-8"), Urgency.PODS)]
    assert [key.name for key in order(keys, 4)] == ["old-8", "new", "old-0", "old-1"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(0, 20), st.sampled_from(list(Urgency))),
        min_size=1,
        max_size=60,
    )
)
def test_everybody_has_a_turn_before_anybody_has_many(asked: list[tuple[str, int, Urgency]]) -> None:
    keys: dict[Key, Urgency] = {}
    for namespace, name, urgency in asked:
        keys.setdefault(Key(Kind.RUN, namespace, str(name)), urgency)
    worked = order(list(keys.items()), len(keys) + 2)
    assert sorted(worked) == sorted(keys)
    namespaces = {key.namespace for key in keys}
    for namespace in namespaces:
        first = next(index for index, key in enumerate(worked) if key.namespace == namespace)
        assert first < 4 * len(namespaces)
