"""One task of a run: its attempts, each a Job and a Secret of its own. Pure, a part of :mod:`runkeys.plan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from runkeys import manifests, requests
from runkeys.access import Subject
from runkeys.actions import Action, CreateJob, DeleteJob, DeleteSecret, Deliver, Diagnose, EnsureSecret
from runkeys.api import AttemptStatus, Exposure, TaskStatus, WorkflowRun, WorkflowRunStatus
from runkeys.api.binding import ON_START, SEALED
from runkeys.exposures import closed, job_of, may_exist, tidy
from runkeys.graph import ALWAYS, inputs_of
from runkeys.naming import attempt_name, object_labels
from runkeys.needs import TaskNeeds, access_refusal, offer_refusal, requester_of, task_needs
from runkeys.observation import JobState, JobView, Observation, PodView, SecretMemory
from runkeys.outcomes import NOT_GIVEN, at_fault, counted_instead, named_after, outcome_of, own_pods
from runkeys.own_pod import added_reader, is_opener, rewritten
from runkeys.refusal import Reason, Refusal
from runkeys.status import Outcome, State, TaskResult, Verdict
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

FIRST_BACKOFF, LONGEST_BACKOFF = timedelta(seconds=10), timedelta(minutes=6)
"""Before the next attempt, doubled with each failure, as for the pods of a batch/v1 Job."""

MOST_DISRUPTIONS = 10

MOST_ATTEMPTS = 100
"""Only those that are ended by suspend do not count otherwise. A status can tell of 128."""

OUTPUT_PATIENCE = timedelta(seconds=60)
"""How long the pod of a Job that succeeded is waited for, if its output is wanted and no watch has shown it yet."""


@dataclass(frozen=True)
class HandOver:
    """A pod waits for its Secret, or for the answer to its request, and may have it.

    :ivar action: without the intent. :ivar intended: the task with what begins; None: it is on record.
    """

    action: EnsureSecret | Deliver
    intended: TaskResult | None

    def ensure(self, intent: WorkflowRunStatus | None) -> EnsureSecret | Deliver:
        """The action with the status that says so beforehand."""
        return replace(self.action, intent=intent)


@dataclass(frozen=True)
class Step:
    """What one task comes to.

    :ivar releases: what is to be taken away before anything else.
    :ivar refresh: it cannot go on from what caches say.
    :ivar urgent: somebody waits for its status.
    """

    result: TaskResult
    actions: tuple[Action, ...] = ()
    releases: tuple[DeleteSecret, ...] = ()
    due: tuple[datetime, ...] = ()
    hand_over: HandOver | None = None
    refresh: bool = False
    urgent: bool = False
    patience: timedelta = PATIENCE


@dataclass(frozen=True)
class Start:
    """What a task that may start is handed.

    :ivar outputs: of the tasks that are over, by their names.
    """

    outputs: Mapping[str, Any]


class TaskPlanner:
    """Plans one task of a run that goes on."""

    def __init__(self, obs: Observation, index: int, now: datetime, *, deadline_over: bool) -> None:
        self.obs, self.index, self.now = obs, index, now
        self.task = obs.run.spec.tasks[index]
        self._deadline_over = deadline_over
        self._status: TaskStatus | None = next(
            (item for item in obs.run.status.tasks if item.name == self.task.name), None
        )
        self._carriers = carriers(self.task)
        self._memory = obs.memory.about(self.task.name)
        recorded = attempts_of(obs.run, self.task.name)
        self._open = recorded[-1] if recorded and not recorded[-1].outcome else None
        over = recorded[:-1] if self._open is not None else recorded
        self._over = tidy(obs, over, now)
        self._due: list[datetime] = list(self._over.due)

    def begun(self) -> Step | None:
        """The step of a task that is over, or of which a Job may be there; None if nothing of it runs."""
        if self._status is not None and State(self._status.state).final:
            verdict = Verdict(State(self._status.state), self._status.reason, self._status.message)
            return self._step(verdict, (), output=self._status.output)
        if self._open is not None:
            job = job_of(self.obs, self._open)
            return self._lost(self._open) if job is None else self._attempt(job, self._open)
        ended = self._verdict_of(self._over.attempts)
        if ended is not None:
            return self._step(ended, ())
        job = self.obs.jobs.get(self._next_name())
        if job is None or job.gone:
            return None
        if trusted(self.obs, job) or (not self.task.secrets and self._claims_us(job)):
            return self._attempt(job, None)
        return self._replace(job)

    def waits(self, reason: str = "", message: str = "") -> Step:
        """Not yet its turn."""
        return self._step(Verdict(State.PENDING, reason, message), ())

    def ends(self, state: State, reason: str, message: str) -> Step:
        """It will not start (again)."""
        last = self._over.attempts[-1] if self._over.attempts else None
        if last is not None and Outcome(last.outcome).counts and state is State.SKIPPED:
            # it did fail, and only its next attempt is what is skipped
            return self._step(Verdict(State.FAILED, last.reason, message), (), urgent=True)
        return self._step(Verdict(state, reason, message), (), urgent=True)

    # an attempt begins

    def start(self, given: Start) -> Step:
        """Make the Job of the next attempt, once its time has come."""
        again = self._not_before()
        if again is not None and again > self.now:
            self._due.append(again)
            last = self._over.attempts[-1]
            message = (
                f"attempt {last.number} failed ({last.reason}); the next one starts at {again:%H:%M:%S} UTC"
            )
            return self._step(Verdict(State.WAITING, Reason.BACK_OFF, message), (), urgent=True)
        if not self.obs.fresh:
            return self._step(Verdict(State.PENDING), (), refresh=True)
        run = self.obs.run
        needs = task_needs(run, self.index, self.obs.bindings)
        if not isinstance(needs, TaskNeeds):
            return self._refused(needs[0])
        refused = offer_refusal(run, self.index, needs, self.obs.offer) or self._refused_lately()
        if refused is not None:
            return self._refused(refused)
        inputs = inputs_of(run, self.task, given.outputs)
        if isinstance(inputs, Refusal):
            return self._refused(inputs)
        manifest = manifests.job(run, self.index, self._next_number(), needs, inputs, self.obs.offer.image)
        create = CreateJob(self.task.name, manifest)
        failing = self.failing()
        if failing is None:
            return self._step(Verdict(State.PENDING), (), actions=(create,))
        # First it is said, which also begins the run's time; then the request is made again.
        verdict = Verdict(State.PENDING, failing.reason, str(failing), failing)
        said = self._status is not None and self._status.reason == failing.reason
        return self._step(verdict, (), actions=(create,) if said else (), urgent=True)

    def failing(self) -> Refusal | None:
        """What to say of a request for it that fails again and again."""
        found = self._memory.failing
        return found.told(self.now) if found is not None else None

    def _not_before(self) -> datetime | None:
        failures = [item for item in self._over.attempts if Outcome(item.outcome).counts]
        last = self._over.attempts[-1] if self._over.attempts else None
        if last is None or last.end_time is None or not Outcome(last.outcome).counts:
            return None
        pause: timedelta = FIRST_BACKOFF * 2 ** min(len(failures) - 1, 16)
        return last.end_time + min(LONGEST_BACKOFF, pause)

    def _refused(self, refusal: Refusal) -> Step:
        if refusal.permanent:
            return self._step(Verdict(State.FAILED, refusal.reason, str(refusal), refusal), (), urgent=True)
        self._due.append(self.now + RETRY_AFTER)
        return self._step(Verdict(State.PENDING, refusal.reason, str(refusal), refusal), (), urgent=True)

    def _refused_lately(self) -> Refusal | None:
        for finding in (self._memory.sources, self._memory.refused):
            if finding is None or finding.refusal is None or finding.at + RETRY_AFTER <= self.now:
                continue
            if finding.refusal.reason is Reason.POLICIES_MISSING and self.obs.policies_in_force:
                continue
            self._due.append(finding.at + RETRY_AFTER)
            return finding.refusal
        return None

    def _claims_us(self, job: JobView) -> bool:
        return job.controller_uid == self.obs.run.metadata.uid

    def _replace(self, job: JobView) -> Step:
        """A Job bears our name, and nothing on record shows that we made it.

        Usually our own answer was lost in a crash; but anybody may write an owner reference, and a Job that
        somebody else made would get our secrets. No Secret has been made for it (the status would say so),
        so none of its containers that need one has started: take it away and make our own.
        """
        if not self.obs.fresh:
            return self._step(Verdict(State.PENDING), (), refresh=True)
        if self._claims_us(job):
            self._due.append(self.now + timedelta(seconds=1))
            actions = () if job.deleting else (DeleteJob(job.name, job.uid),)
            return self._step(Verdict(State.PENDING), (), actions=actions)
        refusal = Refusal(
            Reason.NAME_TAKEN,
            "metadata.name",
            f"there is a Job {job.name} that does not belong to this run; delete it",
            permanent=False,
        )
        return self._refused(refusal)

    # while there is a Job

    def _attempt(self, job: JobView, recorded: AttemptStatus | None) -> Step:
        obs = self.obs
        of_job = [pod for pod in obs.pods if pod.job_uid == job.uid]
        pods = named_after(job, of_job)
        attempt = recorded or AttemptStatus(number=self._next_number(), job=job.name, job_uid=job.uid)
        secret = obs.memory.of(job.uid)
        stop = self._stop(job, pods, attempt)
        done = bool(pods) and all(pod.done_with(self._carriers) for pod in pods)
        limit = self._lifetime(job, pods, attempt)
        expired = limit is not None and limit <= self.now
        over = job.state is not JobState.ACTIVE or stop is not None or done or expired
        if (over or self._all_started(attempt, pods)) and may_exist(attempt, secret) and not secret.held_by:
            return self._step(
                self._running(job, pods), (attempt,), releases=(DeleteSecret(job.name, job.uid),)
            )
        attempt = requests.followed(_dated(closed(obs, attempt), pods), obs, pods)
        if job.state is not JobState.ACTIVE:
            return self._ended(job, of_job, attempt)
        if stop is not None:
            return self._end(*stop, attempt)
        if self._needs_secret(job, pods, attempt, secret) and not expired:
            return self._hand_over(job, pods, attempt)
        return self._step(
            self._running(job, pods),
            (attempt,),
            actions=self._diagnosis(job, pods),
            patience=ENDING if done else PATIENCE,
        )

    def _all_started(self, attempt: AttemptStatus, pods: list[PodView]) -> bool:
        """Whether the values may go although the containers run: the kubelet reads them when it makes a container."""
        return (
            attempt.release_policy == ON_START
            and bool(pods)
            and all(pod.has_started(self._carriers) for pod in pods)
        )

    def _needs_secret(
        self, job: JobView, pods: list[PodView], attempt: AttemptStatus, secret: SecretMemory
    ) -> bool:
        """Whether a pod with a node waits for a Secret that this process has not made yet.

        A Secret that is gone is not made again: its time is over. Where its containers have started it
        was there, even if this process does not remember (it was started after that).
        """
        over = bool(attempt.exposures) and attempt.exposures[-1].deleted is not None
        if (
            not self.task.secrets
            or job.deleting
            or over
            or secret.made_at
            or secret.gone_at
            or secret.held_by
        ):
            return False
        waiting = [pod for pod in pods if pod.awaits(self._carriers)]
        if job.sealed:
            return any(requests.due(self.obs, pod, attempt) for pod in waiting)
        return bool(waiting)

    def _hand_over(self, job: JobView, pods: list[PodView], attempt: AttemptStatus) -> Step:
        """A pod has a node and may start as soon as its Secret exists: check it, say so, make it."""
        obs = self.obs
        if not obs.fresh:
            return self._step(self._running(job, pods), (attempt,), refresh=True)
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
        pod = current[0]
        changed = added_reader(obs, job, pod, self._carriers)
        if changed is not None:
            return self._stalled(attempt, changed)
        needs = task_needs(obs.run, self.index, obs.bindings)
        if not isinstance(needs, TaskNeeds):
            return self._stalled(attempt, needs[0])
        attempt = attempt.model_copy(update={"pod_uid": pod.uid})
        subject = Subject(
            obs.run.metadata.labels,
            pod.service_account,
            # What opens the values has them already: it is the operator's own (docs/decisions/0040).
            [
                *(container.image for container in pod.containers if not is_opener(obs, job, container)),
                *pod.volume_images,
            ],
            requester_of(obs.run),
        )
        names_used = sorted({reference.binding for reference in needs.references} - {""})
        denied = access_refusal(obs.run, names_used, subject, obs.bindings)
        if denied is not None:
            return self._stalled(attempt, denied)
        refused = self._refused_lately()
        if refused is not None:
            if refused.permanent:
                return self._end(Outcome.FAILED, refused.reason, str(refused), attempt)
            return self._stalled(attempt, refused)
        if (needs.delivery == SEALED) != job.sealed:
            found = "was made for a Secret" if needs.delivery == SEALED else "was made for sealed delivery"
            refusal = Refusal(
                Reason.DELIVERY_CHANGED,
                f"spec.tasks[{self.index}].delivery",
                f"Job {job.name} {found}, and by now its bindings ask for {needs.delivery}; it gets nothing: change"
                " them back, or make a new run",
                permanent=False,
            )
            return self._stalled(attempt, refusal)
        changed = rewritten(obs, self.index, attempt.number, needs, job, pod)
        if changed is not None:
            seconds, begun = needs.deadline_seconds, attempt.start_time
            if seconds is not None and begun is not None and self._passed(begun, seconds):
                return self._end(*_too_long([pod]), attempt)
            return self._stalled(attempt, changed)
        if job.sealed:
            return self._deliver(job, pod, attempt, needs)
        intended = None
        if not attempt.exposures:
            changes = {
                "exposures": [Exposure(created=self.now, estimated=True)],
                "release_policy": needs.release_policy,
            }
            exposed = attempt.model_copy(update=changes)
            intended = self._result(Verdict(State.RUNNING), (exposed,))
        labels = object_labels(obs.run.metadata.name, obs.run.metadata.uid, self.task.name)
        manifest = manifests.secret(obs.run.metadata.namespace, job.name, job.uid, labels)
        ensure = EnsureSecret(self.task.name, job.name, job.uid, manifest, needs.references, None)
        return self._step(Verdict(State.RUNNING), (attempt,), hand_over=HandOver(ensure, intended))

    def _deliver(self, job: JobView, pod: PodView, attempt: AttemptStatus, needs: TaskNeeds) -> Step:
        """The pod asks for its values and may have them: say which request it is, answer that."""
        request = requests.due(self.obs, pod, attempt)
        if request is None:
            return self._step(self._running(job, [pod]), (attempt,))
        result = None
        if attempt.sealed is None or attempt.sealed.request != request.uid:
            result = self._result(Verdict(State.RUNNING), (requests.intended(attempt, request),))
        action = Deliver(self.task.name, job.name, request, needs.references, None)
        return self._step(Verdict(State.RUNNING), (attempt,), hand_over=HandOver(action, result))

    def _stalled(self, attempt: AttemptStatus, refusal: Refusal) -> Step:
        self._due.append(self.now + RETRY_AFTER)
        verdict = Verdict(State.WAITING, refusal.reason, str(refusal), refusal)
        return self._step(verdict, (attempt,), urgent=True)

    def _stop(
        self, job: JobView, pods: list[PodView], attempt: AttemptStatus
    ) -> tuple[Outcome, str, str] | None:
        """How and why the attempt has to be ended by us, if it has to."""
        spec = self.obs.run.spec
        if self.task.runs != ALWAYS:
            if spec.cancel:
                return Outcome.CANCELLED, Reason.CANCELLED, "cancelled by spec.cancel"
            if self._deadline_over:
                return (
                    Outcome.FAILED,
                    Reason.RUN_DEADLINE_EXCEEDED,
                    f"the run took longer than its activeDeadlineSeconds ({spec.active_deadline_seconds} s)",
                )
        if spec.suspend:
            return Outcome.SUSPENDED, Reason.SUSPENDED, "ended by spec.suspend"
        current = [pod for pod in pods if not pod.over]
        second = next((pod for pod in current if attempt.pod_uid not in (None, pod.uid)), None)
        if second is not None and (attempt.exposures or attempt.sealed is not None):
            # As the Job has but one pod at a time, the one that has the values is not the Job's any more.
            return (
                Outcome.DISRUPTED,
                Reason.POD_REPLACED,
                f"pod {second.name} came beside the pod that was given the secrets, or in its place",
            )
        if current and not any(pod.started for pod in current):
            bound = min((pod.bound_at for pod in current if pod.bound_at is not None), default=self.now)
            deadline = bound + timedelta(seconds=self.task.start_deadline_seconds)
            if deadline <= self.now:
                seen = next((c for pod in current for c in pod.containers if c.waiting), None)
                found = f" (container {seen.name}: {seen.waiting})" if seen else ""
                return at_fault(
                    current,
                    Reason.START_DEADLINE_EXCEEDED,
                    f"no container started within {self.task.start_deadline_seconds} s of the pod getting a"
                    f" node{found}; raise startDeadlineSeconds or mend what keeps it",
                )
            self._due.append(deadline)
        limit = self._lifetime(job, pods, attempt)
        if limit is not None and limit + STOP_MARGIN <= self.now:
            return _too_long(current)
        if limit is not None:
            self._due += [limit, limit + STOP_MARGIN]
        return None

    def _lifetime(self, job: JobView, pods: list[PodView], attempt: AttemptStatus) -> datetime | None:
        """Until when the values may be there: as long as the pod's own deadline.

        That is never longer than the bindings allow, and it stays known when one is deleted meanwhile. Whoever takes
        it out of the pod, or the Job, wins no time: then the other one counts, or the task's.
        """
        known = [
            job.deadline_seconds,
            self.task.active_deadline_seconds,
            *(pod.deadline_seconds for pod in pods),
        ]
        seconds = min((item for item in known if item is not None), default=None)
        if seconds is None:
            return None
        begun = attempt.exposures[-1].created if attempt.exposures else None
        if begun is None and attempt.sealed is not None:
            begun = attempt.sealed.delivered
        unbounded = any(
            pod.deadline_seconds is None or pod.deadline_seconds > seconds for pod in pods if not pod.over
        )
        if begun is None and unbounded:
            begun = attempt.start_time
        return begun + timedelta(seconds=seconds) if begun is not None else None

    def _passed(self, begun: datetime, seconds: int) -> bool:
        """Whether a pod that the kubelet should have ended is ended by us."""
        end = begun + timedelta(seconds=seconds) + STOP_MARGIN
        self._due.append(end)
        return end <= self.now

    def _running(self, job: JobView, pods: list[PodView]) -> Verdict:
        current = [pod for pod in pods if not pod.over]
        blocked = next(
            (c for pod in current if not pod.started for c in pod.containers if _is_trouble(c.waiting)), None
        )
        if blocked is not None:
            reason = "ImagePullBackOff" if blocked.waiting == "ErrImagePull" else blocked.waiting
            return Verdict(State.WAITING, reason, f"container {blocked.name} of pod {current[0].name} waits")
        if pods:
            return Verdict(State.RUNNING)
        found = self._memory.waiting
        if found is not None and found.refusal is not None and found.at >= job.created:
            return Verdict(State.WAITING, found.refusal.reason, str(found.refusal), found.refusal)
        return Verdict(State.WAITING, "NoPod", "waiting for the pod to be made and given a node")

    def _diagnosis(self, job: JobView, pods: list[PodView]) -> tuple[Action, ...]:
        if pods:
            return ()
        last = self._memory.waiting
        earlier = last is None or last.at < job.created
        next_time = job.created + PATIENCE if earlier or last is None else last.at + DIAGNOSE_EVERY
        if next_time <= self.now:
            return (Diagnose(self.task.name, job.name, job.uid),)
        self._due.append(next_time)
        return ()

    # an attempt is over

    def _ended(self, job: JobView, of_job: list[PodView], attempt: AttemptStatus) -> Step:
        """The Job is: what came of it."""
        pods = named_after(job, of_job)
        if job.state is JobState.SUCCEEDED:
            own = own_pods(self.obs.pods, pods, attempt.pod_uid or "")
            seen = any(pod.phase == "Succeeded" for pod in own)
            if not self.obs.fresh and (not seen or self._given_nothing(attempt)):
                return self._step(Verdict(State.RUNNING), (attempt,), refresh=True)
            impostor = NOT_GIVEN if self._given_nothing(attempt) else counted_instead(own, of_job)
            if impostor:
                return self._end(
                    Outcome.FAILED, Reason.POD_REPLACED, impostor, attempt, ended=job.finished_at
                )
            pods = own
        if job.state is JobState.SUCCEEDED and self.task.record_output:
            last = (job.finished_at or self.now) + OUTPUT_PATIENCE
            if not any(pod.over and not pod.gone for pod in pods) and last > self.now:
                self._due.append(last)
                return self._step(Verdict(State.RUNNING), (attempt,))
        found = outcome_of(self.task, job, pods)
        return self._end(
            found.outcome, found.reason, found.message, attempt, ended=job.finished_at, output=found.output
        )

    def _given_nothing(self, attempt: AttemptStatus) -> bool:
        """Whether it needs secrets and has had none: that some are on their way is on record before they are."""
        return bool(self.task.secrets) and not attempt.exposures and attempt.sealed is None

    def _lost(self, recorded: AttemptStatus) -> Step:
        known = self.obs.jobs.get(recorded.job)
        seen_to_go = known is not None and known.gone and known.uid == recorded.job_uid
        running = Verdict(State.RUNNING)
        if not self.obs.fresh and not seen_to_go:
            return self._step(
                running, (recorded,), refresh=True
            )  # not seen yet, as after a start, is not gone
        secret = self.obs.memory.of(recorded.job_uid)
        if may_exist(recorded, secret) and not secret.held_by:
            release = DeleteSecret(recorded.job, recorded.job_uid)
            return self._step(running, (recorded,), releases=(release,))
        attempt, spec = closed(self.obs, recorded), self.obs.run.spec
        if spec.cancel and self.task.runs != ALWAYS:
            return self._end(Outcome.CANCELLED, Reason.CANCELLED, "cancelled by spec.cancel", attempt)
        if spec.suspend:
            return self._end(Outcome.SUSPENDED, Reason.SUSPENDED, "ended by spec.suspend", attempt)
        message = f"Job {recorded.job} is gone, and how its pod ended is not known; make a new run"
        return self._end(Outcome.LOST, Reason.ATTEMPT_LOST, message, attempt)

    def _end(
        self,
        outcome: Outcome,
        reason: str,
        message: str,
        attempt: AttemptStatus,
        *,
        ended: datetime | None = None,
        output: Any = None,
    ) -> Step:
        """The attempt is over; whether the task is depends on how often it may be tried."""
        end = attempt.end_time or (ended or self.now).replace(microsecond=0)
        attempt = attempt.model_copy(
            update={"end_time": end, "outcome": outcome.value, "reason": str(reason)}
        )
        verdict = self._verdict_of((*self._over.attempts, attempt), message)
        if verdict is None:
            # Once this is on record, the next attempt can start.
            verdict = Verdict(State.PENDING, str(reason), message)
            if outcome.counts:
                verdict = Verdict(
                    State.WAITING, Reason.BACK_OFF, f"attempt {attempt.number} failed: {message}"
                )
            return self._step(verdict, (attempt,), urgent=True)
        # Where nothing else is wrong, that a task went well can be said with what follows.
        return self._step(verdict, (attempt,), urgent=verdict.state is not State.SUCCEEDED, output=output)

    def _verdict_of(self, attempts: tuple[AttemptStatus, ...], message: str = "") -> Verdict | None:
        """What the attempts that are over make of the task; None: it can be tried again."""
        if not attempts:
            return None
        last = attempts[-1]
        outcome = Outcome(last.outcome)
        told = message or (self._status.message if self._status is not None else "")
        if outcome is Outcome.SUCCEEDED:
            return Verdict(State.SUCCEEDED)
        if outcome is Outcome.CANCELLED:
            return Verdict(State.CANCELLED, last.reason, told)
        if last.reason in (Reason.RUN_DEADLINE_EXCEEDED, Reason.FAILED_FOR_GOOD):
            return Verdict(State.FAILED, last.reason, told)
        failures = sum(Outcome(item.outcome).counts for item in attempts)
        if outcome.counts and failures > self.task.backoff_limit:
            return Verdict(State.FAILED, last.reason, told)
        disruptions = sum(item.outcome == Outcome.DISRUPTED for item in attempts)
        if outcome is Outcome.DISRUPTED and disruptions > MOST_DISRUPTIONS:
            return Verdict(State.FAILED, last.reason, told)
        if len(attempts) >= MOST_ATTEMPTS:
            message = f"was tried {len(attempts)} times, and more cannot be told of one run; make a new run"
            return Verdict(State.FAILED, Reason.TOO_MANY_ATTEMPTS, message)
        return None

    # results

    def _next_number(self) -> int:
        return self._over.attempts[-1].number + 1 if self._over.attempts else 1

    def _next_name(self) -> str:
        metadata = self.obs.run.metadata
        return attempt_name(metadata.name, metadata.uid, self.task.name, self._next_number())

    def _result(
        self, verdict: Verdict, attempts: tuple[AttemptStatus, ...], output: Any = None
    ) -> TaskResult:
        held = tuple(name for item in attempts for name in self.obs.memory.of(item.job_uid).held_by)
        return TaskResult(
            self.task.name,
            verdict,
            (*self._over.attempts, *attempts),
            output,
            (*self._over.held_by, *held),
        )

    def _step(
        self,
        verdict: Verdict,
        attempts: tuple[AttemptStatus, ...],
        *,
        actions: tuple[Action, ...] = (),
        releases: tuple[DeleteSecret, ...] = (),
        output: Any = None,
        hand_over: HandOver | None = None,
        refresh: bool = False,
        urgent: bool = False,
        patience: timedelta = PATIENCE,
    ) -> Step:
        """``attempts``: the one that goes on or has just ended, if any; those before it are added."""
        return Step(
            self._result(verdict, attempts, output),
            (*self._over.actions, *actions),
            releases,
            tuple(self._due),
            hand_over,
            refresh,
            urgent,
            patience,
        )


def attempts_of(run: WorkflowRun, task: str) -> tuple[AttemptStatus, ...]:
    """The attempts of a task that are on record."""
    return next((tuple(item.attempts) for item in run.status.tasks if item.name == task), ())


def jobs_with_secrets(run: WorkflowRun) -> set[str]:
    """Names of the Jobs that may be going on or come next, and whose pods get secrets."""
    names = set()
    for task in run.spec.tasks:
        if not task.secrets:
            continue
        attempts = attempts_of(run, task.name)
        number = attempts[-1].number + bool(attempts[-1].outcome) if attempts else 1
        names.add(attempt_name(run.metadata.name, run.metadata.uid, task.name, number))
    return names


def trusted(obs: Observation, job: JobView) -> bool:
    """Whether we made this Job: its uid is in the status, which only the operator writes, or in our memory."""
    return job.uid in obs.memory.jobs_made or any(
        attempt.job_uid == job.uid for task in obs.run.status.tasks for attempt in task.attempts
    )


def _dated(attempt: AttemptStatus, pods: list[PodView]) -> AttemptStatus:
    """``attempt`` with when it began, and its pod: of several the one that is given the values, see ``_hand_over``."""
    there = [pod for pod in pods if not pod.over]
    if not attempt.pod_uid and len(there) == 1:
        attempt = attempt.model_copy(update={"pod_uid": there[0].uid})
    if attempt.start_time is not None:
        return attempt
    bound = min((pod.bound_at for pod in pods if pod.bound_at is not None), default=None)
    return attempt.model_copy(update={"start_time": bound})


def _too_long(pods: list[PodView]) -> tuple[Outcome, str, str]:
    message = "the pod was still there after the longest time that its run and bindings allow"
    return at_fault(pods, Reason.LIFETIME_EXCEEDED, message)


def _is_trouble(waiting: str) -> bool:
    return bool(waiting) and waiting not in ("ContainerCreating", "PodInitializing")
