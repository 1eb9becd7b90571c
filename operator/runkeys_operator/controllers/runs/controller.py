"""One pass over one run: observe, plan, act, and plan again until nothing is left to do."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from runkeys.api import WorkflowRun
from runkeys.planning.actions import Action, DeleteSecret, DropFinalizer, PatchStatus, Plan, Refresh
from runkeys.planning.defect import plan_after_defect
from runkeys.planning.leases import pending
from runkeys.planning.memory import Memory, note_staleness, was_refused
from runkeys.planning.observation import JobState, JobView, Observation, job_uid_of
from runkeys.planning.plan import plan, plan_deletion
from runkeys.planning.pod_template import containers
from runkeys.planning.refusal import Reason
from runkeys_operator.controllers.certificates import CertificateRequests
from runkeys_operator.controllers.key import Key, Kind
from runkeys_operator.controllers.reading import UnreadableError, report_unreadable
from runkeys_operator.controllers.runs.cache import OwnedObjects
from runkeys_operator.controllers.runs.defect import what_happened
from runkeys_operator.controllers.runs.executor import Executor
from runkeys_operator.controllers.runs.observer import Observer
from runkeys_operator.controllers.runs.record import Record, awaited
from runkeys_operator.controllers.runs.resync import Resync
from runkeys_operator.controllers.workqueue import ReconcileQueue, Urgency
from runkeys_operator.errors import ApiError, LeaseLostError, LoginError
from runkeys_operator.kube import RUNS, Json, Kube
from runkeys_operator.process import metrics

log = logging.getLogger(__name__)

_MOST_STEPS, _STEPS_A_TASK = 20, 6
"""More rounds than any run needs in one pass. A plan that does not settle is a defect, and waits its turn."""

_PARTS_AT_ONCE = 64
"""Tasks, secrets, inputs and containers of a run that is planned in the event loop, in a few milliseconds at most."""

EXPIRIES_EVERY = timedelta(minutes=10)
"""Interval of the lists of finished runs that expire. Runs that expire within it get a timer; later ones are not
remembered, so that they cost nothing until then."""


_EXPIRIES_LATE = timedelta(minutes=2)
"""How late the next such list may be: it follows a successful resync."""


class RunController:
    """Takes in watch events of runs and of the objects they own, and reconciles runs, each by its key."""

    def __init__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        owned: OwnedObjects,
        requests: CertificateRequests,
        observer: Observer,
        applier: Executor,
        sweeper: Resync,
        clock: Callable[[], datetime],
    ) -> None:
        self._kube = kube
        self._queue = queue
        self._owned = owned
        self._requests = requests
        self._observer = observer
        self._applier = applier
        self._resync = sweeper
        self._now = clock
        self._last: dict[Key, Record] = {}
        # Runs that were changed, or may have been, since they were read.
        self._unread: set[Key] = set()
        # Uids of runs whose final status is being or was just written: with it they leave the watch's selection.
        self._leaving: set[str] = set()
        # By namespace and name of a binding, or `of_owner`, the runs that wait for it.
        self._users: dict[tuple[str, str], set[Key]] = defaultdict(set)
        self._expiries_due: datetime | None = None

    # what the watch shows

    def on_event(self, event: Json) -> None:
        """An unfinished WorkflowRun was added, changed or deleted, or it has finished and so left the watch.

        A change of its status is ignored, since nobody else writes it.
        """
        metadata, kind = event["object"]["metadata"], event.get("type")
        key = Key.of(Kind.RUN, metadata)
        last = self._last.get(key)
        if kind == "DELETED":
            if metadata["uid"] in self._leaving:
                self._leaving.discard(metadata["uid"])
            elif self._queue.is_worked_on(key) if last is None else not last.finished:
                self._read_anew(key, Urgency.EVENT)
        elif last is None or last.differs(
            metadata["uid"],
            metadata["generation"],
            metadata.get("labels") or {},
            deleting="deletionTimestamp" in metadata,
        ):
            self._read_anew(key, Urgency.RESYNC if kind is None else Urgency.EVENT)

    def binding_changed(self, namespace: str, binding: str) -> None:
        """A binding, by name or `of_owner`, is another than before: the runs that name it may go on, or may not."""
        for run in self._users.get((namespace, binding), set()).copy():
            self._queue.add(run)

    def pod_asks(self, key: Key) -> None:
        """A pod of the run asks for its values."""
        if key not in self._last:
            self._unread.add(key)
        self._queue.add(key, urgency=Urgency.PODS)

    def on_pod_event(self, event: Json) -> None:
        """A pod with a run's label and a node was added, changed or deleted.

        A pod may wait for its Secret, or a Secret for the end of its pod: runs that begin can wait for both.
        """
        raw = event["object"]
        uid, deleted = job_uid_of(raw["metadata"]), event.get("type") == "DELETED"
        if uid in self._owned.settled:
            return
        key = self._owned.pods.record(raw, deleted=deleted)
        if key is not None:
            over = deleted or _has_ended(raw.get("status") or {})
            (metrics.ended if over else metrics.bound).note(uid)
            if over:
                metrics.leased.note(uid)
            self._queue.add(key, urgency=Urgency.PODS)

    def on_job_event(self, event: Json) -> None:
        """A Job with a run's label was added, changed or deleted; while it is active its pod has all the news."""
        raw = event["object"]
        uid, deleted = raw["metadata"]["uid"], event.get("type") == "DELETED"
        if uid in self._owned.settled:
            if deleted:
                self._owned.settled.discard(uid)
            return
        key = self._owned.jobs.record(raw, deleted=deleted)
        if key is None:
            return
        job = next(job for job in self._owned.jobs.of(key) if job.uid == uid)
        if job.state is not JobState.ACTIVE or job.deleting or job.gone or job.suspended:
            self._queue.add(key, urgency=Urgency.EVENT)

    def policies_restored(self) -> None:
        """The admission policies are in force again: runs that were refused for want of them go on."""
        for key, last in self._last.items():
            if self._queue.is_worked_on(key) or was_refused(last.memory, Reason.POLICIES_MISSING):
                self._queue.add(key, urgency=Urgency.EVENT)

    async def resync(self) -> None:
        """Look at everything that is open once, for what the watches did not show."""
        left = set(self._leaving)
        found = await self._resync.resync(self._last)
        self._leaving -= left  # a watch that was broken then tells nobody of their leaving
        for key in found.read:
            self._read_anew(key, Urgency.RESYNC)
        for key in found.look:
            self._queue.add(key)

    async def expire(self) -> None:
        """Now and then, see which finished runs are at the end of their time to live."""
        now = self._now()
        if self._expiries_due is not None and now < self._expiries_due:
            return
        async for key, seconds in self._resync.expiring(now, EXPIRIES_EVERY + _EXPIRIES_LATE):
            self._queue.add(key, seconds)
        self._expiries_due = now + EXPIRIES_EVERY

    # one pass

    async def reconcile(self, key: Key) -> float | None:
        """Reconcile it; return seconds until the next look even if nothing happens."""
        try:
            return await self._reconcile(key)
        except Exception:
            self._invalidate(key)  # the effect of the failed request is unknown
            raise
        finally:
            if (record := self._last.get(key)) is not None:
                record.pack()

    async def _reconcile(self, key: Key) -> float | None:
        last = self._last.get(key)
        if last is not None and key not in self._unread and not last.finished:
            obs: Observation | None = self._observer.remembered(key, last)
        else:
            await self._release_at_once(key)
            try:
                obs = await self._read(key)
            except UnreadableError as error:
                await self._report_unreadable(key, error)
                return None
        step = await self._advance(key, obs) if obs is not None else None
        if step is None:
            return None
        if not step.settled:
            return step.look_again
        self._settle(key)
        far = EXPIRIES_EVERY.total_seconds()
        return step.look_again if step.look_again is not None and step.look_again <= far else None

    async def _read(self, key: Key, before: WorkflowRun | None = None) -> Observation | None:
        """Everything about the run, read by name; None if it is gone, and then what it had goes too.

        :param before: the run as it was known, by which its bindings can be asked for at the same time.
        """
        self._unread.discard(key)
        shown = self._owned.jobs.of(
            key
        )  # before the run is read: only then are those of another one left behind
        run, bindings = await self._observer.run(key, before)
        last = self._last.get(key)
        if last is not None and (run is None or run.metadata.uid != last.uid):
            await self._run_is_gone(key, last)
            last = None
        else:
            await self._clean_up(
                key, [job for job in shown if run is None or job.run_uid != run.metadata.uid]
            )
        if run is None:
            self._forget(key)
            return None
        obs = await self._observer.read(key, run, last.memory if last is not None else Memory(), bindings)
        for name in awaited(obs):
            self._users[(key.namespace, name)].add(key)
        return obs

    async def _advance(self, key: Key, obs: Observation) -> Plan | None:
        """Plan and act until nothing is left to do, and return the last plan; None if the run is gone.

        An exception that no request explains is a defect. It would come again in each pass, so the run says so; the
        next pass is due after a back-off, as after each failure.
        """
        try:
            return await self._carry_out(key, obs)
        except (ApiError, LeaseLostError, LoginError, UnreadableError):
            raise
        except Exception as error:
            await self._after_defect(key, error)
            raise

    async def _after_defect(self, key: Key, error: Exception, *, only_release: bool = False) -> None:
        """Delete the Secrets of a run whose planning raised ``error``, and say so in its status."""
        if (last := self._last.get(key)) is None:
            return
        obs = self._observer.remembered(key, last)
        for _ in range(_MOST_STEPS):
            if obs.run.metadata.deletion_timestamp is not None:
                step = plan_deletion(obs, self._now())
            else:
                step = plan_after_defect(obs, self._now(), what_happened(error))
            if not step.actions or (only_release and step.status is not None):
                return
            obs = await self._apply(key, step.actions, obs)
            if step.status is not None:
                return

    async def _carry_out(self, key: Key, obs: Observation) -> Plan | None:
        for _ in range(_MOST_STEPS + _STEPS_A_TASK * len(obs.run.spec.tasks)):
            self._remember(key, obs)  # also if planning raises
            step = await self._plan(obs)
            if step.status is not None:
                obs = replace(obs, memory=note_staleness(obs.memory, self._now(), stale=step.stale))
            self._remember(key, obs)
            if not step.actions:
                if step.settled and self._observer.knows_more(key, obs):
                    return replace(step, settled=False, look_again=0.0)
                return step
            if step.actions == (Refresh(),):
                fresh = await self._read(key, obs.run)
                if fresh is None:
                    return None
                obs = fresh
                continue
            if any(isinstance(action, PatchStatus) and action.status.finished for action in step.actions):
                self._leaving.add(obs.run.metadata.uid)
            obs = await self._apply(key, step.actions, obs)
        raise RuntimeError(f"the plan for {key} does not settle")

    async def _plan(self, obs: Observation) -> Plan:
        """Plan; a run for which that takes long keeps neither the lease nor the probes nor other runs waiting."""
        now = self._now()
        parts = sum(
            1 + len(task.secrets) + len(task.input) + len(containers(task.template))
            for task in obs.run.spec.tasks
        )
        return plan(obs, now) if parts <= _PARTS_AT_ONCE else await asyncio.to_thread(plan, obs, now)

    async def _apply(self, key: Key, actions: Iterable[Action], obs: Observation) -> Observation:
        """Act, and remember at once: if one action fails, what others achieved must not be forgotten."""
        async for known in self._applier.apply(actions, obs):
            obs = known
            self._remember(key, obs)
        return obs

    async def _release_at_once(self, key: Key) -> None:
        """Delete Secrets whose pods have ended, before anything is read.

        That a pod ended never becomes untrue, and its Job's uid was checked when the Secret was made, so
        the observation of last time is good enough, and a slow read cannot keep a value in the cluster.
        """
        last = self._last.get(key)
        if last is None or last.finished:
            return
        obs = self._observer.remembered(key, last)
        try:
            actions = plan(obs, self._now()).actions
        except Exception as error:  # noqa: BLE001 -- the pass that follows reports it
            await self._after_defect(key, error, only_release=True)
            return
        await self._apply(key, [item for item in actions if isinstance(item, DeleteSecret)], obs)

    async def _run_is_gone(self, key: Key, last: Record) -> None:
        """The run is gone: delete what it had, without waiting for Kubernetes to collect it."""
        obs = self._observer.remembered(key, last)
        actions = plan_deletion(obs, self._now()).actions
        # Nothing is left to write to.
        await self._apply(
            key, [item for item in actions if not isinstance(item, PatchStatus | DropFinalizer)], obs
        )
        self._forget(key)

    async def _clean_up(self, key: Key, jobs: Iterable[JobView]) -> None:
        """The same of a run that this process never knew: its Jobs were left behind while there was no operator."""
        left = [job for job in jobs if job.run_uid and not job.deleting and not job.gone]
        if not left:
            return
        names = ", ".join(sorted(job.name for job in left))
        log.warning("deleted, because its run no longer exists: %s", names, extra={"run": str(key)})
        obs = self._observer.left_behind(key, left)
        async for _ in self._applier.apply(plan_deletion(obs, self._now()).actions, obs):
            pass

    async def _report_unreadable(self, key: Key, error: UnreadableError) -> None:
        log.error("the run: %s", error, extra={"run": str(key)})
        await report_unreadable(self._kube, RUNS, key, error, self._now())

    # what is remembered

    def _settle(self, key: Key) -> None:
        """The run needs nothing any more: remember only which Jobs, left for their logs, are of no interest."""
        last = self._last.get(key)
        if last is not None:
            run = last.observation().run
            recorded = {attempt.job_uid for task in run.status.tasks for attempt in task.attempts}
            present = {job.uid for job in self._owned.jobs.of(key) if not job.gone}
            self._owned.settled |= recorded | present
        self._forget(key)

    def _forget(self, key: Key) -> None:
        last = self._last.pop(key, None)
        metrics.live.set(key, 0)
        metrics.overdue.set(key, 0)
        metrics.leases.set(key, 0)
        metrics.pending.set(key, 0)
        self._requests.forget(pod.uid for pod in self._owned.pods.of(key))
        self._owned.forget(key)
        self._unread.discard(key)
        for name in last.awaited if last is not None else ():
            binding = (key.namespace, name)
            self._users[binding].discard(key)
            if not self._users[binding]:
                del self._users[binding]

    def _remember(self, key: Key, obs: Observation) -> None:
        status = obs.run.status
        metrics.live.set(key, status.live - status.leased)
        metrics.leases.set(key, status.leased)
        metrics.pending.set(key, pending(obs))
        metrics.overdue.set(key, sum(bool(secret.held_by) for secret in obs.memory.secrets.values()))
        record = self._last.get(key)
        if record is None:
            self._last[key] = Record(obs)
        else:
            record.update(obs)

    def _invalidate(self, key: Key) -> None:
        """The cached observation of the run may no longer be true."""
        self._unread.add(key)
        last = self._last.get(key)
        if last is not None:
            self._leaving.discard(last.uid)

    def _read_anew(self, key: Key, urgency: Urgency) -> None:
        self._unread.add(key)
        self._queue.add(key, urgency=urgency)


def _has_ended(status: Mapping[str, Any]) -> bool:
    """Whether nothing of a pod runs any more. The kubelet tells of the containers before it says so of the pod."""
    states = [item.get("state") or {} for item in status.get("containerStatuses") or []]
    return status.get("phase") in ("Succeeded", "Failed") or (
        bool(states) and all("terminated" in state for state in states)
    )
