"""The safety net: lists everything now and then, and names the runs that have to be looked at.

Watches lose events (a relist tells nobody what was deleted meanwhile); a level-triggered look at the whole
does not. It only makes keys: what is done for a run is decided where it always is.
"""

from __future__ import annotations

from runkeys.naming import LABEL_RUN
from runkeys_operator.errors import NotFound
from runkeys_operator.kube import JOBS, PODS, RUNS, Json, Kube, Resource
from runkeys_operator.reconcile.key import RunKey
from runkeys_operator.reconcile.pods import PodStore

_FINAL = ("Succeeded", "Failed", "Cancelled")


class Sweeper:
    """Lists runs, Jobs and pods in the namespaces that are served; ``()``: in all."""

    def __init__(self, kube: Kube, pods: PodStore, namespaces: tuple[str, ...]) -> None:
        self._kube = kube
        self._pods = pods
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)

    async def sweep(self, known: set[RunKey]) -> set[RunKey]:
        """Runs that have to be looked at: not finished, finished with a Job left, or gone though ``known``."""
        before = self._pods.uids()
        pods = await self._all(PODS, label_selector=LABEL_RUN, field_selector="spec.nodeName!=")
        for pod in pods:
            self._pods.record(pod)
        vanished = self._pods.mark_gone(before - {pod["metadata"]["uid"] for pod in pods})
        jobs = await self._all(JOBS, label_selector=LABEL_RUN)
        with_job = {
            RunKey(job["metadata"]["namespace"], job["metadata"]["labels"][LABEL_RUN]) for job in jobs
        }
        runs: dict[RunKey, Json] = {
            RunKey(run["metadata"]["namespace"], run["metadata"]["name"]): run.get("status") or {}
            for run in await self._all(RUNS)
        }
        wanted = {
            key
            for key, status in runs.items()
            if status.get("phase") not in _FINAL or status.get("live") or key in with_job
        }
        return wanted | (vanished & runs.keys()) | (known - runs.keys())

    async def _all(
        self, resource: Resource, *, label_selector: str = "", field_selector: str = ""
    ) -> list[Json]:
        found: list[Json] = []
        for namespace in self._namespaces:
            try:
                found += await self._kube.list(
                    resource, namespace, label_selector=label_selector, field_selector=field_selector
                )
            except NotFound:
                continue
        return found
