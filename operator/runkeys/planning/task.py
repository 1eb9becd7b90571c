"""One task of a run: when its next attempt starts, and its verdict from its attempts. Pure, a part of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from runkeys.api import AttemptStatus, TaskStatus, WorkflowRun, WorkflowRunStatus
from runkeys.names import attempt_name
from runkeys.planning import leases, manifests
from runkeys.planning.actions import (
    Action,
    CreateJob,
    DeleteJob,
    DeleteSecret,
    Deliver,
    EnsureSecret,
    RevokeLeases,
)
from runkeys.planning.attempt import AttemptPlanner, AttemptStep, plan_lost
from runkeys.planning.attempt_end import Due
from runkeys.planning.exposure import clean_up, job_of
from runkeys.planning.graph import inputs_of
from runkeys.planning.observation import JobView, Observation
from runkeys.planning.outcome import Ended, of_replaced
from runkeys.planning.refusal import Reason, Refusal, shortened
from runkeys.planning.requirements import TaskRequirements, support_refusal, task_requirements
from runkeys.planning.retry import RETRY_AFTER, next_start, refused_lately, verdict_of
from runkeys.planning.status import PATIENCE, Outcome, State, TaskResult, Verdict

_MOST_MESSAGE = 500
"""Limit on what is kept of why an attempt ended."""


@dataclass(frozen=True)
class Provisioning:
    """A pod waits for its Secret, or for the answer to its request, and may have it.

    :ivar action: without the intent. :ivar intended: the task with what begins; None: it is on record.
    """

    action: EnsureSecret | Deliver
    intended: TaskResult | None

    def ensure(
        self, record: WorkflowRunStatus | None, intent: WorkflowRunStatus | None
    ) -> EnsureSecret | Deliver:
        """The action with the status that says so beforehand; and with the one that tells of its leases before that."""
        leasing = self.action.leasing
        if leasing is None:
            return replace(self.action, intent=intent)
        return replace(self.action, intent=intent or record, leasing=replace(leasing, record=record))


@dataclass(frozen=True)
class Step:
    """Result of planning one task.

    :ivar releases: Secrets to delete and leases to revoke before anything else.
    :ivar refresh: a fresh read is required; caches are not enough.
    :ivar urgent: somebody waits for its status.
    """

    result: TaskResult
    actions: tuple[Action, ...] = ()
    releases: tuple[DeleteSecret | RevokeLeases, ...] = ()
    due: Due = ()
    provisioning: Provisioning | None = None
    refresh: bool = False
    urgent: bool = False
    patience: timedelta = PATIENCE


class TaskPlanner:
    """Plans one task of a run that has not finished."""

    def __init__(self, obs: Observation, index: int, now: datetime, *, deadline_over: bool) -> None:
        self.obs, self.index, self.now = obs, index, now
        self.task = obs.run.spec.tasks[index]
        self._deadline_over = deadline_over
        self._status: TaskStatus | None = next(
            (item for item in obs.run.status.tasks if item.name == self.task.name), None
        )
        self._memory = obs.memory.about(self.task.name)
        recorded = attempts_of(obs.run, self.task.name)
        self._open = recorded[-1] if recorded and not recorded[-1].outcome else None
        over = recorded[:-1] if self._open is not None else recorded
        self._over = clean_up(obs, over, now)

    def begun(self) -> Step | None:
        """The step of a task that has finished or may have a Job; None if nothing of it runs."""
        if self._status is not None and State(self._status.state).final:
            verdict = Verdict(State(self._status.state), self._status.reason, self._status.message)
            return self._step(verdict, output=self._status.output)
        if self._open is not None:
            job = job_of(self.obs, self._open)
            if job is None:
                return self._follow(plan_lost(self.obs, self.task, self._open, self.now))
            return self._attempt(job, self._open)
        told = self._status.message if self._status is not None else ""
        ended = verdict_of(self.task, self._over.attempts, told)
        if ended is not None:
            return self._step(ended)
        job = self.obs.jobs.get(self._next_name())
        if job is None or job.gone:
            return None
        if trusted(self.obs, job) or (not self.task.secrets and self._claims_us(job)):
            # Of this process: a Job of an earlier one that is not on record is replaced.
            unsealer = self.obs.support.image if job.sealed else None
            attempt = AttemptStatus(
                number=self._next_number(), job=job.name, job_uid=job.uid, unsealer=unsealer
            )
            return self._attempt(job, attempt)
        return self._replace(job)

    def waits(self, reason: str = "", message: str = "") -> Step:
        """Not yet its turn."""
        return self._step(Verdict(State.PENDING, reason, message))

    def ends(self, state: State, reason: str, message: str) -> Step:
        """It will not start (again)."""
        last = self._over.attempts[-1] if self._over.attempts else None
        if last is not None and Outcome(last.outcome).counts and state is State.SKIPPED:
            # it did fail, and only its next attempt is what is skipped
            return self._step(Verdict(State.FAILED, last.reason, message), urgent=True)
        return self._step(Verdict(state, reason, message), urgent=True)

    # an attempt begins

    def start(self, outputs: Mapping[str, Any]) -> Step:
        """Create the Job of the next attempt, once it is due.

        :param outputs: outputs of the finished tasks, by task name.
        """
        again = next_start(self._over.attempts)
        if again is not None and again > self.now:
            last = self._over.attempts[-1]
            message = f"{_how(last)}; the next one starts at {again:%H:%M:%S} UTC"
            return self._step(Verdict(State.WAITING, Reason.BACK_OFF, message), due=(again,), urgent=True)
        if not self.obs.fresh:
            return self._step(Verdict(State.PENDING), refresh=True)
        left = of_replaced(self._next_name(), "", self.obs.pods) if self.task.secrets else []
        if left:
            message = (
                f"pod {left[0].name} of a Job that was replaced is still there; this waits until it is gone"
            )
            return self._step(Verdict(State.PENDING, Reason.AMBIGUOUS_PODS, message))
        run = self.obs.run
        requirements = task_requirements(run, self.index, self.obs.bindings)
        if not isinstance(requirements, TaskRequirements):
            return self._refused(requirements[0])
        unavailable = support_refusal(
            run, self.index, requirements, self.obs.support
        ) or leases.limit_refusal(requirements.references)
        if unavailable is not None:
            return self._refused(unavailable)
        found = refused_lately(self._memory, self.now, policies_in_force=self.obs.policies_in_force)
        if found is not None and found.refusal is not None:
            return self._refused(found.refusal, found.at + RETRY_AFTER)
        inputs = inputs_of(run, self.task, outputs)
        if isinstance(inputs, Refusal):
            return self._refused(inputs)
        manifest = manifests.job(run, self.index, self._next_number(), requirements, inputs, self.obs.support)
        create = CreateJob(self.task.name, manifest)
        failing = self.failing()
        if failing is None:
            return self._step(Verdict(State.PENDING), actions=(create,))
        # Report it first, which also starts the run's clock; then retry the request.
        verdict = Verdict(State.PENDING, failing.reason, str(failing), failing)
        said = self._status is not None and self._status.reason == failing.reason
        return self._step(verdict, actions=(create,) if said else (), urgent=True)

    def failing(self) -> Refusal | None:
        """What to say of a request for it that fails again and again."""
        found = self._memory.failing
        return found.told(self.now) if found is not None else None

    def _refused(self, refusal: Refusal, *due: datetime) -> Step:
        if refusal.permanent:
            return self._step(Verdict(State.FAILED, refusal.reason, str(refusal), refusal), urgent=True)
        verdict = Verdict(State.PENDING, refusal.reason, str(refusal), refusal)
        return self._step(verdict, due=(self.now + RETRY_AFTER, *due), urgent=True)

    def _claims_us(self, job: JobView) -> bool:
        return job.controller_uid == self.obs.run.metadata.uid

    def _replace(self, job: JobView) -> Step:
        """A Job has the attempt's name, and nothing on record shows that the operator created it.

        Usually our own answer was lost in a crash; but anybody may write an owner reference, and a Job that
        somebody else made would get our secrets. No Secret has been made for it (the status would say so),
        so none of its containers that need one has started: take it away and make our own, once its pods are gone,
        since they would read the Secret of ours.
        """
        if not self.obs.fresh:
            return self._step(Verdict(State.PENDING), refresh=True)
        if self._claims_us(job):
            actions = () if job.deleting else (DeleteJob(job.name, job.uid),)
            return self._step(Verdict(State.PENDING), actions=actions, due=(self.now + timedelta(seconds=1),))
        refusal = Refusal(
            Reason.NAME_TAKEN,
            "metadata.name",
            f"there is a Job {job.name} that does not belong to this run; delete it",
            permanent=False,
        )
        return self._refused(refusal)

    # an attempt goes on, and ends

    def _attempt(self, job: JobView, attempt: AttemptStatus) -> Step:
        planner = AttemptPlanner(
            self.obs, self.index, self.now, job, attempt, deadline_over=self._deadline_over
        )
        return self._follow(planner.plan())

    def _follow(self, step: AttemptStep) -> Step:
        """What the step of an attempt means for the task."""
        if step.ended is not None:
            return self._ended(step.attempt, step.ended, step.ended_at or self.now)
        provisioning = None
        if step.provision is not None:
            intended = step.intended
            result = self._result(Verdict(State.RUNNING), (intended,)) if intended is not None else None
            provisioning = Provisioning(step.provision, result)
        return self._step(
            step.verdict,
            (step.attempt,),
            actions=step.actions,
            releases=step.releases,
            due=step.due,
            provisioning=provisioning,
            refresh=step.refresh,
            urgent=step.urgent,
            patience=step.patience,
        )

    def _ended(self, attempt: AttemptStatus, ended: Ended, at: datetime) -> Step:
        """The attempt has finished; whether the task has depends on how often it may be retried."""
        attempt = attempt.model_copy(
            update={
                "end_time": attempt.end_time or at.replace(microsecond=0),
                "outcome": ended.outcome.value,
                "reason": str(ended.reason),
                "message": shortened(ended.message, _MOST_MESSAGE) or None,
            }
        )
        told = ended.message or (self._status.message if self._status is not None else "")
        verdict = verdict_of(self.task, (*self._over.attempts, attempt), told)
        if verdict is None:
            # Once this is on record, the next attempt can start.
            verdict = Verdict(State.PENDING, str(ended.reason), ended.message)
            if ended.outcome.counts:
                message = f"attempt {attempt.number} failed: {ended.message}"
                verdict = Verdict(State.WAITING, Reason.BACK_OFF, message)
            return self._step(verdict, (attempt,), urgent=True)
        # Where nothing else is wrong, that a task went well can be said with what follows.
        urgent = verdict.state is not State.SUCCEEDED
        return self._step(verdict, (attempt,), urgent=urgent, output=ended.output)

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
            leases.told(self.obs.memory, (*self._over.attempts, *attempts)),
        )

    def _step(
        self,
        verdict: Verdict,
        attempts: tuple[AttemptStatus, ...] = (),
        *,
        actions: tuple[Action, ...] = (),
        releases: tuple[DeleteSecret | RevokeLeases, ...] = (),
        due: Due = (),
        output: Any = None,
        provisioning: Provisioning | None = None,
        refresh: bool = False,
        urgent: bool = False,
        patience: timedelta = PATIENCE,
    ) -> Step:
        """``attempts``: the running one, or the one that has just ended, if any. Earlier ones are added here."""
        return Step(
            self._result(verdict, attempts, output),
            (*self._over.actions, *actions),
            releases,
            (*self._over.due, *due),
            provisioning,
            refresh,
            urgent,
            patience,
        )


def _how(attempt: AttemptStatus) -> str:
    """How a finished attempt ended, for the message while the next one waits."""
    why = attempt.message or attempt.reason
    failed = attempt.outcome != Outcome.DISRUPTED or attempt.reason == Reason.JOB_FAILED
    return f"attempt {attempt.number} {'failed' if failed else 'was disrupted'}: {why}"


def attempts_of(run: WorkflowRun, task: str) -> tuple[AttemptStatus, ...]:
    """The recorded attempts of a task."""
    return next((tuple(item.attempts) for item in run.status.tasks if item.name == task), ())


def jobs_with_secrets(run: WorkflowRun) -> set[str]:
    """Names of the Jobs that may be running or next, and whose pods get secrets."""
    names = set()
    for task in run.spec.tasks:
        if not task.secrets:
            continue
        attempts = attempts_of(run, task.name)
        number = attempts[-1].number + bool(attempts[-1].outcome) if attempts else 1
        names.add(attempt_name(run.metadata.name, run.metadata.uid, task.name, number))
    return names


def trusted(obs: Observation, job: JobView) -> bool:
    """Whether the operator created this Job: its uid is in the status, which only the operator writes, or in memory."""
    return job.uid in obs.memory.jobs_made or any(
        attempt.job_uid == job.uid for task in obs.run.status.tasks for attempt in task.attempts
    )
