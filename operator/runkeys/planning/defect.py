"""The rest of a run whose planning raised an exception: its Secrets are deleted, and its status says why. Pure.

It depends on as little as possible. In particular it does not look at the templates of the run.
"""

from __future__ import annotations

from datetime import datetime

from runkeys.api import WorkflowRunStatus
from runkeys.api.conditions import next_condition
from runkeys.planning import leases
from runkeys.planning.actions import Action, DeleteJob, DeleteRequest, DeleteSecret, PatchStatus, Plan
from runkeys.planning.exposure import DELETE_AGAIN_AFTER, closed, job_of, may_exist
from runkeys.planning.observation import JobState, Observation
from runkeys.planning.refusal import Reason
from runkeys.planning.status import State
from runkeys.planning.task import trusted

_ADVICE = (
    "This is a defect of Runkeys, and not of your program. Runkeys starts nothing more for this run, has deleted its"
    " Secrets, and tries again now and then. Please open an issue in the Runkeys project with this message, the version"
    " of the operator and the run without its confidential parts. A new run without the unusual part may work"
)


def plan_after_defect(obs: Observation, now: datetime, what: str) -> Plan:
    """Return the deletions that are due; when there are none left, the status.

    Attempts that run may go on, except in a run that is cancelled or suspended.

    :param what: type and place of the exception, without its text, which may quote a value.
    """
    actions: list[Action] = [*_secrets(obs, now)]
    actions += [DeleteRequest(item) for item in obs.requests if item.state == "Issued" and not item.gone]
    actions += _leases(obs, now)
    if obs.run.spec.cancel or obs.run.spec.suspend:
        actions += [
            DeleteJob(job.name, job.uid)
            for job in obs.jobs.values()
            if trusted(obs, job) and not job.deleting and not job.gone
        ]
    if actions or obs.run.status.finished:
        return Plan(tuple(actions), None)
    status = _status(obs, now, what)
    return Plan((PatchStatus(status),) if status != obs.run.status else (), status)


def _secrets(obs: Observation, now: datetime) -> list[DeleteSecret]:
    recorded = {item.job_uid: item for task in obs.run.status.tasks for item in task.attempts}
    names = {uid: attempt.job for uid, attempt in recorded.items()}
    names |= {job.uid: job.name for job in obs.jobs.values() if trusted(obs, job)}
    found = []
    for uid, name in names.items():
        attempt, secret = recorded.get(uid), obs.memory.of(uid)
        # A request to create it that was never answered may still arrive.
        may_arrive = (
            attempt is not None and any(item.estimated for item in attempt.exposures) and name in obs.jobs
        )
        again = secret.last_delete is None or secret.last_delete + DELETE_AGAIN_AFTER <= now
        if (may_exist(attempt, secret) or may_arrive) and again:
            found.append(DeleteSecret(name, uid))
    return found


def _leases(obs: Observation, now: datetime) -> list[Action]:
    """Those of attempts whose Job has ended, or is to end. What runs keeps its credential until the store ends it."""
    stop = obs.run.spec.cancel or obs.run.spec.suspend
    found: list[Action] = []
    for attempt in (item for task in obs.run.status.tasks for item in task.attempts):
        job = job_of(obs, attempt)
        if stop or job is None or job.state is not JobState.ACTIVE:
            found += leases.revocations(obs.memory, attempt, now).actions
    return found


def _status(obs: Observation, now: datetime, what: str) -> WorkflowRunStatus:
    old, generation, moment = obs.run.status, obs.run.metadata.generation, now.replace(microsecond=0)
    tasks = [
        task.model_copy(
            update={"attempts": [leases.followed(obs.memory, closed(obs, item)) for item in task.attempts]}
        )
        for task in old.tasks
    ]
    open_still = [
        exposure
        for task in tasks
        for attempt in task.attempts
        for exposure in attempt.exposures
        if exposure.deleted is None
    ]
    leased = sum(len(attempt.open_leases) for task in tasks for attempt in task.attempts)
    released = (
        ("Live", "a Secret of this run may exist, or a lease of it is open")
        if open_still or leased
        else ("NotFinished", "no Secret exists now")
    )
    said = {
        "Reconciling": (False, Reason.DEFECT.value, ""),
        "Stalled": (True, Reason.DEFECT.value, f"the operator raised {what}. {_ADVICE}"),
        "SecretsReleased": (False, *released),
    }
    conditions = {item.type: item for item in old.conditions} | {
        kind: next_condition(old.conditions, kind, *of_kind, generation=generation, now=moment)
        for kind, of_kind in said.items()
    }
    changes = {
        "observed_generation": generation,
        "phase": old.phase or State.PENDING.value,
        "start_time": old.start_time or moment,
        "tasks": tasks,
        "live": len(open_still) + leased,
        "conditions": list(conditions.values()),
    }
    return old.model_copy(update=changes)
