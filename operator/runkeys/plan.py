"""What to do next for one run: the heart of Runkeys. Pure: no I/O, no clock of its own, no value of a secret.

The operator observes, plans, acts and plans again until nothing is left to do; ``runkeys plan`` calls the
same function, so a preview cannot differ from what happens. Every decision depends on the observation
alone, never on which event came, so lost, repeated and reordered events lead to the same end (I5).

The order that the invariants need:

* The Job comes first. Its pod cannot start the containers that refer to the Secret until that exists.
* The intent to make a Secret is in the status before the Secret is made, so that a crash between the two
  leaves a record to clean up by (I1).
* A Secret is deleted before the status says so, and a run is final only after that.
* Nothing is made, and nothing is held to be lost, on the word of a cache: :class:`Refresh` comes first. To take
  away needs no fresh read, and a status is refused by the server if the run is another by then.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from runkeys import manifests
from runkeys.access import Subject
from runkeys.actions import (
    Action,
    CheckSources,
    CreateJob,
    DeleteJob,
    DeleteRun,
    DeleteSecret,
    Diagnose,
    EnsureSecret,
    PatchStatus,
    Plan,
    Refresh,
)
from runkeys.api import AttemptStatus, Exposure, WorkflowRunStatus
from runkeys.naming import attempt_name, object_labels
from runkeys.needs import TaskNeeds, access_refusal, task_needs
from runkeys.observation import JobState, JobView, Observation, PodView, SecretMemory
from runkeys.refusal import Reason, Refusal
from runkeys.status import State, Verdict, build_status, finished
from runkeys.template import carriers

PATIENCE = timedelta(seconds=2)
"""How long a status may lag behind when nobody depends on it: most runs need no write in between."""

ENDING = timedelta(seconds=10)
"""The same between the end of the containers and the end of their Job, which the kubelet and the Job
controller take some seconds over: a write in between says only that good news is on its way."""

RETRY_AFTER = timedelta(seconds=30)
"""How often a missing source or a refused object is tried again."""

DIAGNOSE_EVERY = timedelta(seconds=15)

STOP_MARGIN = timedelta(seconds=30)
"""How long after the Secret's lifetime a pod that the kubelet should have ended is ended by us."""

_TASK = 0
_ATTEMPT = 1


def plan(obs: Observation, now: datetime) -> Plan:
    """The next actions for the run in ``obs``, the status that is due, and when to look again."""
    if obs.run.metadata.deletion_timestamp is not None:
        return plan_farewell(obs)
    if finished(obs.run.status):
        return _Finished(obs, now).plan()
    return _Open(obs, now).plan()


def plan_farewell(obs: Observation) -> Plan:
    """For a run that is being deleted, or is gone: its Secrets first, then its Jobs. No status."""
    actions: list[Action] = []
    known = {attempt.job_uid: attempt.job for attempt in _recorded(obs)}
    known |= {job.uid: job.name for job in obs.jobs.values() if _trusted(obs, job)}
    left = [job for job in obs.jobs.values() if job.uid in known and not job.gone]
    for uid, name in known.items():
        secret, attempt = obs.memory.of(uid), _attempt_of(obs, uid)
        if _may_exist(attempt, secret) and not secret.held_by:
            actions.append(DeleteSecret(name, uid))
    actions += [DeleteJob(job.name, job.uid) for job in left if not job.deleting]
    return Plan(tuple(actions), None)


