"""The pods that the watch showed, per run. A cache: it says when to look, never who may have a secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from runkeys.naming import LABEL_RUN
from runkeys.observation import PodView
from runkeys_operator.reconcile.key import RunKey


@dataclass(frozen=True)
class _Seen:
    version: int
    view: PodView


class PodStore:
    """Pods that carry a run's label and have a node, newest version of each."""

    def __init__(self) -> None:
        self._pods: dict[RunKey, dict[str, _Seen]] = {}

    def record(self, raw: Mapping[str, Any], *, deleted: bool = False) -> RunKey | None:
        """Take in a pod from a watch event or a list; the run that it says it belongs to, if that is news for it.

        A version older than the one known is ignored: a list may be overtaken by the watch. So is one that
        differs only in what no plan looks at (addresses, finalizers): most changes of a pod are such.
        """
        metadata = raw["metadata"]
        run = (metadata.get("labels") or {}).get(LABEL_RUN)
        if not run:
            return None
        key = RunKey(metadata["namespace"], run)
        version, uid = int(metadata["resourceVersion"]), metadata["uid"]
        pods = self._pods.setdefault(key, {})
        known = pods.get(uid)
        if known is not None and known.version > version:
            return None
        view = replace(PodView.parse(raw), gone=deleted)
        pods[uid] = _Seen(version, view)
        return key if known is None or known.view != view else None

    def of(self, key: RunKey) -> tuple[PodView, ...]:
        """The pods that say they belong to the run."""
        return tuple(seen.view for seen in self._pods.get(key, {}).values())

    def uids(self) -> set[str]:
        """The uids of all pods that are known to exist."""
        return {uid for pods in self._pods.values() for uid, seen in pods.items() if not seen.view.gone}

    def mark_gone(self, uids: Iterable[str]) -> set[RunKey]:
        """Pods whose deletion nobody told us of; the runs they belong to."""
        wanted, touched = set(uids), set()
        for key, pods in self._pods.items():
            for uid in pods.keys() & wanted:
                pods[uid] = replace(pods[uid], view=replace(pods[uid].view, gone=True))
                touched.add(key)
        return touched

    def forget(self, key: RunKey) -> None:
        """Drop what is known of a run that needs nothing any more."""
        self._pods.pop(key, None)
