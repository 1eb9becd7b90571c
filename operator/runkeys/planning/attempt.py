"""Plans one attempt of a task while its Job exists: its pod, its values, its end. Pure, a part of the plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from runkeys.api import AttemptStatus, Exposure, Task
from runkeys.api.binding import ON_START, SEALED
from runkeys.names import object_labels
from runkeys.planning import certificate_requests, leases, manifests, waiting
from runkeys.planning.access import Subject
from runkeys.planning.actions import (
    Action,
    DeleteSecret,
    Deliver,
    Diagnose,
    EnsureSecret,
    Leasing,
    LookForSecret,
    RevokeLeases,
)
from runkeys.planning.attempt_end import STOP_MARGIN, AttemptEnd, Due, asked_to_end, too_long
from runkeys.planning.bindings import access_refusal, requester_of
from runkeys.planning.exposure import closed, may_exist
from runkeys.planning.observation import JobState, JobView, Observation, PodView
from runkeys.planning.outcome import (
    NOT_GIVEN,
    Ended,
    counted_instead,
    named_after,
    of_replaced,
    outcome_of,
    own_pods,
)
from runkeys.planning.own_pod import added_reader, is_unsealer, rewritten
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import PodIdentity, TaskRequirements, task_requirements
from runkeys.planning.retry import RETRY_AFTER, refused_lately
from runkeys.planning.status import ENDING, PATIENCE, Outcome, State, Verdict

DIAGNOSE_EVERY = timedelta(seconds=15)

OUTPUT_PATIENCE = timedelta(seconds=60)
"""How long to wait for the pod of a succeeded Job, if its output is wanted and no watch has shown it yet."""

_RUNNING = Verdict(State.RUNNING)


@dataclass(frozen=True)
class AttemptStep:
    """Result of planning one attempt.

    :ivar attempt: as the status is to show it.
    :ivar verdict: the state of the task while the attempt runs.
    :ivar ended: the outcome, if it has ended; ``ended_at``: when, None: now.
    :ivar releases: Secrets to delete and leases to revoke before anything else.
    :ivar provision: gives the pod its values; without the intent.
    :ivar intended: the attempt with what begins by that; None: it is on record.
    :ivar refresh: a fresh read is required; caches are not enough.
    :ivar urgent: somebody waits for its status.
    """

    attempt: AttemptStatus
    verdict: Verdict = _RUNNING
    ended: Ended | None = None
    ended_at: datetime | None = None
    actions: tuple[Action, ...] = ()
    releases: tuple[DeleteSecret | RevokeLeases, ...] = ()
    due: Due = ()
    provision: EnsureSecret | Deliver | None = None
    intended: AttemptStatus | None = None
    refresh: bool = False
    urgent: bool = False
    patience: timedelta = PATIENCE


def plan_lost(obs: Observation, task: Task, recorded: AttemptStatus, now: datetime) -> AttemptStep:
    """The step of an attempt whose Job is absent."""
    known = obs.jobs.get(recorded.job)
    seen_to_go = known is not None and known.gone and known.uid == recorded.job_uid
    if not obs.fresh and not seen_to_go:
        return AttemptStep(recorded, refresh=True)  # a Job not seen yet, as after a start, is not gone
    secret = obs.memory.of(recorded.job_uid)
    if may_exist(recorded, secret) and not secret.held_by:
        return AttemptStep(recorded, releases=(DeleteSecret(recorded.job, recorded.job_uid),))
    found = leases.revocations(obs.memory, closed(obs, recorded), now)
    if found.actions:
        return AttemptStep(found.attempt, releases=found.actions)
    attempt = found.attempt
    asked = asked_to_end(obs, task)
    message = f"Job {recorded.job} no longer exists, and how its pod ended is not known; create a new run"
    return AttemptStep(attempt, ended=asked or Ended(Outcome.LOST, Reason.ATTEMPT_LOST, message))


class AttemptPlanner:
    """Plans one attempt of a task that has a Job."""

    def __init__(
        self,
        obs: Observation,
        index: int,
        now: datetime,
        job: JobView,
        attempt: AttemptStatus,
        *,
        deadline_over: bool,
    ) -> None:
        """``attempt``: as it is on record, or as it would be. ``deadline_over``: that of the run."""
        self.obs, self.index, self.now, self.job = obs, index, now, job
        self.task = obs.run.spec.tasks[index]
        self._secret_containers = self.task.secret_containers
        self._memory = obs.memory.about(self.task.name)
        self._of_job = [pod for pod in obs.pods if pod.job_uid == job.uid]
        self._pods = named_after(job, self._of_job)
        self._current = [pod for pod in self._pods if not pod.over]
        self._recorded = attempt
        self._end = AttemptEnd(obs, self.task, job, attempt, self._pods, now, deadline_over)
        # As it was when the Job was created: an upgrade changes the operator's image while pods wait.
        self._support = replace(obs.support, image=attempt.unsealer or obs.support.image)

    def plan(self) -> AttemptStep:
        """The next step."""
        stop, due = self._end.stop()
        return self._plan(stop, due)

    def _plan(self, stop: Ended | None, due: Due) -> AttemptStep:
        job, pods, secret = self.job, self._pods, self.obs.memory.of(self.job.uid)
        done = bool(pods) and all(pod.done_with(self._secret_containers) for pod in pods)
        limit = self._end.lifetime()
        expired = limit is not None and limit <= self.now
        over = job.state is not JobState.ACTIVE or stop is not None or done or expired
        if (over or self._all_started()) and may_exist(self._recorded, secret) and not secret.held_by:
            release = DeleteSecret(job.name, job.uid)
            return AttemptStep(self._recorded, self._state(), releases=(release,), due=due)
        attempt = certificate_requests.followed(
            _dated(closed(self.obs, self._recorded), pods), self.obs, pods
        )
        # A lease lasts as long as the containers run, whenever the Secret goes.
        found = leases.revocations(self.obs.memory, attempt, self.now)
        attempt = found.attempt
        if over:
            if found.actions:
                return AttemptStep(attempt, self._state(), releases=found.actions, due=due)
            due = (*due, *found.due)
        if job.state is not JobState.ACTIVE:
            return self._finished(attempt)
        if stop is not None:
            return AttemptStep(attempt, ended=stop)
        if self._end.lacks_its_pod():
            return AttemptStep(attempt, self._state(), refresh=True)
        lost, again = self._end.key_lost(attempt)
        due = (*due, *again)
        if lost is not None:
            if not self.obs.fresh:
                return AttemptStep(attempt, self._state(), refresh=True)
            return AttemptStep(attempt, ended=lost)
        if self._awaits_values(attempt) and not expired:
            step = self._provision(attempt)
            return replace(step, due=(*due, *step.due))
        actions, again = self._diagnosis()
        patience = ENDING if done else PATIENCE
        return AttemptStep(attempt, self._state(), actions=actions, due=(*due, *again), patience=patience)

    def _all_started(self) -> bool:
        """Whether values may be deleted while containers run: the kubelet reads them when it creates a container."""
        return (
            self._recorded.release_policy == ON_START
            and bool(self._pods)
            and all(pod.has_started(self._secret_containers) for pod in self._pods)
        )

    def _awaits_values(self, attempt: AttemptStatus) -> bool:
        """Whether a pod waits for values that this process has not given it yet, and a kubelet is there to read them.

        The kubelet says that it has a pod before it looks for the Secret, but not so long before that the Secret would
        come in time. So that a scheduler chose the node is believed, and for how long: see :mod:`.waiting`.
        A deleted Secret is not created again: its time has passed. If the containers have started, the Secret
        existed, even if this process does not remember it (because it started later).
        """
        secret = self.obs.memory.of(self.job.uid)
        over = bool(attempt.exposures) and attempt.exposures[-1].deleted is not None
        known = secret.made_at or secret.gone_at or secret.held_by
        if not self.task.secrets or self.job.deleting or over or known:
            return False
        pods = [pod for pod in self._pods if pod.awaits(self._secret_containers)]
        if self.job.sealed:
            return any(certificate_requests.due(self.obs, pod, attempt) for pod in pods)
        return any(pod.taken or pod.scheduled for pod in pods)

    # its values

    def _provision(self, attempt: AttemptStatus) -> AttemptStep:
        """A pod has a node and may start as soon as it has its values: check it, say so, provide them."""
        obs = self.obs
        unused = self._unused_leases(attempt)
        if unused is not None:
            return unused
        if not obs.fresh:
            return AttemptStep(attempt, self._state(), refresh=True)
        # What is sealed is sealed for one pod. A Secret is for every pod that names it.
        others = [] if self.job.sealed else of_replaced(self.job.name, self.job.uid, obs.pods)
        if len(self._current) + len(others) > 1:
            names = ", ".join(sorted(pod.name for pod in (*self._current, *others)))
            refusal = Refusal(
                Reason.AMBIGUOUS_PODS,
                f"Job {self.job.name}",
                f"several pods claim to be this attempt's one pod: {names}; delete those that somebody else created",
                permanent=False,
            )
            return self._stalled(attempt, refusal)
        pod = self._current[0]
        changed = added_reader(self._support, self.job, pod, self._secret_containers)
        if changed is not None:
            return self._outdated(attempt, changed) or self._stalled(attempt, changed)
        requirements = task_requirements(obs.run, self.index, obs.bindings)
        if not isinstance(requirements, TaskRequirements):
            return self._stalled(attempt, requirements[0])
        attempt = attempt.model_copy(update={"pod_uid": pod.uid})
        refused = self._access_refusal(pod, requirements)
        if refused is not None:
            return self._stalled(attempt, refused)
        found = refused_lately(self._memory, self.now, policies_in_force=obs.policies_in_force)
        if found is not None and found.refusal is not None:
            if found.refusal.permanent:
                ended = Ended(Outcome.FAILED, found.refusal.reason, str(found.refusal))
                return AttemptStep(attempt, ended=ended)
            return self._stalled(attempt, found.refusal, found.at + RETRY_AFTER)
        changed = self._delivery_changed(requirements) or leases.too_many(attempt)
        if changed is not None:
            return self._stalled(attempt, changed)
        changed = rewritten(obs, self._support, self.index, attempt.number, requirements, self.job, pod)
        if changed is not None:
            outdated = self._outdated(attempt, changed)
            if outdated is not None:
                return outdated
            seconds, begun = requirements.deadline_seconds, attempt.start_time
            if seconds is None or begun is None:
                return self._stalled(attempt, changed)
            end = begun + timedelta(seconds=seconds) + STOP_MARGIN
            if end <= self.now:
                return AttemptStep(attempt, ended=too_long([pod]))
            return self._stalled(attempt, changed, end)
        if self.job.sealed:
            return self._deliver(pod, attempt, requirements)
        return self._ensure_secret(pod, attempt, requirements)

    def _outdated(self, attempt: AttemptStatus, changed: Refusal) -> AttemptStep | None:
        """The end of an attempt that an operator of another version began, and whose pod is not as this one makes it.

        It may have been changed on its way, too, but that shows with the next attempt, which is of this version.
        """
        if not self.job.sealed or attempt.unsealer == self.obs.support.image:
            return None
        message = f"the operator was upgraded while the pod waited for its values: {changed}"
        return AttemptStep(attempt, ended=Ended(Outcome.DISRUPTED, Reason.DISRUPTED, message))

    def _access_refusal(self, pod: PodView, requirements: TaskRequirements) -> Refusal | None:
        """Why the bindings do not admit the pod as it was created; None if they do."""
        subject = Subject(
            self.obs.run.metadata.labels,
            pod.service_account,
            # The unseal container has the values anyway: it is the operator's own (docs/decisions/0040).
            [
                *(item.image for item in pod.containers if not is_unsealer(self._support, self.job, item)),
                *pod.volume_images,
            ],
            requester_of(self.obs.run),
        )
        names = sorted({reference.binding for reference in requirements.references} - {""})
        return access_refusal(self.obs.run, names, subject, self.obs.bindings)

    def _delivery_changed(self, requirements: TaskRequirements) -> Refusal | None:
        if (requirements.delivery == SEALED) == self.job.sealed:
            return None
        found = (
            "was created for sealed delivery" if self.job.sealed else "was created for delivery by a Secret"
        )
        return Refusal(
            Reason.DELIVERY_CHANGED,
            f"spec.tasks[{self.index}].delivery",
            f"Job {self.job.name} {found}, but its bindings now ask for {requirements.delivery}, so it gets no"
            " secrets: change them back, or create a new run",
            permanent=False,
        )

    def _unused_leases(self, attempt: AttemptStatus) -> AttemptStep | None:
        """Leases of an earlier try to give the pod its values are revoked before the next one; None if there are none.

        Their values are lost. If they did reach the cluster before the answer was lost, the pod has them, and keeps
        them.
        """
        left = leases.unused(self.obs.memory, attempt)
        if not left:
            return None
        job = self.job
        if attempt.exposures and self.obs.memory.of(job.uid).absent_at is None:
            look = LookForSecret(job.name, job.uid, self._secret())
            return AttemptStep(attempt, self._state(), actions=(look,))
        return AttemptStep(attempt, self._state(), releases=(RevokeLeases(job.name, job.uid, left),))

    def _secret(self) -> dict[str, Any]:
        """The attempt's Secret without its data."""
        job, metadata = self.job, self.obs.run.metadata
        labels = object_labels(metadata.name, metadata.uid, self.task.name)
        return manifests.secret(metadata.namespace, job.name, job.uid, labels)

    def _leasing(self, requirements: TaskRequirements) -> Leasing | None:
        seconds = requirements.deadline_seconds
        if seconds is None or not leases.leased(requirements.references):
            return None
        return Leasing(self.job.uid, seconds)

    def _ensure_secret(
        self, pod: PodView, attempt: AttemptStatus, requirements: TaskRequirements
    ) -> AttemptStep:
        intended = None
        if not attempt.exposures:
            changes = {
                "exposures": [Exposure(created=self.now, estimated=True)],
                "release_policy": requirements.release_policy,
            }
            intended = attempt.model_copy(update=changes)
        job = self.job
        ensure = EnsureSecret(
            self.task.name,
            job.name,
            job.uid,
            self._secret(),
            requirements.references,
            None,
            self._identity(pod),
            self._leasing(requirements),
        )
        return AttemptStep(attempt, provision=ensure, intended=intended)

    def _deliver(self, pod: PodView, attempt: AttemptStatus, requirements: TaskRequirements) -> AttemptStep:
        """The pod asks for its values and may have them: say which request it is, answer that."""
        request = certificate_requests.due(self.obs, pod, attempt)
        if request is None:
            return AttemptStep(attempt, self._state())
        intended = None
        if attempt.sealed is None or attempt.sealed.request != request.uid:
            intended = certificate_requests.intended(attempt, request)
        action = Deliver(
            self.task.name,
            self.job.name,
            request,
            requirements.references,
            None,
            self._identity(pod),
            self._leasing(requirements),
        )
        return AttemptStep(attempt, provision=action, intended=intended)

    def _identity(self, pod: PodView) -> PodIdentity:
        return PodIdentity(self.obs.run.metadata.namespace, pod.service_account, pod.name, pod.uid)

    def _stalled(self, attempt: AttemptStatus, refusal: Refusal, *due: datetime) -> AttemptStep:
        verdict = Verdict(State.WAITING, refusal.reason, str(refusal), refusal)
        return AttemptStep(attempt, verdict, due=(self.now + RETRY_AFTER, *due), urgent=True)

    # how it stands

    def _state(self) -> Verdict:
        if self.job.suspended and not self._end.had_a_pod():
            found = waiting.suspended(self.job)
            return Verdict(State.WAITING, found.reason, str(found), found)
        unreachable, _ = waiting.not_taken(self._current, self.now)
        if unreachable is not None:
            return Verdict(State.WAITING, unreachable.reason, str(unreachable), unreachable)
        blocked = waiting.trouble(self._current, self._secret_containers)
        if blocked is not None:
            return blocked
        if self._pods:
            return _RUNNING
        last = self._memory.waiting
        if last is not None and last.refusal is not None and last.at >= self.job.created:
            return Verdict(State.WAITING, last.refusal.reason, str(last.refusal), last.refusal)
        return Verdict(State.WAITING, "NoPod", "waiting for the pod to be created and to get a node")

    def _diagnosis(self) -> tuple[tuple[Action, ...], Due]:
        """The diagnosis of a missing pod, if one is due; else when it is due, or when there is something to say."""
        if self._pods:
            _, due = waiting.not_taken(self._current, self.now)
            return (), ((due,) if due is not None else ())
        if self.job.suspended:
            return (), (self.now + DIAGNOSE_EVERY,)
        last = self._memory.waiting
        if last is None or last.at < self.job.created:
            next_time = self.job.created + PATIENCE
        else:
            next_time = last.at + DIAGNOSE_EVERY
        if next_time <= self.now:
            return (Diagnose(self.task.name, self.job.name, self.job.uid),), ()
        return (), (next_time,)

    # its end

    def _finished(self, attempt: AttemptStatus) -> AttemptStep:
        """The Job has finished: derive the attempt's outcome."""
        job, pods = self.job, self._pods
        if job.state is JobState.SUCCEEDED:
            pods = own_pods(self.obs.pods, pods, attempt.pod_uid or "")
            # The attempt needs values, and an intent is on record before any value is provided.
            nothing_given = bool(self.task.secrets) and not attempt.exposures and attempt.sealed is None
            seen = any(pod.phase == "Succeeded" for pod in pods)
            if not self.obs.fresh and (not seen or nothing_given):
                return AttemptStep(attempt, refresh=True)
            wrong = NOT_GIVEN if nothing_given else counted_instead(pods, self._of_job)
            if wrong:
                ended = Ended(Outcome.FAILED, Reason.POD_REPLACED, wrong)
                return AttemptStep(attempt, ended=ended, ended_at=job.finished_at)
            if self.task.record_output and not any(pod.over and not pod.gone for pod in pods):
                last = (job.finished_at or self.now) + OUTPUT_PATIENCE
                if last > self.now:
                    return AttemptStep(attempt, due=(last,))
        return AttemptStep(attempt, ended=outcome_of(self.task, job, pods), ended_at=job.finished_at)


def _dated(attempt: AttemptStatus, pods: list[PodView]) -> AttemptStatus:
    """``attempt`` with its start time and its pod; if there are several, the one that is given the values."""
    there = [pod for pod in pods if not pod.over]
    if not attempt.pod_uid and len(there) == 1:
        attempt = attempt.model_copy(update={"pod_uid": there[0].uid})
    if attempt.start_time is not None:
        return attempt
    bound = min((pod.bound_at for pod in pods if pod.bound_at is not None), default=None)
    return attempt.model_copy(update={"start_time": bound})