class _Finished:
    """A run whose status is final: what may still be lying about, and its time to live."""

    def __init__(self, obs: Observation, now: datetime) -> None:
        self.obs, self.now = obs, now

    def plan(self) -> Plan:
        obs, now = self.obs, self.now
        actions: list[Action] = []
        due: list[datetime] = []
        held: tuple[str, ...] = ()
        attempts = _recorded(obs)
        for attempt in attempts:
            job, secret = _job_of(obs, attempt), obs.memory.of(attempt.job_uid)
            held += secret.held_by
            if any(exposure.deleted is None or exposure.estimated for exposure in attempt.exposures):
                when = self._delete_again(attempt, secret, job)
                if when is not None and when <= now:
                    actions.append(DeleteSecret(attempt.job, attempt.job_uid))
                elif when is not None:
                    due.append(when)
            if job is not None and job.state is JobState.ACTIVE and not job.deleting:
                actions.append(DeleteJob(job.name, job.uid))
        task = obs.run.status.tasks[_TASK]
        verdict = Verdict(State(task.state), task.reason, task.message, held_by=held)
        status = _keep_story(
            obs.run.status, build_status(obs.run, verdict, [_close(obs, item) for item in attempts], now)
        )
        stale = status != obs.run.status
        if stale and not actions:
            actions.append(PatchStatus(status))
        settled = not actions and not due and status.live == 0
        ttl, ended = obs.run.spec.ttl_seconds_after_finished, obs.run.status.completion_time
        if ttl is not None and ended is not None and not actions and status.live == 0:
            expiry = ended + timedelta(seconds=ttl)
            if expiry <= now:
                actions.append(DeleteRun(obs.run.metadata.uid))
            else:
                due.append(expiry)
        return Plan(tuple(actions), status, stale, _until(now, due), settled)

    def _delete_again(
        self, attempt: AttemptStatus, secret: SecretMemory, job: JobView | None
    ) -> datetime | None:
        """When to delete the Secret of an attempt that is over (once more); None: never.

        A create request that was never answered may still be on its way (a proxy, a process that was paused),
        so the deletion is repeated 30, 60, 120… seconds after the end for as long as the Job exists; without
        its Job a Secret is collected by Kubernetes itself.
        """
        last = secret.last_delete
        if any(exposure.deleted is None for exposure in attempt.exposures) and secret.gone_at is None:
            return self.now if last is None else last + RETRY_AFTER
        ended = attempt.end_time or self.obs.run.status.completion_time
        if job is None or ended is None:
            return None
        step = RETRY_AFTER
        while last is not None and ended + step <= last:
            step *= 2
        return ended + step


