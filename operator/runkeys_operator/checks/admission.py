"""Records when the admission policies were in force. Only objects that were created then are trusted. Pure.

Only administrators of the cluster can change policies, and the API server counts the changes. A policy that was deleted
and created again has another uid, and its generation grows with each change of its spec. If two checks find the same
uids and generations, nothing was different in between, however long that was, and even if no operator ran. If a
generation is one more, there was one change, from the required spec of one version to that of another: an upgrade.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

SETTLES = timedelta(seconds=3)
"""The API server cuts times to whole seconds, looks for new policies a second after it is done with the last ones, and
has to compile them. So they are given two seconds at least."""

_MOST_PERIODS = 16


@dataclass(frozen=True)
class Sighting:
    """A policy or policy binding that is as required, as its metadata identifies it."""

    uid: str
    generation: int
    created: datetime


@dataclass(frozen=True)
class Period:
    """A period in which the policies were in force.

    :ivar end: None: they still are. :ivar namespaces: for which namespaces; empty: for all.
    """

    begin: datetime
    end: datetime | None
    namespaces: tuple[str, ...] = ()

    def covers(self, namespace: str, created: datetime) -> bool:
        """Whether an object with this creationTimestamp (cut to seconds) was created within the period."""
        if self.namespaces and namespace not in self.namespaces:
            return False
        return self.begin <= created and (self.end is None or created + timedelta(seconds=1) <= self.end)


@dataclass(frozen=True)
class Record:
    """The record of when the policies were in force. The operator stores it, since it cannot be found out later.

    :ivar policies: uid and generation of each at the last check that found them in force, by kind and name.
    :ivar seen: when that check was.
    """

    periods: tuple[Period, ...]
    policies: Mapping[str, tuple[str, int]]
    seen: datetime

    def covers(self, namespace: str, created: datetime) -> bool:
        """Whether the policies were in force for the namespace at that time."""
        return any(period.covers(namespace, created) for period in self.periods)

    def since(self, namespace: str) -> datetime | None:
        """Return since when they are in force for the namespace without a break; None if they are not."""
        begins = (
            period.begin
            for period in self.periods
            if period.end is None and (not period.namespaces or namespace in period.namespaces)
        )
        return min(begins, default=None)

    def wire(self) -> str:
        """Return the record as JSON."""
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
        """Return the record that `wire` wrote; None for any other text, so that nothing is known."""
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
                return None  # times without a zone cannot be compared
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
    """Return the record after a check that found all policies in force.

    :param record: the record before; None: there is none.
    :param found: all policies and policy bindings, by kind and name.
    :param namespaces: for which namespaces they are in force; empty: for all.
    :param seen: when the check began. :param now: when it ended.
    """
    policies = {name: (item.uid, item.generation) for name, item in found.items()}
    periods = record.periods if record is not None else ()
    changed = [
        item
        for name, item in found.items()
        if record is None or not _follows(record.policies.get(name), item)
    ]
    # A policy that an upgrade adds was not required before, so it makes no break.
    added = [item for name, item in found.items() if record is not None and name not in record.policies]
    if record is None or len(changed) > len(added):
        upgraded = [item.created for item in changed if item.generation > 1]
        if record is None and upgraded:
            # An earlier version had no record, but checked its policies too: what it trusted is trusted.
            since = max(upgraded)
        elif upgraded or any(item.generation < 1 for item in changed):
            since = now
        else:
            since = max(item.created for item in changed)
        last_seen = record.seen if record is not None else seen
        closed = (item if item.end else replace(item, end=last_seen) for item in periods)
        periods = (*closed, Period(since + SETTLES, None, namespaces))
    elif not any(item.end is None and item.namespaces == namespaces for item in periods):
        # The namespaces have changed: no break for those that stay, and new ones are trusted from now on.
        kept = (item if item.end else _narrowed(item, namespaces) for item in periods)
        periods = (*(item for item in kept if item is not None), Period(now + SETTLES, None, namespaces))
    return Record(periods[-_MOST_PERIODS:], policies, seen)


def _follows(before: tuple[str, int] | None, now: Sighting) -> bool:
    return before is not None and before[0] == now.uid and now.generation - before[1] in (0, 1)


def _narrowed(period: Period, namespaces: tuple[str, ...]) -> Period | None:
    """Return the part of a period that is for these namespaces (empty: all); None if there is none."""
    if not period.namespaces or not namespaces:
        return replace(period, namespaces=period.namespaces or namespaces)
    both = tuple(name for name in period.namespaces if name in namespaces)
    return replace(period, namespaces=both) if both else None


def _text(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment is not None else None
