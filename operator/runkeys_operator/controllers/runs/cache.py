"""The Jobs and pods that watches and answers showed, per run. Caches: good for taking away, never for making."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from runkeys.names import LABEL_RUN
from runkeys.planning.observation import JobView, PodView
from runkeys_operator.controllers.key import Key, Kind

View = TypeVar("View", JobView, PodView)


@dataclass(frozen=True, slots=True)
class _Seen(Generic[View]):
    version: int
    view: View


class Cache(Generic[View]):
    """Objects that carry a run's label, the newest version of each, as ``parse`` reads them."""

    def __init__(self, parse: Callable[[Mapping[str, Any]], View]) -> None:
        self._parse: Callable[[Mapping[str, Any]], View] = parse
        self._runs: dict[Key, dict[str, _Seen[View]]] = {}

    def record(self, raw: Mapping[str, Any], *, deleted: bool = False) -> Key | None:
        """Take in an object from a watch event or an answer; the run that it says it belongs to, if it is news.

        A version older than the one known is ignored: an answer may be overtaken by the watch. No news is
        what differs only in what no plan looks at (addresses, finalizers), as most changes of a pod do.
        """
        metadata = raw["metadata"]
        key = run_of(metadata)
        if key is None:
            return None
        version, uid = int(metadata["resourceVersion"]), metadata["uid"]
        known = self._runs.get(key, {}).get(uid)
        if known is not None and (known.version > version or known.view.gone):
            return None
        view = replace(self._parse(raw), gone=deleted)
        if known is None and deleted:
            return None  # it was never counted on
        if known is not None:
            view = view.after(known.view)
        self._runs.setdefault(key, {})[uid] = _Seen(version, view)
        return key if known is None or known.view != view else None

    def of(self, key: Key) -> tuple[View, ...]:
        """The objects that say they belong to the run, including deleted ones."""
        return tuple(seen.view for seen in self._runs.get(key, {}).values())

    def present(self) -> dict[str, Key]:
        """By uid, what is there as far as is known, and whose it is."""
        return {
            uid: key
            for key, objects in self._runs.items()
            for uid, seen in objects.items()
            if not seen.view.gone
        }

    def has(self, key: Key, uid: str, version: int) -> bool:
        """Whether this object of the run is known in this version, or a newer one."""
        seen = self._runs.get(key, {}).get(uid)
        return seen is not None and seen.version >= version

    def mark_gone(self, uid: str, key: Key) -> bool:
        """Note that it was deleted, which no watch has shown; return whether that is new."""
        seen = self._runs.get(key, {}).get(uid)
        if seen is None or seen.view.gone:
            return False
        self._runs[key][uid] = replace(seen, view=seen.view.vanished())
        return True

    def forget(self, key: Key) -> None:
        """Drop what is known of a run that needs nothing any more."""
        self._runs.pop(key, None)


def run_of(metadata: Mapping[str, Any]) -> Key | None:
    """The run that an object says it belongs to."""
    name = (metadata.get("labels") or {}).get(LABEL_RUN)
    return Key(Kind.RUN, metadata["namespace"], str(name)) if name else None


class OwnedObjects:
    """What runs own, as watches and answers showed it.

    :ivar settled: uids of Jobs that need no look any more, although they are still there for their logs.
    """

    def __init__(self) -> None:
        self.jobs = Cache(JobView.parse)
        self.pods = Cache(PodView.parse)
        self.settled: set[str] = set()

    def forget(self, key: Key) -> None:
        """Drop what is known of a run that needs nothing any more."""
        self.jobs.forget(key)
        self.pods.forget(key)