class _Open:
    """A run that goes on: one task, one attempt."""

    def __init__(self, obs: Observation, now: datetime) -> None:
        self.obs, self.now = obs, now
        self.task = obs.run.spec.tasks[_TASK]
        self.name = attempt_name(obs.run.metadata.name, obs.run.metadata.uid, self.task.name, _ATTEMPT)
        self.due: list[datetime] = []

    def plan(self) -> Plan:
        recorded = next(iter(_recorded(self.obs)), None)
        if recorded is None:
            job = self.obs.jobs.get(self.name)
            if job is None or job.gone:
                return self._start()
            return self._attempt(job, None) if self._ours(job) else self._replace(job)
        mine = _job_of(self.obs, recorded)
        return self._lost(recorded) if mine is None else self._attempt(mine, recorded)

    # before there is a Job

    def _start(self) -> Plan:
        if self.obs.run.spec.cancel:
            return self._end(Verdict(State.CANCELLED, Reason.CANCELLED, "cancelled before it started"), [])
        if not self.obs.fresh:
            return _REFRESH
        needs = task_needs(self.obs.run, _TASK, self.obs.bindings)
        if not isinstance(needs, TaskNeeds):
            return self._refused(needs[0])
        memory = self.obs.memory
        for finding in (memory.sources, memory.refused):
            if finding is not None and finding.refusal is not None and finding.at + RETRY_AFTER > self.now:
                self.due.append(finding.at + RETRY_AFTER)
                return self._refused(finding.refusal)
        checked = memory.sources is not None and memory.sources.refusal is None
        if needs.references and not checked:
            return self._go_on([CheckSources(needs.references)], Verdict(State.PENDING), [])
        manifest = manifests.job(self.obs.run, _TASK, _ATTEMPT, needs)
        return self._go_on([CreateJob(manifest)], Verdict(State.PENDING), [])

    def _refused(self, refusal: Refusal) -> Plan:
        if refusal.permanent:
            return self._end(Verdict(State.FAILED, refusal.reason, str(refusal), refusal), [])
        self.due.append(self.now + RETRY_AFTER)
        verdict = Verdict(State.PENDING, refusal.reason, str(refusal), refusal)
        return self._go_on([], verdict, [], urgent=True)

    def _ours(self, job: JobView) -> bool:
        return _trusted(self.obs, job) or (not self.task.secrets and self._claims_us(job))

    def _claims_us(self, job: JobView) -> bool:
        return job.controller_uid == self.obs.run.metadata.uid

    def _replace(self, job: JobView) -> Plan:
        """A Job bears our name, and nothing on record shows that we made it.

        Usually our own answer was lost in a crash; but anybody may write an owner reference, and a Job that
        somebody else made would get our secrets. No Secret has been made for it (the status would say so),
        so none of its containers that need one has started: take it away and make our own.
        """
        if not self.obs.fresh:
            return _REFRESH
        if self._claims_us(job):
            actions: list[Action] = [] if job.deleting else [DeleteJob(job.name, job.uid)]
            self.due.append(self.now + timedelta(seconds=1))
            return self._go_on(actions, Verdict(State.PENDING), [])
        refusal = Refusal(
            Reason.NAME_TAKEN,
            "metadata.name",
            f"there is a Job {job.name} that does not belong to this run; delete it",
            permanent=False,
        )
        return self._refused(refusal)

    # while there is a Job

    def _attempt(self, job: JobView, recorded: AttemptStatus | None) -> Plan:
        obs = self.obs
        pods = [pod for pod in obs.pods if pod.job_uid == job.uid and pod.name.startswith(f"{job.name}-")]
        attempt = recorded or AttemptStatus(number=_ATTEMPT, job=job.name, job_uid=job.uid)
        secret = obs.memory.of(job.uid)
        stop = self._stop(job, pods, attempt)
        done = bool(pods) and all(pod.done_with(carriers(self.task)) for pod in pods)
        expired = self._lifetime_over(job, attempt)
        over = job.state is not JobState.ACTIVE or stop is not None or done or expired
        if over and _may_exist(attempt, secret) and not secret.held_by:
            return self._go_on([DeleteSecret(job.name, job.uid)], self._running(pods), [attempt])
        attempt = self._dated(_close(obs, attempt), pods)
        if job.state is not JobState.ACTIVE:
            return self._end(self._outcome(job, pods), [attempt], ended=job.finished_at)
        if stop is not None:
            return self._end(stop, [attempt])
        if self._needs_secret(job, pods, secret) and not expired:
            return self._hand_over(job, pods, attempt)
        diagnosis = self._diagnosis(job, pods)
        verdict = self._running(pods)
        return self._go_on(
            diagnosis,
            verdict,
            [attempt],
            urgent=bool(pods) and recorded is None,
            patience=ENDING if done else PATIENCE,
        )

    def _needs_secret(self, job: JobView, pods: list[PodView], secret: SecretMemory) -> bool:
        """Whether a pod with a node waits for a Secret that this process has not made yet.

        A Secret that is gone is not made again: its time is over. Where its containers have started it
        was there, even if this process does not remember (it was started after that).
        """
        if not self.task.secrets or job.deleting or secret.made_at or secret.gone_at or secret.held_by:
            return False
        return any(pod.awaits(carriers(self.task)) for pod in pods)

    def _hand_over(self, job: JobView, pods: list[PodView], attempt: AttemptStatus) -> Plan:
        """A pod has a node and may start as soon as its Secret exists: check it, say so, make it."""
        obs, now = self.obs, self.now
        if not obs.fresh:
            return _REFRESH
        current = [pod for pod in pods if not pod.over]
        if len(current) > 1:
            names = ", ".join(sorted(pod.name for pod in current))
            refusal = Refusal(
                Reason.AMBIGUOUS_PODS,
                f"Job {job.name}",
                f"several pods claim to be this attempt's one pod: {names}; delete those that somebody else made",
                permanent=False,
            )
            return self._stalled(attempt, refusal)
        needs = task_needs(obs.run, _TASK, obs.bindings)
        if not isinstance(needs, TaskNeeds):
            return self._stalled(attempt, needs[0])
        pod = current[0]
        subject = Subject(
            obs.run.metadata.labels, pod.service_account, [container.image for container in pod.containers]
        )
        names_used = sorted({reference.binding for reference in needs.references})
        denied = access_refusal(obs.run, names_used, subject, obs.bindings)
        if denied is not None:
            return self._stalled(attempt, denied)
        for finding in (obs.memory.sources, obs.memory.refused):
            if finding is not None and finding.refusal is not None and finding.at + RETRY_AFTER > now:
                self.due.append(finding.at + RETRY_AFTER)
                return self._stalled(attempt, finding.refusal)
        intent = None
        if not attempt.exposures:
            intended = attempt.model_copy(update={"exposures": [Exposure(created=now, estimated=True)]})
            intent = build_status(obs.run, Verdict(State.RUNNING), [self._dated(intended, pods)], now)
        labels = object_labels(obs.run.metadata.name, obs.run.metadata.uid, self.task.name)
        manifest = manifests.secret(obs.run.metadata.namespace, job.name, job.uid, labels)
        ensure = EnsureSecret(job.name, job.uid, manifest, needs.references, intent)
        return Plan((ensure,), None, look_again=_until(now, self.due))

    def _stalled(self, attempt: AttemptStatus, refusal: Refusal) -> Plan:
        self.due.append(self.now + RETRY_AFTER)
        verdict = Verdict(State.WAITING, refusal.reason, str(refusal), refusal)
        return self._go_on([], verdict, [attempt], urgent=True)

    def _stop(self, job: JobView, pods: list[PodView], attempt: AttemptStatus) -> Verdict | None:
        """Why the attempt has to be ended by us, if it has to."""
        if self.obs.run.spec.cancel:
            return Verdict(State.CANCELLED, Reason.CANCELLED, "cancelled by spec.cancel")
        current = [pod for pod in pods if not pod.over]
        if current and not any(pod.started for pod in current):
            bound = min((pod.bound_at for pod in current if pod.bound_at is not None), default=self.now)
            deadline = bound + timedelta(seconds=self.task.start_deadline_seconds)
            if deadline <= self.now:
                seen = next((c for pod in current for c in pod.containers if c.waiting), None)
                found = f" (container {seen.name}: {seen.waiting})" if seen else ""
                return Verdict(
                    State.FAILED,
                    Reason.START_DEADLINE_EXCEEDED,
                    f"no container started within {self.task.start_deadline_seconds} s of the pod getting a"
                    f" node{found}; raise startDeadlineSeconds or mend what keeps it",
                )
            self.due.append(deadline)
        limit = self._lifetime(job, attempt)
        if limit is not None and limit + STOP_MARGIN <= self.now:
            return Verdict(
                State.FAILED,
                Reason.LIFETIME_EXCEEDED,
                "the pod was still there after the longest time that its bindings allow",
            )
        if limit is not None:
            self.due += [limit, limit + STOP_MARGIN]
        return None

    def _lifetime(self, job: JobView, attempt: AttemptStatus) -> datetime | None:
        """Until when the Secret may exist: as long as the pod's own deadline.

        That is never longer than the bindings allow, and it stays known when one is deleted meanwhile.
        """
        if not attempt.exposures or job.deadline_seconds is None:
            return None
        return attempt.exposures[-1].created + timedelta(seconds=job.deadline_seconds)

    def _lifetime_over(self, job: JobView, attempt: AttemptStatus) -> bool:
        limit = self._lifetime(job, attempt)
        return limit is not None and limit <= self.now

    def _running(self, pods: list[PodView]) -> Verdict:
        current = [pod for pod in pods if not pod.over]
        blocked = next(
            (c for pod in current if not pod.started for c in pod.containers if _is_trouble(c.waiting)), None
        )
        if blocked is not None:
            reason = "ImagePullBackOff" if blocked.waiting == "ErrImagePull" else blocked.waiting
            return Verdict(State.WAITING, reason, f"container {blocked.name} of pod {current[0].name} waits")
        if pods:
            return Verdict(State.RUNNING)
        found = self.obs.memory.waiting
        if found is not None and found.refusal is not None:
            return Verdict(State.WAITING, found.refusal.reason, str(found.refusal), found.refusal)
        return Verdict(State.WAITING, "NoPod", "waiting for the pod to be made and given a node")

    def _diagnosis(self, job: JobView, pods: list[PodView]) -> list[Action]:
        if pods:
            return []
        last = self.obs.memory.waiting
        next_time = job.created + PATIENCE if last is None else last.at + DIAGNOSE_EVERY
        if next_time <= self.now:
            return [Diagnose(job.name, job.uid)]
        self.due.append(next_time)
        return []

    def _dated(self, attempt: AttemptStatus, pods: list[PodView]) -> AttemptStatus:
        bound = min((pod.bound_at for pod in pods if pod.bound_at is not None), default=None)
        return attempt.model_copy(update={"start_time": attempt.start_time or bound})

    # the end

    def _outcome(self, job: JobView, pods: list[PodView]) -> Verdict:
        if job.state is JobState.SUCCEEDED:
            return Verdict(State.SUCCEEDED)
        if any(pod.disrupted for pod in pods) or job.reason == "PodFailurePolicy":
            return Verdict(State.FAILED, Reason.DISRUPTED, f"the pod was taken off its node: {job.message}")
        if any(pod.reason == "DeadlineExceeded" for pod in pods):
            return Verdict(
                State.FAILED, Reason.DEADLINE_EXCEEDED, "the pod was active for longer than it may be"
            )
        codes = [
            f"container {container.name} exited with code {container.exit_code}"
            for pod in pods
            for container in pod.containers
            if container.exit_code
        ]
        return Verdict(State.FAILED, Reason.JOB_FAILED, "; ".join(codes) or job.message)

    def _lost(self, recorded: AttemptStatus) -> Plan:
        known = self.obs.jobs.get(recorded.job)
        seen_to_go = known is not None and known.gone and known.uid == recorded.job_uid
        if not self.obs.fresh and not seen_to_go:
            return _REFRESH  # not seen yet, as after a start, is not gone
        secret = self.obs.memory.of(recorded.job_uid)
        if _may_exist(recorded, secret) and not secret.held_by:
            return self._go_on(
                [DeleteSecret(recorded.job, recorded.job_uid)], Verdict(State.RUNNING), [recorded]
            )
        if self.obs.run.spec.cancel:
            verdict = Verdict(State.CANCELLED, Reason.CANCELLED, "cancelled by spec.cancel")
        else:
            verdict = Verdict(
                State.FAILED,
                Reason.ATTEMPT_LOST,
                f"Job {recorded.job} is gone, and how its pod ended is not known; make a new run",
            )
        return self._end(verdict, [_close(self.obs, recorded)])

    def _end(self, verdict: Verdict, attempts: list[AttemptStatus], ended: datetime | None = None) -> Plan:
        held = tuple(name for attempt in attempts for name in self.obs.memory.of(attempt.job_uid).held_by)
        verdict = Verdict(verdict.state, verdict.reason, verdict.message, verdict.refusal, held)
        end = (ended or self.now).replace(microsecond=0)
        closed = [item.model_copy(update={"end_time": item.end_time or end}) for item in attempts]
        return self._go_on([], verdict, closed, urgent=True)

    def _go_on(
        self,
        actions: list[Action],
        verdict: Verdict,
        attempts: list[AttemptStatus],
        *,
        urgent: bool = False,
        patience: timedelta = PATIENCE,
    ) -> Plan:
        """Actions first; the status is written when nothing else is to be done and it is worth a write."""
        status = build_status(self.obs.run, verdict, attempts, self.now)
        stale = status != self.obs.run.status
        since = self.obs.memory.stale_since
        if stale and not actions:
            if urgent or (since is not None and since + patience <= self.now):
                return Plan((PatchStatus(status),), status, stale, _until(self.now, self.due))
            self.due.append((since or self.now) + patience)
        return Plan(tuple(actions), status, stale, _until(self.now, self.due))


