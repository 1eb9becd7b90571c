"""One pass over one run: observe, plan, act, and plan again until nothing is left to do."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from runkeys.actions import Action, DeleteSecret, PatchStatus, Plan, Refresh
from runkeys.api import SecretBinding, WorkflowRun
from runkeys.needs import NO_OFFER, SealedOffer
from runkeys.observation import JobState, JobView, Memory, Observation, PodView, job_uid_of, was_refused
from runkeys.plan import plan, plan_farewell
from runkeys.refusal import Reason
from runkeys.status import finished
from runkeys.template import containers
from runkeys_operator import metrics
from runkeys_operator.authorize import Authorizer
from runkeys_operator.errors import Conflict
from runkeys_operator.guard import Guard
from runkeys_operator.keys import Keys
from runkeys_operator.kube import RUNS, Kube
from runkeys_operator.material.sources import Sources
from runkeys_operator.reconcile.apply import Applier
from runkeys_operator.reconcile.bindings import BindingReconciler, report_unreadable
from runkeys_operator.reconcile.key import BindingKey, Key, RequestKey, RevealKey, RunKey
from runkeys_operator.reconcile.observe import Observer, UnreadableError
from runkeys_operator.reconcile.queue import ReconcileQueue, Urgency
from runkeys_operator.reconcile.record import Record, awaited, of_owner
from runkeys_operator.reconcile.requests import Delivery, RequestReconciler
from runkeys_operator.reconcile.reveals import RevealReconciler
from runkeys_operator.reconcile.store import Store
from runkeys_operator.reconcile.sweep import Sweeper

log = logging.getLogger(__name__)

_MOST_STEPS, _STEPS_A_TASK = 20, 6
"""More rounds than any run needs in one pass; a plan that does not settle is a defect, and waits its turn."""

_PARTS_AT_ONCE = 64
"""Tasks, secrets, inputs and containers of a run that is planned in the event loop, in a few milliseconds at most."""

EXPIRIES_EVERY = timedelta(minutes=10)
"""Between two looks for finished runs whose time to live is over. What ends within it is on time; later ends are
not remembered, so that they cost nothing until then."""


_EXPIRIES_LATE = timedelta(minutes=2)
"""How late the next such look may be: it follows a sweep that went well."""


class Reconciler:
    """Takes in what the watch shows and brings runs forward, each by its key."""

    def __init__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        namespaces: tuple[str, ...],
        keys: Keys,
        guard: Guard,
        offer: SealedOffer = NO_OFFER,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._kube = kube
        self._queue = queue
        clock = clock or kube.clock.now
        self._now = clock
        self._jobs = Store(JobView.parse)
        self._pods = Store(PodView.parse)
        delivery = Delivery(kube, offer)
        self._observer = Observer(kube, self._jobs, self._pods, delivery, guard)
        sources = Sources(kube, keys)
        self._applier = Applier(kube, sources, self._jobs, guard, delivery, clock)
        self._bindings = BindingReconciler(kube, sources, clock, self._read_binding)
        self._delivery = delivery
        self._requests = RequestReconciler(kube, delivery, self._pods)
        self._reveals = RevealReconciler(kube, sources, Authorizer(kube), guard, clock)
        self._sweeper = Sweeper(kube, self._jobs, self._pods, namespaces)
        self._last: dict[RunKey, Record] = {}
        # Runs that were changed, or may have been, since they were read.
        self._unread: set[RunKey] = set()
        # Uids of runs whose final status is being or was just written: with it they leave the watch's selection.
        self._leaving: set[str] = set()
        self._users: dict[RunKey, set[RunKey]] = defaultdict(set)
        self._generations: dict[RunKey, tuple[str, int]] = {}
        # Of the personal bindings that have been read since they changed.
        self._owners: dict[RunKey, str] = {}
        self._expiries_due: datetime | None = None

    # what the watch shows

    def saw_run(self, event: Mapping[str, Any]) -> None:
        """A WorkflowRun that goes on was added, changed or deleted, or has ended and so left the watch.

        Its status is no news: nobody else writes that.
        """
        metadata, kind = event["object"]["metadata"], event.get("type")
        key = RunKey(metadata["namespace"], metadata["name"])
        last = self._last.get(key)
        if kind == "DELETED":
            if metadata["uid"] in self._leaving:
                self._leaving.discard(metadata["uid"])
            elif self._queue.is_worked_on(key) if last is None else not last.finished:
                self._read_anew(key, Urgency.NEWS)
        elif last is None or last.differs(
            metadata["uid"],
            metadata["generation"],
            metadata.get("labels") or {},
            deleting="deletionTimestamp" in metadata,
        ):
            self._read_anew(key, Urgency.BACKLOG if kind is None else Urgency.NEWS)

    def saw_binding(self, event: Mapping[str, Any]) -> None:
        """A SecretBinding was added, changed or deleted: its runs may go on, or may not."""
        metadata = event["object"]["metadata"]
        key = RunKey(metadata["namespace"], metadata["name"])
        version = (metadata["uid"], metadata["generation"])
        if event.get("type") == "DELETED":
            self._generations.pop(key, None)
        elif self._generations.get(key) == version:
            return  # its status, which is ours
        else:
            self._generations[key] = version
        self._queue.add(BindingKey(*key), urgency=Urgency.NEWS)
        self._wake_users(key.namespace, key.name)
        if (owner := self._owners.pop(key, None)) is not None:
            self._wake_users(key.namespace, of_owner(owner))

    def _read_binding(self, binding: SecretBinding) -> None:
        """A binding was read: whose personal one it is no watch tells."""
        metadata, owner = binding.metadata, binding.spec.owner
        key = RunKey(metadata.namespace, metadata.name)
        if owner is not None and key not in self._owners:
            self._owners[key] = owner.username
            self._wake_users(key.namespace, of_owner(owner.username))

    def _wake_users(self, namespace: str, binding: str) -> None:
        for run in self._users.get(RunKey(namespace, binding), set()).copy():
            self._queue.add(run)

    def saw_reveal(self, event: Mapping[str, Any]) -> None:
        """A SecretReveal was made, or is there still: its answer is waited for."""
        metadata = event["object"]["metadata"]
        if event.get("type") != "DELETED":
            self._queue.add(RevealKey(metadata["namespace"], metadata["name"]), urgency=Urgency.NEWS)

    def saw_request(self, event: Mapping[str, Any]) -> None:
        """A PodCertificateRequest of our signer was made or answered, or is there still."""
        metadata = event["object"]["metadata"]
        if self._delivery.saw(event["object"], deleted=event.get("type") == "DELETED"):
            self._queue.add(RequestKey(metadata["namespace"], metadata["name"]), urgency=Urgency.PODS)

    def saw_pod(self, event: Mapping[str, Any]) -> None:
        """A pod with a run's label and a node was added, changed or deleted.

        A pod may wait for its Secret, or a Secret for the end of its pod: runs that begin can wait for both.
        """
        raw = event["object"]
        uid, deleted = job_uid_of(raw["metadata"]), event.get("type") == "DELETED"
        if uid in self._sweeper.settled:
            return
        key = self._pods.record(raw, deleted=deleted)
        if key is not None:
            over = deleted or _has_ended(raw.get("status") or {})
            (metrics.ended if over else metrics.bound).note(uid)
            self._queue.add(key, urgency=Urgency.PODS)

    def saw_job(self, event: Mapping[str, Any]) -> None:
        """A Job with a run's label was added, changed or deleted; while it is active its pod has all the news."""
        raw = event["object"]
        uid, deleted = raw["metadata"]["uid"], event.get("type") == "DELETED"
        if uid in self._sweeper.settled:
            if deleted:
                self._sweeper.settled.discard(uid)
            return
        key = self._jobs.record(raw, deleted=deleted)
        if key is None:
            return
        job = next(job for job in self._jobs.of(key) if job.uid == uid)
        if job.state is not JobState.ACTIVE or job.deleting or job.gone:
            self._queue.add(key, urgency=Urgency.NEWS)

    def policies_restored(self) -> None:
        """The admission policies are in force again: runs that were refused for want of them go on."""
        for key, last in self._last.items():
            if self._queue.is_worked_on(key) or was_refused(last.memory, Reason.POLICIES_MISSING):
                self._queue.add(key, urgency=Urgency.NEWS)

    async def sweep(self) -> None:
        """Look at everything that is open once, for what the watches did not show."""
        left = set(self._leaving)
        found = await self._sweeper.sweep(self._last)
        self._leaving -= left  # a watch that was broken then tells nobody of their leaving
        for key in found.read:
            self._read_anew(key, Urgency.BACKLOG)
        for key in found.look:
            self._queue.add(key)

    async def expire(self) -> None:
        """Now and then, see which finished runs are at the end of their time to live."""
        now = self._now()
        if self._expiries_due is not None and now < self._expiries_due:
            return
        async for key, seconds in self._sweeper.expiring(now, EXPIRIES_EVERY + _EXPIRIES_LATE):
            self._queue.add(key, seconds)
        self._expiries_due = now + EXPIRIES_EVERY

    # one pass

    async def reconcile(self, key: Key) -> float | None:
        """Bring it as far as it goes now; seconds until it has to be looked at even if nothing happens."""
        if isinstance(key, BindingKey):
            try:
                return await self._bindings.reconcile(key)
            except Conflict as error:
                metrics.count_failure(key, error)
                return 0.0
        if isinstance(key, RevealKey):
            try:
                return await self._reveals.reconcile(key)
            except Conflict as error:
                metrics.count_failure(key, error)
                return 0.0
        if isinstance(key, RequestKey):
            run = await self._requests.reconcile(key)
            if run is not None:
                if run not in self._last:
                    self._unread.add(run)
                self._queue.add(run, urgency=Urgency.PODS)
            return None
        try:
            return await self._reconcile_run(key)
        except Conflict as error:
            metrics.count_failure(key, error)
            self._doubt(key)
            return 0.0  # it changed under our hands: read it again
        except Exception:
            self._doubt(key)  # what the request that failed has done is not known
            raise
        finally:
            if (record := self._last.get(key)) is not None:
                record.pack()

    async def _reconcile_run(self, key: RunKey) -> float | None:
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

    async def _read(self, key: RunKey, before: WorkflowRun | None = None) -> Observation | None:
        """Everything about the run, read by name; None if it is gone, and then what it had goes too.

        :param before: the run as it was known, by which its bindings can be asked for at the same time.
        """
        self._unread.discard(key)
        shown = self._jobs.of(key)  # before the run is read: only then are those of another one left behind
        run, bindings = await self._observer.run(key, before)
        last = self._last.get(key)
        if last is not None and (run is None or run.metadata.uid != last.uid):
            await self._farewell(key, last)
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
            self._users[RunKey(key.namespace, name)].add(key)
        return obs

    async def _advance(self, key: RunKey, obs: Observation) -> Plan | None:
        """Plan and act until nothing is left to do, and return the last plan; None if the run is gone."""
        for _ in range(_MOST_STEPS + _STEPS_A_TASK * len(obs.run.spec.tasks)):
            step = await self._plan(obs)
            since = (obs.memory.stale_since or self._now()) if step.stale else None
            if step.status is not None and since != obs.memory.stale_since:
                obs = replace(obs, memory=replace(obs.memory, stale_since=since))
            self._remember(key, obs)
            if not step.actions:
                return step
            if step.actions == (Refresh(),):
                fresh = await self._read(key, obs.run)
                if fresh is None:
                    return None
                obs = fresh
                continue
            if any(isinstance(action, PatchStatus) and finished(action.status) for action in step.actions):
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

    async def _apply(self, key: RunKey, actions: Iterable[Action], obs: Observation) -> Observation:
        """Act, and remember at once: if one action fails, what others achieved must not be forgotten."""
        async for known in self._applier.apply(actions, obs):
            obs = known
            self._remember(key, obs)
        return obs

    async def _release_at_once(self, key: RunKey) -> None:
        """Delete Secrets whose pods have ended, before anything is read.

        That a pod ended never becomes untrue, and its Job's uid was checked when the Secret was made, so
        the observation of last time is good enough, and a slow read cannot keep a value in the cluster.
        """
        last = self._last.get(key)
        if last is None or last.finished:
            return
        obs = self._observer.remembered(key, last)
        actions = plan(obs, self._now()).actions
        await self._apply(key, [item for item in actions if isinstance(item, DeleteSecret)], obs)

    async def _farewell(self, key: RunKey, last: Record) -> None:
        """The run is gone: so must be what it had, without waiting for Kubernetes to collect it."""
        obs = self._observer.remembered(key, last)
        await self._apply(key, plan_farewell(obs).actions, obs)
        self._forget(key)

    async def _clean_up(self, key: RunKey, jobs: Iterable[JobView]) -> None:
        """The same of a run that this process never knew: its Jobs were left behind while there was no operator."""
        left = [job for job in jobs if job.run_uid and not job.deleting and not job.gone]
        if not left:
            return
        names = ", ".join(sorted(job.name for job in left))
        log.warning("its run is gone, so it goes: %s", names, extra={"run": str(key)})
        obs = self._observer.left_behind(key, left)
        async for _ in self._applier.apply(plan_farewell(obs).actions, obs):
            pass

    async def _report_unreadable(self, key: RunKey, error: UnreadableError) -> None:
        log.error("the run: %s", error, extra={"run": str(key)})
        await report_unreadable(self._kube, RUNS, key, error, self._now())

    # what is remembered

    def _settle(self, key: RunKey) -> None:
        """The run needs nothing any more: remember only which Jobs, left for their logs, are of no interest."""
        last = self._last.get(key)
        if last is not None:
            run = last.observation().run
            recorded = {attempt.job_uid for task in run.status.tasks for attempt in task.attempts}
            present = {job.uid for job in self._jobs.of(key) if not job.gone}
            self._sweeper.settled |= recorded | present
        self._forget(key)

    def _forget(self, key: RunKey) -> None:
        last = self._last.pop(key, None)
        metrics.live.set(key, 0)
        metrics.overdue.set(key, 0)
        self._jobs.forget(key)
        self._delivery.forget(pod.uid for pod in self._pods.of(key))
        self._pods.forget(key)
        self._unread.discard(key)
        for name in last.awaited if last is not None else ():
            binding = RunKey(key.namespace, name)
            self._users[binding].discard(key)
            if not self._users[binding]:
                del self._users[binding]

    def _remember(self, key: RunKey, obs: Observation) -> None:
        metrics.live.set(key, obs.run.status.live)
        metrics.overdue.set(key, sum(bool(secret.held_by) for secret in obs.memory.secrets.values()))
        record = self._last.get(key)
        if record is None:
            self._last[key] = Record(obs)
        else:
            record.update(obs)

    def _doubt(self, key: RunKey) -> None:
        """What is known of the run may not be true any more."""
        self._unread.add(key)
        last = self._last.get(key)
        if last is not None:
            self._leaving.discard(last.uid)

    def _read_anew(self, key: RunKey, urgency: Urgency) -> None:
        self._unread.add(key)
        self._queue.add(key, urgency=urgency)


def _has_ended(status: Mapping[str, Any]) -> bool:
    """Whether nothing of a pod runs any more. The kubelet tells of the containers before it says so of the pod."""
    states = [item.get("state") or {} for item in status.get("containerStatuses") or []]
    return status.get("phase") in ("Succeeded", "Failed") or (
        bool(states) and all("terminated" in state for state in states)
    )
