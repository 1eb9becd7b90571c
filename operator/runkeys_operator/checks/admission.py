"""When the admission policies were in force, so that what was made meanwhile is known from what was not. Pure.

Only whoever administers the cluster can change policies, and the API server keeps count: a policy has another uid after
it was deleted and made again, and its generation grows with each change of its spec. So two looks that find the same
uids and generations show that nothing was otherwise in between, however long that was, whoever was away. A generation
that is one more was one change, from what was in force to what is: an upgrade.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

SETTLES = timedelta(seconds=2)
"""The API server goes by new policies after up to a second, and tells times in whole seconds."""

_MOST_PERIODS = 16


@dataclass(frozen=True)
class Sighting:
    """A policy, or its binding, that is as required."""

    uid: str
    generation: int
    created: datetime


@dataclass(frozen=True)
class Period:
    """A period in which the policies were in force.

    :ivar end: None: they are. :ivar namespaces: for which; none: for all.
    """

    begin: datetime
    end: datetime | None
    namespaces: tuple[str, ...] = ()

    def covers(self, namespace: str, created: datetime) -> bool:
        """Whether something was admitted in it that has this creationTimestamp, which is cut to seconds."""
        if self.namespaces and namespace not in self.namespaces:
            return False
        return self.begin <= created and (self.end is None or created + timedelta(seconds=1) <= self.end)


@dataclass(frozen=True)
class Record:
    """The record of when they were in force. The operator keeps it, since nobody can be asked later.

    :ivar policies: uid and generation of each, at the last look that found them in force. :ivar seen: when that was.
    """

    periods: tuple[Period, ...]
    policies: Mapping[str, tuple[str, int]]
    seen: datetime

    def covers(self, namespace: str, created: datetime) -> bool:
        """Whether the policies were in force for the namespace at that time."""
        return any(period.covers(namespace, created) for period in self.periods)

    def since(self, namespace: str) -> datetime | None:
        """Since when they are in force for it without a break."""
        begins = (
            period.begin
            for period in self.periods
            if period.end is None and (not period.namespaces or namespace in period.namespaces)
        )
        return min(begins, default=None)

    def wire(self) -> str:
        """As JSON."""
        periods = [
            {"begin": _text(item.begin), "end": _text(item.end), "namespaces": list(item.namespaces)}
            for item in self.periods
        ]
        return json.dumps(
            {"periods": periods, "policies": dict(self.policies), "seen": _text(self.seen)},
            separators=(",", ":"),
        )

    @classmethod
    def parse(cls, text: str) -> Record | None:
        """What `wire` wrote; None for anything else: then nothing is known."""
        try:
            raw = json.loads(text)
            periods = tuple(
                Period(
                    datetime.fromisoformat(item["begin"]),
                    datetime.fromisoformat(item["end"]) if item["end"] else None,
                    tuple(str(name) for name in item["namespaces"]),
                )
                for item in raw["periods"]
            )
            policies = {
                str(name): (str(uid), int(generation)) for name, (uid, generation) in raw["policies"].items()
            }
            record = cls(periods, policies, datetime.fromisoformat(raw["seen"]))
            moments = [record.seen, *(at for item in periods for at in (item.begin, item.end) if at)]
            if any(at.tzinfo is None for at in moments):
                return None  # such cannot be compared
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return record


def looked(
    record: Record | None,
    found: Mapping[str, Sighting],
    namespaces: tuple[str, ...],
    seen: datetime,
    now: datetime,
) -> Record:
    """What is known after a look that found all policies in force.

    :param namespaces: for which they are; none: for all. :param seen: when the look began. :param now: and ended.
    """
    policies = {name: (item.uid, item.generation) for name, item in found.items()}
    periods = record.periods if record is not None else ()
    changed = [
        item
        for name, item in found.items()
        if record is None or not _follows(record.policies.get(name), item)
    ]
    # One that an upgrade adds was not demanded before: what was admitted until then goes on.
    added = [item for name, item in found.items() if record is not None and name not in record.policies]
    if record is None or len(changed) > len(added):
        upgraded = [item.created for item in changed if item.generation > 1]
        if record is None and upgraded:
            # An earlier version kept nothing, and looked at its policies as well: what it believed is believed.
            since = max(upgraded)
        elif upgraded or any(item.generation < 1 for item in changed):
            since = now
        else:
            since = max(item.created for item in changed)
        last_seen = record.seen if record is not None else seen
        closed = (item if item.end else replace(item, end=last_seen) for item in periods)
        periods = (*closed, Period(since + SETTLES, None, namespaces))
    elif not any(item.end is None and item.namespaces == namespaces for item in periods):
        # For other namespaces than before: without a break for those that stay, from now on for those that are new.
        kept = (item if item.end else _narrowed(item, namespaces) for item in periods)
        periods = (*(item for item in kept if item is not None), Period(now + SETTLES, None, namespaces))
    return Record(periods[-_MOST_PERIODS:], policies, seen)


def _follows(before: tuple[str, int] | None, now: Sighting) -> bool:
    return before is not None and before[0] == now.uid and now.generation - before[1] in (0, 1)


def _narrowed(period: Period, namespaces: tuple[str, ...]) -> Period | None:
    """The part of a period that is for some namespaces, where none means all; None: there is no such part."""
    if not period.namespaces or not namespaces:
        return replace(period, namespaces=period.namespaces or namespaces)
    both = tuple(name for name in period.namespaces if name in namespaces)
    return replace(period, namespaces=both) if both else None


def _text(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment is not None else None