_REFRESH = Plan((Refresh(),), None)


def _recorded(obs: Observation) -> list[AttemptStatus]:
    return obs.run.status.tasks[_TASK].attempts if obs.run.status.tasks else []


def _job_of(obs: Observation, attempt: AttemptStatus) -> JobView | None:
    """The Job of an attempt, if it is there; another one may bear its name."""
    job = obs.jobs.get(attempt.job)
    return job if job is not None and job.uid == attempt.job_uid and not job.gone else None


def _attempt_of(obs: Observation, job_uid: str) -> AttemptStatus | None:
    return next((attempt for attempt in _recorded(obs) if attempt.job_uid == job_uid), None)


def _trusted(obs: Observation, job: JobView) -> bool:
    """Whether we made this Job: its uid is in the status, which only the operator writes, or in our memory."""
    return job.uid in obs.memory.jobs_made or _attempt_of(obs, job.uid) is not None


def _may_exist(attempt: AttemptStatus | None, secret: SecretMemory) -> bool:
    if secret.gone_at is not None:
        return False
    intended = attempt is not None and any(exposure.deleted is None for exposure in attempt.exposures)
    return intended or secret.made_at is not None


def _close(obs: Observation, attempt: AttemptStatus) -> AttemptStatus:
    """``attempt`` with the end of its exposure, once the server confirmed it, and its exact beginning."""
    secret = obs.memory.of(attempt.job_uid)
    if secret.gone_at is None or not attempt.exposures or attempt.exposures[-1].deleted is not None:
        return attempt
    exact = secret.made_at is not None and not secret.estimated
    created = secret.made_at if secret.made_at is not None and exact else attempt.exposures[-1].created
    closed = Exposure(created=created, deleted=max(secret.gone_at, created), estimated=not exact)
    return attempt.model_copy(update={"exposures": [*attempt.exposures[:-1], closed]})


def _keep_story(old: WorkflowRunStatus, new: WorkflowRunStatus) -> WorkflowRunStatus:
    """A final status whose Secret went later: only what is said of the Secret changes."""
    fresh = {item.type: item for item in new.conditions}
    conditions = [
        fresh.get(item.type, item) if item.type == "SecretsReleased" else item for item in old.conditions
    ]
    return old.model_copy(
        update={"conditions": conditions, "live": new.live, "exposed": new.exposed, "tasks": new.tasks}
    )


def _is_trouble(waiting: str) -> bool:
    return bool(waiting) and waiting not in ("ContainerCreating", "PodInitializing")


def _until(now: datetime, due: list[datetime]) -> float | None:
    return max(0.05, (min(due) - now).total_seconds()) if due else None
