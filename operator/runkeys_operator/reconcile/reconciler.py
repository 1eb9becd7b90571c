"""One pass over one run: observe, plan, act, and plan again until nothing is left to do."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from runkeys.actions import DeleteSecret
from runkeys.api import WorkflowRun
from runkeys.naming import LABEL_RUN
from runkeys.observation import JobState, JobView, Memory, Observation
from runkeys.plan import plan, plan_farewell
from runkeys.status import finished
from runkeys_operator.errors import Conflict
from runkeys_operator.kube import RUNS, Kube
from runkeys_operator.reconcile.apply import Applier, utc_now
from runkeys_operator.reconcile.bindings import BindingReconciler
from runkeys_operator.reconcile.key import BindingKey, Key, RunKey
from runkeys_operator.reconcile.observe import UnreadableRunError, observe, read_run
from runkeys_operator.reconcile.pods import PodStore
from runkeys_operator.reconcile.queue import ReconcileQueue
from runkeys_operator.reconcile.sweep import Sweeper

log = logging.getLogger(__name__)

_MOST_STEPS = 20
"""More rounds than any run needs in one pass; a plan that does not settle is a defect, and waits its turn."""


class Reconciler:
    """Takes in what the watch shows and brings runs forward, each by its key."""

    def __init__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        namespaces: tuple[str, ...] = (),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._kube = kube
        self._queue = queue
        self._now = clock
        self._applier = Applier(kube, clock)
        self._bindings = BindingReconciler(kube, clock)
        self._pods = PodStore()
        self._last: dict[RunKey, Observation] = {}
        self._users: dict[RunKey, set[RunKey]] = defaultdict(set)
        self._sweeper = Sweeper(kube, self._pods, namespaces)

    # what the watch shows

    def saw_run(self, event: Mapping[str, Any]) -> None:
        """A WorkflowRun was added, changed or deleted. Its status is no news: nobody else writes that."""
        key, last = _key(event["object"]), self._last.get(_key(event["object"]))
        if last is None or event.get("type") == "DELETED" or _differs(last.run, event["object"]["metadata"]):
            self._queue.add(key)

    def saw_binding(self, event: Mapping[str, Any]) -> None:
        """A SecretBinding was added, changed or deleted: its runs may go on, or may not."""
        key = _key(event["object"])
        self._queue.add(BindingKey(*key))
        for run in self._users.get(key, set()).copy():
            self._queue.add(run)

    def saw_pod(self, event: Mapping[str, Any]) -> None:
        """A pod with a run's label and a node was added, changed or deleted.

        A pod may wait for its Secret, or a Secret for the end of its pod: runs that begin can wait for both.
        """
        key = self._pods.record(event["object"], deleted=event.get("type") == "DELETED")
        if key is not None:
            self._queue.add(key, ahead=True)

    def saw_job(self, event: Mapping[str, Any]) -> None:
        """A Job with a run's label was added, changed or deleted; while it is active its pod has all the news."""
        job, metadata = JobView.parse(event["object"]), event["object"]["metadata"]
        if job.state is not JobState.ACTIVE or job.deleting or event.get("type") == "DELETED":
            self._queue.add(RunKey(metadata["namespace"], metadata["labels"][LABEL_RUN]))

    async def sweep(self) -> None:
        """Look at everything once, for what the watch did not show."""
        for key in await self._sweeper.sweep(set(self._last)):
            self._queue.add(key)

    # one pass

    async def reconcile(self, key: Key) -> float | None:
        """Bring it as far as it goes now; seconds until it has to be looked at even if nothing happens."""
        try:
            return await (
                self._bindings.reconcile(key) if isinstance(key, BindingKey) else self._reconcile_run(key)
            )
        except Conflict:
            return 0.0  # it changed under our hands: read it again

    async def _reconcile_run(self, key: RunKey) -> float | None:
        await self._release_at_once(key)
        try:
            run = await read_run(self._kube, key)
        except UnreadableRunError as error:
            await self._report_unreadable(key, error)
            return None
        last = self._last.get(key)
        if last is not None and (run is None or run.metadata.uid != last.run.metadata.uid):
            await self._farewell(key, last)
            last = None
        if run is None:
            return None
        memory = last.memory if last is not None else Memory()
        obs = await observe(self._kube, run, self._pods.of(key), memory)
        self._remember_bindings(key, obs)
        look_again = await self._advance(key, obs)
        self._forget_if_settled(key, look_again)
        return look_again

    async def _advance(self, key: RunKey, obs: Observation) -> float | None:
        for _ in range(_MOST_STEPS):
            step = plan(obs, self._now())
            since = (obs.memory.stale_since or self._now()) if step.stale else None
            obs = replace(obs, memory=replace(obs.memory, stale_since=since))
            self._last[key] = obs
            if not step.actions:
                return step.look_again
            for action in step.actions:
                # kept at once: if the next action fails, what this one achieved must not be forgotten
                self._last[key] = obs = await self._applier.apply(action, obs)
        raise RuntimeError(f"the plan for {key} does not settle")

    async def _release_at_once(self, key: RunKey) -> None:
        """Delete Secrets whose pods have ended, before anything is read.

        That a pod ended never becomes untrue, and its Job's uid was checked when the Secret was made, so
        the observation of last time is good enough, and a slow read cannot keep a value in the cluster.
        """
        last = self._last.get(key)
        if last is None or finished(last.run.status):
            return
        obs = replace(last, pods=self._pods.of(key))
        for action in plan(obs, self._now()).actions:
            if isinstance(action, DeleteSecret):
                self._last[key] = obs = await self._applier.apply(action, obs)

    async def _farewell(self, key: RunKey, last: Observation) -> None:
        """The run is gone: so must be what it had, without waiting for Kubernetes to collect it."""
        for action in plan_farewell(last).actions:
            self._last[key] = last = await self._applier.apply(action, last)
        self._forget(key)

    async def _report_unreadable(self, key: RunKey, error: UnreadableRunError) -> None:
        log.error("%s", error, extra={"run": str(key)})
        condition = {
            "type": "Stalled",
            "status": "True",
            "reason": "Invalid",
            "message": f"this version of Runkeys cannot read the run: {error.where}",
            "lastTransitionTime": self._now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "observedGeneration": error.generation,
        }
        status = {"observedGeneration": error.generation, "conditions": [condition]}
        await self._kube.patch_status(
            RUNS, key.namespace, key.name, status, resource_version=error.resource_version
        )

    # what is remembered

    def _remember_bindings(self, key: RunKey, obs: Observation) -> None:
        for reference in obs.run.spec.bindings:
            self._users[RunKey(key.namespace, reference.name)].add(key)

    def _forget_if_settled(self, key: RunKey, look_again: float | None) -> None:
        last = self._last.get(key)
        if last is None or not finished(last.run.status):
            return
        self._drop_bindings(key, last)
        if look_again is None and not last.jobs:
            self._last.pop(key, None)
            self._pods.forget(key)

    def _forget(self, key: RunKey) -> None:
        last = self._last.pop(key, None)
        if last is not None:
            self._drop_bindings(key, last)
        self._pods.forget(key)

    def _drop_bindings(self, key: RunKey, obs: Observation) -> None:
        for reference in obs.run.spec.bindings:
            binding = RunKey(key.namespace, reference.name)
            self._users[binding].discard(key)
            if not self._users[binding]:
                del self._users[binding]


def _key(raw: Mapping[str, Any]) -> RunKey:
    return RunKey(raw["metadata"]["namespace"], raw["metadata"]["name"])


def _differs(run: WorkflowRun, metadata: Mapping[str, Any]) -> bool:
    """Whether this is another run, or another version of what people ask of it; the status is not looked at."""
    known = run.metadata
    return (
        (known.uid, known.generation) != (metadata["uid"], metadata["generation"])
        or known.labels != (metadata.get("labels") or {})
        or (known.deletion_timestamp is None) != ("deletionTimestamp" not in metadata)
    )
