"""What to do next for one run: the heart of Runkeys. Pure: no I/O, no clock of its own, no value of a secret.

The operator observes, plans, acts and plans again until nothing is left to do; ``runkeys plan`` calls the
same function, so a preview cannot differ from what happens. Every decision depends on the observation
alone, never on which event came, so lost, repeated and reordered events lead to the same end (I5).

The order that the invariants need:

* The Job comes first. Its pod cannot start the containers that refer to the Secret until that exists.
* The intent to make a Secret is in the status before the Secret is made, so that a crash between the two
  leaves a record to clean up by (I1).
* A Secret is deleted before the status says so, and an attempt is finished only after that.
* Nothing is created or presumed lost on the word of a cache: :class:`Refresh` comes first. To delete
  needs no fresh read, and the server refuses a status if the run has changed by then.

This module plans the run as a whole: which task may start, and when the run is finished. The planning of one
task and its attempts is in :mod:`runkeys.planning.task`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from runkeys.api import Task, WorkflowRunStatus
from runkeys.planning import leases
from runkeys.planning.actions import (
    Action,
    CheckSources,
    DeleteJob,
    DeleteRequest,
    DeleteRun,
    DeleteSecret,
    PatchStatus,
    Plan,
    PurgeInput,
    Refresh,
)
from runkeys.planning.certificate_requests import clean_up_requests
from runkeys.planning.certificate_requests import refused as refused_requests
from runkeys.planning.exposure import clean_up, closed, may_exist
from runkeys.planning.graph import ALWAYS
from runkeys.planning.observation import JobState, JobView, Observation
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import (
    SecretReference,
    TaskRequirements,
    support_refusal,
    task_requirements,
)
from runkeys.planning.retry import RETRY_AFTER
from runkeys.planning.status import (
    PATIENCE,
    REQUESTS_REFUSED,
    State,
    TaskResult,
    Verdict,
    build_status,
    purging,
)
from runkeys.planning.task import Step, TaskPlanner, attempts_of, trusted

_REFRESH = Plan((Refresh(),), None)


def plan(obs: Observation, now: datetime) -> Plan:
    """The next actions for the run in ``obs``, the status that is due, and when to look again."""
    if obs.run.metadata.deletion_timestamp is not None:
        return plan_deletion(obs, now)
    if obs.run.status.finished:
        return _plan_finished(obs, now)
    return _Open(obs, now).plan()


def plan_deletion(obs: Observation, now: datetime) -> Plan:
    """Clean up a run that is being deleted, or is gone: its Secrets first, then its Jobs, then its leases.

    A finalizer keeps it until its leases have ended, or would have by themselves. Until then its status tells of them.
    """
    recorded = {item.job_uid: item for task in obs.run.status.tasks for item in task.attempts}
    known = {uid: attempt.job for uid, attempt in recorded.items()}
    known |= {job.uid: job.name for job in obs.jobs.values() if trusted(obs, job) or _unrecorded(obs, job)}
    left = [job for job in obs.jobs.values() if job.uid in known and not job.gone]
    actions: list[Action] = []
    for uid, name in known.items():
        secret = obs.memory.of(uid)
        if may_exist(recorded.get(uid), secret) and not secret.held_by:
            actions.append(DeleteSecret(name, uid))
    actions += [DeleteJob(job.name, job.uid) for job in left if not job.deleting]
    actions += [DeleteRequest(item) for item in obs.requests if not item.gone]
    revoked = [leases.revocations(obs.memory, closed(obs, item), now) for item in recorded.values()]
    actions += [action for item in revoked for action in item.actions]
    attempts = [item.attempt for item in revoked]
    if not actions:
        actions += leases.drop_finalizer(obs, attempts)
    due = [moment for item in revoked for moment in item.due]
    if not actions and any(item.open_leases for item in attempts):
        status = leases.in_deletion(obs, attempts, now)
        if status != obs.run.status:
            actions.append(PatchStatus(status))
    return Plan(tuple(actions), None, look_again=_until(now, due))


def _unrecorded(obs: Observation, job: JobView) -> bool:
    """Whether it was made for the run, and is in no status: nothing that was made for it can be for it any more."""
    recorded = {attempt.job_uid for task in obs.run.status.tasks for attempt in task.attempts}
    return job.run_uid == obs.run.metadata.uid != "" and job.uid not in recorded


def _plan_finished(obs: Observation, now: datetime) -> Plan:
    """Plan a run whose status is final: cleanup of leftovers, and its time to live."""
    run = obs.run
    cleaned = [clean_up(obs, attempts_of(run, task.name), now) for task in run.spec.tasks]
    actions = [action for item in cleaned for action in item.actions]
    # A create request was never answered, and arrived late.
    actions += [
        DeleteJob(job.name, job.uid)
        for job in obs.jobs.values()
        if _unrecorded(obs, job) and job.state is JobState.ACTIVE and not job.deleting and not job.gone
    ]
    actions += clean_up_requests(obs)
    if not actions:
        actions += leases.drop_finalizer(obs, [attempt for item in cleaned for attempt in item.attempts])
    due = [moment for item in cleaned for moment in item.due]
    old = {task.name: task for task in run.status.tasks}
    results = [
        TaskResult(
            task.name,
            Verdict(_final(old[task.name].state), old[task.name].reason, old[task.name].message),
            item.attempts,
            old[task.name].output,
            item.held_by,
            leases.told(obs.memory, item.attempts),
        )
        for task, item in zip(run.spec.tasks, cleaned, strict=True)
    ]
    fresh = build_status(run, results, now, refused_requests(obs))
    # Of a final status only what it says of the Secret and of refused requests may still change.
    changing = {
        item.type: item for item in fresh.conditions if item.type in ("SecretsReleased", REQUESTS_REFUSED)
    }
    conditions = [changing.pop(item.type, item) for item in run.status.conditions]
    conditions += [item for item in changing.values() if item.type == REQUESTS_REFUSED]
    tasks = [item.model_copy(update={"state": old[item.name].state}) for item in fresh.tasks]
    changes = {"conditions": conditions, "live": fresh.live, "exposed": fresh.exposed, "tasks": tasks}
    status = run.status.model_copy(update=changes)
    stale = status != run.status
    if stale and not actions:
        actions.append(PatchStatus(status))
    settled = not actions and not due and status.live == 0
    ttl, ended = run.spec.ttl_seconds_after_finished, run.status.completion_time
    if ttl is not None and ended is not None and not actions and status.live == 0:
        expiry = ended + timedelta(seconds=ttl)
        if expiry <= now:
            actions.append(DeleteRun(run.metadata.uid))
        else:
            due.append(expiry)
    return Plan(tuple(actions), status, stale, _until(now, due), settled)


def _final(state: str) -> State:
    """Return the state of a task whose run has finished. A state of a later version counts as failed."""
    known = State(state)
    return known if known.final else State.FAILED


class _Open:
    """Plans a run that has not finished."""

    def __init__(self, obs: Observation, now: datetime) -> None:
        self.obs, self.now = obs, now
        self.due: list[datetime] = []
        self.deadline_over = self._deadline_over()
        self.planners = [
            TaskPlanner(obs, index, now, deadline_over=self.deadline_over)
            for index in range(len(obs.run.spec.tasks))
        ]

    def plan(self) -> Plan:
        # What has begun first: whether anything else may start depends on how that goes.
        steps: dict[str, Step] = {}
        for planner in self.planners:
            step = planner.begun()
            if step is not None:
                steps[planner.task.name] = step
        tried = any(task.attempts for task in self.obs.run.status.tasks)
        if not steps and not tried and not self._ended_before_it_began():
            if not self.obs.fresh:
                return _REFRESH
            refused = self._gate()
            if refused is not None:
                return refused
        for planner in self.planners:
            if planner.task.name not in steps:
                steps[planner.task.name] = self._next(planner, steps)
        return self._combine([steps[planner.task.name] for planner in self.planners])

    def _deadline_over(self) -> bool:
        limit, began = self.obs.run.spec.active_deadline_seconds, self.obs.run.status.start_time
        if limit is None or began is None:
            return False
        end = began + timedelta(seconds=limit)
        if end > self.now:
            self.due.append(end)
        return end <= self.now

    def _ended_before_it_began(self) -> bool:
        spec = self.obs.run.spec
        return (spec.cancel or self.deadline_over) and not any(task.runs == ALWAYS for task in spec.tasks)

    # before anything is started

    def _gate(self) -> Plan | None:
        """What is in the way of any task, found before the first one starts."""
        run = self.obs.run
        references: list[SecretReference] = []
        refused: dict[int, Refusal] = {}
        for index in range(len(run.spec.tasks)):
            requirements = task_requirements(run, index, self.obs.bindings)
            if isinstance(requirements, TaskRequirements):
                references += requirements.references
                unavailable = support_refusal(
                    run, index, requirements, self.obs.support
                ) or leases.limit_refusal(requirements.references)
                if unavailable is not None:
                    refused[index] = unavailable
            else:
                refused[index] = requirements[0]
        permanent = {index: refusal for index, refusal in refused.items() if refusal.permanent}
        if permanent:
            return self._refused(permanent)
        if refused:
            return self._refused(refused)
        found = self.obs.memory.sources
        if found is not None and found.refusal is not None and found.at + RETRY_AFTER > self.now:
            self.due.append(found.at + RETRY_AFTER)
            return self._refused({_index_in(found.refusal): found.refusal})
        failing = next((item for planner in self.planners if (item := planner.failing()) is not None), None)
        if failing is not None and not any(
            task.reason == failing.reason for task in self.obs.run.status.tasks
        ):
            return self._refused({_index_in(failing): failing})
        if references and (found is None or found.refusal is not None or found.at + RETRY_AFTER <= self.now):
            return Plan((CheckSources(tuple(references)),), None)
        return None

    def _refused(self, refused: dict[int, Refusal]) -> Plan:
        permanent = any(refusal.permanent for refusal in refused.values())
        if not permanent:
            self.due.append(self.now + RETRY_AFTER)
        steps = []
        for index, task in enumerate(self.obs.run.spec.tasks):
            refusal = refused.get(index)
            if refusal is not None:
                state = State.FAILED if permanent else State.PENDING
                verdict = Verdict(state, refusal.reason, str(refusal), refusal)
            elif permanent:
                verdict = Verdict(
                    State.SKIPPED, Reason.RUN_FAILED, "another task cannot run as it is written"
                )
            else:
                verdict = Verdict(State.PENDING)
            steps.append(Step(TaskResult(task.name, verdict), urgent=True))
        return self._combine(steps)

    # what may start

    def _next(self, planner: TaskPlanner, steps: dict[str, Step]) -> Step:
        """Plan a task that has nothing running: start it, wait, or end it."""
        task, spec = planner.task, self.obs.run.spec
        states = {name: step.result.verdict.state for name, step in steps.items()}
        always = task.runs == ALWAYS
        failed = next((name for name, state in states.items() if state is State.FAILED), None)
        if not always:
            if spec.cancel:
                return planner.ends(State.CANCELLED, Reason.CANCELLED, "cancelled before it started")
            if self.deadline_over:
                return planner.ends(
                    State.SKIPPED, Reason.RUN_DEADLINE_EXCEEDED, "the run's activeDeadlineSeconds have passed"
                )
            missed = [
                name for name in task.depends_on if states[name].final and states[name] is not State.SUCCEEDED
            ]
            if missed:
                return planner.ends(
                    State.SKIPPED,
                    Reason.DEPENDENCY_FAILED,
                    f"task {missed[0]}, which comes before it, is {states[missed[0]]}",
                )
            if failed is not None:
                return planner.ends(
                    State.SKIPPED, Reason.RUN_FAILED, f"task {failed} failed, so nothing new is started"
                )
        if not self._all_before_are_over(task, states):
            return planner.waits()
        if spec.suspend:
            return planner.waits(Reason.SUSPENDED, "spec.suspend is true")
        outputs = {name: step.result.output for name, step in steps.items() if step.result.output is not None}
        return planner.start(outputs)

    def _all_before_are_over(self, task: Task, states: dict[str, State]) -> bool:
        """Whether all tasks before a task have finished; each task is listed after those that it depends on."""
        before = task.depends_on
        if task.runs == ALWAYS and not before:
            before = [item.name for item in self.obs.run.spec.tasks if item.runs != ALWAYS]
        return all(name in states and states[name].final for name in before)

    # all together

    def _combine(self, steps: Sequence[Step]) -> Plan:
        releases = [action for step in steps for action in step.releases]
        if releases:
            return Plan(tuple(releases), None)
        if any(step.refresh for step in steps):
            return _REFRESH
        tidying = clean_up_requests(self.obs)
        if tidying:
            return Plan(tidying, None)
        due = [*self.due, *(moment for step in steps for moment in step.due)]
        provisioning = next((step.provisioning for step in steps if step.provisioning is not None), None)
        if provisioning is not None:
            intent = record = None
            if provisioning.action.leasing is not None:
                record = build_status(
                    self.obs.run, [step.result for step in steps], self.now, refused_requests(self.obs)
                )
            if provisioning.intended is not None:
                intended = provisioning.intended
                results = [intended if intended.name == step.result.name else step.result for step in steps]
                intent = build_status(self.obs.run, results, self.now, refused_requests(self.obs))
            return Plan((provisioning.ensure(record, intent),), None, look_again=_until(self.now, due))
        actions = tuple(action for step in steps for action in step.actions)
        attempts = [attempt for step in steps for attempt in step.result.attempts]
        actions = actions or leases.drop_finalizer(self.obs, attempts)
        status = build_status(
            self.obs.run, [step.result for step in steps], self.now, refused_requests(self.obs)
        )
        if status.finished and self.obs.run.spec.sealed_input and not actions:
            return self._purge(status)
        stale = status != self.obs.run.status
        if stale and not actions:
            since = self.obs.memory.stale_since
            urgent = status.finished or any(step.urgent for step in steps)
            patience = max((step.patience for step in steps), default=PATIENCE)
            if urgent or (since is not None and since + patience <= self.now):
                return Plan((PatchStatus(status),), status, stale, _until(self.now, due))
            due.append((since or self.now) + patience)
        return Plan(actions, status, stale, _until(self.now, due))

    def _purge(self, status: WorkflowRunStatus) -> Plan:
        """Before a run is finished, and so looked at no more, its sealed input goes.

        What became of the tasks is written first: without their input it could not be told any more.
        """
        if not self.obs.fresh:
            return _REFRESH
        told = purging(status, self.obs.run)
        return Plan((PurgeInput(),) if told == self.obs.run.status else (PatchStatus(told),), told)


def _index_in(refusal: Refusal) -> int:
    """The task that a refusal about one of its sources is about: ``spec.tasks[2].secrets[0].secret``."""
    return int(refusal.field.removeprefix("spec.tasks[").partition("]")[0])


def _until(now: datetime, due: list[datetime]) -> float | None:
    return max(0.05, (min(due) - now).total_seconds()) if due else None
