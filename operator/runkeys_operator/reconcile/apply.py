"""Carries out the actions of a plan; each returns the observation that follows from its answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from runkeys import documents
from runkeys.actions import (
    Action,
    CheckSources,
    CreateJob,
    DeleteJob,
    DeleteRequest,
    DeleteRun,
    DeleteSecret,
    Deliver,
    DenyRequest,
    Diagnose,
    EnsureSecret,
    PatchStatus,
    PurgeInput,
    Refresh,
)
from runkeys.api import AttemptStatus, WorkflowRun, WorkflowRunStatus
from runkeys.needs import SecretReference, TaskNeeds, task_needs
from runkeys.observation import Failing, Finding, JobView, Memory, Observation, RequestView, SecretMemory
from runkeys.refusal import Reason, Refusal
from runkeys.status import finished
from runkeys_operator import metrics
from runkeys_operator.authorize import Authorizer
from runkeys_operator.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound, NotLeader
from runkeys_operator.guard import Guard
from runkeys_operator.kube import JOBS, RUNS, SECRETS, Kube
from runkeys_operator.material.sources import SourceRefusedError, Sources
from runkeys_operator.reconcile.diagnose import why_no_pod
from runkeys_operator.reconcile.events import announce
from runkeys_operator.reconcile.requests import Delivery
from runkeys_operator.reconcile.store import Store

log = logging.getLogger(__name__)

_BAD_REQUEST = 400

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_JOBS_AT_ONCE = 8
"""Of one run. All requests share the API server, and each one that is under way needs a connection."""

OneAtATime = (
    CheckSources
    | DeleteJob
    | DeleteRun
    | DeleteRequest
    | DeleteSecret
    | Deliver
    | DenyRequest
    | Diagnose
    | EnsureSecret
    | PatchStatus
    | PurgeInput
    | Refresh
)


@dataclass(frozen=True)
class _JobAnswer:
    """What came of a request to create a Job.

    :ivar made: by this request; else one of its name was there already.
    """

    raw: Mapping[str, Any] = field(default_factory=dict)
    made: bool = False
    refused: ApiError | None = None


class Applier:
    """The only writer to the cluster. Raises :class:`ApiError` where trying again is all there is to do."""

    def __init__(
        self,
        kube: Kube,
        sources: Sources,
        jobs: Store[JobView],
        guard: Guard,
        delivery: Delivery,
        clock: Callable[[], datetime],
    ) -> None:
        self._kube = kube
        self._guard = guard
        self._delivery = delivery
        self._jobs = jobs
        self._sources = sources
        self._authorizer = Authorizer(kube)
        self._now = clock

    async def apply(self, actions: Iterable[Action], obs: Observation) -> AsyncIterator[Observation]:
        """Do ``actions`` in their order, Jobs last and side by side; after each say what is known by then.

        What was achieved is told before a failure is raised.
        """
        jobs = []
        for action in actions:
            log.debug("%s", type(action).__name__, extra={"run": obs.run.key})
            if isinstance(action, CreateJob):
                jobs.append(action)
            elif isinstance(action, CheckSources):
                asked, task = self._now(), _task_of(action, obs)
                try:
                    obs = _without_failing(task, await self._apply(action, obs))
                except ApiError as error:
                    yield self._failing(task, error, asked, obs)
                    raise
                yield obs
            else:
                obs = await self._apply(action, obs)
                yield obs
        if jobs:
            obs, failed = await self._create_jobs(jobs, obs)
            yield obs
            if failed is not None:
                raise failed

    async def _apply(self, action: OneAtATime, obs: Observation) -> Observation:
        match action:
            case Refresh():
                return obs  # whoever keeps the observations does it
            case DeleteSecret():
                return await self._delete_secret(action, obs)
            case EnsureSecret():
                return await self._ensure_secret(action, obs)
            case Deliver():
                return await self._deliver(action, obs)
            case DenyRequest():
                return self._with_requests(obs, await self._delivery.deny(action.request, action.message))
            case DeleteRequest():
                return self._with_requests(obs, await self._delivery.delete(action.request))
            case PatchStatus():
                return await self._patch_status(action, obs)
            case CheckSources():
                return await self._check_sources(action, obs)
            case DeleteJob():
                return await self._delete_job(action, obs)
            case Diagnose():
                return await self._diagnose(action, obs)
            case PurgeInput():
                return await self._purge_input(obs)
            case DeleteRun():
                return await self._delete_run(action, obs)

    async def _delete_secret(self, action: DeleteSecret, obs: Observation) -> Observation:
        secret = obs.memory.of(action.job_uid)
        held: tuple[str, ...] = ()
        try:
            answer = await self._kube.delete(SECRETS, obs.run.metadata.namespace, action.name)
            if not answer.gone:
                held = answer.finalizers or ("unknown",)
        except NotFound:
            pass
        now = self._now()
        gone = (secret.gone_at or now) if not held else None
        if gone is not None and secret.gone_at is None:
            self._tell_gone(action, obs, gone)
        elif held:
            log.warning("secret held by %s", ", ".join(held), extra=_about(obs, action.name))
        return _with_secret(obs, action.job_uid, replace(secret, gone_at=gone, held_by=held, last_delete=now))

    def _tell_gone(self, action: DeleteSecret, obs: Observation, gone: datetime) -> None:
        metrics.bound.forget(action.job_uid)
        metrics.ended.observe(action.job_uid, metrics.end_to_gone_seconds)
        attempt = _attempt(obs, action.name)
        created = (
            next((item.created for item in attempt.exposures if not item.deleted), None) if attempt else None
        )
        made = obs.memory.of(action.job_uid).made_at or created
        seconds = max(0.0, (gone - made).total_seconds()) if made is not None else None
        if attempt is not None and seconds is not None:
            metrics.exposure_seconds.labels(attempt.release_policy).observe(seconds)
        about = _about(obs, action.name)
        log.info("secret gone", extra=about if seconds is None else {**about, "seconds": round(seconds, 3)})

    async def _ensure_secret(self, action: EnsureSecret, obs: Observation) -> Observation:
        namespace = obs.run.metadata.namespace
        values = await self._values(action, obs)
        if isinstance(values, Refusal):
            found = replace(obs.memory.about(action.task), sources=Finding(self._now(), values))
            return _remember(obs, obs.memory.with_task(action.task, found))
        # Without an intent to write one was there: its request may have been sent, and may still be under way.
        unsure = action.intent is None
        if action.intent is not None:
            obs = await self._patch_status(PatchStatus(action.intent), obs)
        body = {
            **action.manifest,
            "data": {name: base64.b64encode(value).decode() for name, value in values.items()},
        }
        secret, asked = obs.memory.of(action.job_uid), self._now()
        try:
            await self._kube.create(SECRETS, namespace, body)
        except AlreadyExists:
            # Only we create Secrets of such a name: an earlier request of ours arrived, its answer did not.
            return _made(obs, action.job_uid, replace(secret, made_at=asked, estimated=True))
        except (Forbidden, Invalid) as error:
            return self._refused(action.task, _refusal(Reason.SECRET_REFUSED, "Secret", error), obs)
        metrics.bound.observe(action.job_uid, metrics.bound_to_secret_seconds)
        if _is_missed(obs, action.job_uid):
            metrics.late_secrets.inc()
        log.info("secret made", extra=_about(obs, action.name))
        return _made(obs, action.job_uid, replace(secret, made_at=asked, estimated=unsure))

    async def _values(self, action: EnsureSecret | Deliver, obs: Observation) -> dict[str, bytes] | Refusal:
        """The values of an attempt, or why it may not have them now."""
        unguarded, denied = await asyncio.gather(
            self._guard.refusal(), self._authorizer.refusal(obs.run, action.references, obs.bindings)
        )
        denied = unguarded or self._doubt(action.references, obs) or denied
        if denied is not None:
            return denied
        try:
            return await self._sources.resolve(obs.run.metadata.namespace, action.references)
        except SourceRefusedError as error:
            return error.refusal

    async def _deliver(self, action: Deliver, obs: Observation) -> Observation:
        values = await self._values(action, obs)
        if isinstance(values, Refusal):
            found = replace(obs.memory.about(action.task), sources=Finding(self._now(), values))
            return _remember(obs, obs.memory.with_task(action.task, found))
        if action.intent is not None:
            obs = await self._patch_status(PatchStatus(action.intent), obs)
        answered = await self._delivery.answer(action.request, values, self._now())
        if answered.state == "Issued":
            log.info("delivered sealed", extra=_about(obs, action.job_name))
        return replace(self._with_requests(obs, answered), fresh=False)

    def _with_requests(self, obs: Observation, changed: RequestView) -> Observation:
        others = (item for item in obs.requests if item.uid != changed.uid)
        return replace(obs, requests=(*others, changed))

    async def _patch_status(self, action: PatchStatus, obs: Observation) -> Observation:
        metadata = obs.run.metadata
        raw = await self._kube.patch_status(
            RUNS,
            metadata.namespace,
            metadata.name,
            _merge_patch(obs.run.status, action.status),
            resource_version=metadata.resource_version,
        )
        if finished(action.status) and not finished(obs.run.status):
            metrics.runs_finished.labels(action.status.phase).inc()
        log.info(
            "status %s",
            action.status.phase,
            extra={"run": obs.run.key, "reason": _reason_of(action.status)},
        )
        _tell_tasks(obs, action.status)
        await announce(self._kube, obs.run, action.status, self._now())
        return replace(obs, run=WorkflowRun.parse(raw), memory=replace(obs.memory, stale_since=None))

    def _doubt(self, references: Sequence[SecretReference], obs: Observation) -> Refusal | None:
        """Why the run is not believed to be of whom it names. For good, so it is asked while the policies are there."""
        if not references:
            return None
        metadata = obs.run.metadata
        return self._guard.doubt(
            "the run", metadata.namespace, metadata.creation_timestamp, references[0].field
        )

    def _doubt_task(self, name: str, obs: Observation) -> Refusal | None:
        """The same before the Job of a task is made."""
        index = next(index for index, task in enumerate(obs.run.spec.tasks) if task.name == name)
        needs = task_needs(obs.run, index, obs.bindings)
        return self._doubt(needs.references, obs) if isinstance(needs, TaskNeeds) else None

    async def _check_sources(self, action: CheckSources, obs: Observation) -> Observation:
        unguarded = await self._guard.refusal()
        refusal = None if unguarded is not None else self._doubt(action.references, obs)
        refusal = refusal or await self._authorizer.refusal(obs.run, action.references, obs.bindings)
        refusal = refusal or await self._sources.check(obs.run.metadata.namespace, action.references)
        return _remember(obs, replace(obs.memory, sources=Finding(self._now(), refusal)))

    async def _create_jobs(
        self, actions: Sequence[CreateJob], obs: Observation
    ) -> tuple[Observation, Exception | None]:
        """Make Jobs side by side, so that tasks which are due together need not wait for each other.

        :return: what is known afterwards, and the first failure that trying again may mend.
        """
        unguarded = await self._guard.refusal()
        refused = {action.task: unguarded or self._doubt_task(action.task, obs) for action in actions}
        for task, refusal in refused.items():
            if refusal is not None:
                obs = self._refused(task, refusal, obs)
        actions = [action for action in actions if refused[action.task] is None]
        at_once, asked = asyncio.Semaphore(_JOBS_AT_ONCE), self._now()
        answers = await asyncio.gather(
            *(self._post_job(action, obs, at_once) for action in actions), return_exceptions=True
        )
        failed: Exception | None = None
        for action, answer in zip(actions, answers, strict=True):
            if isinstance(answer, _JobAnswer):
                obs = self._job_answered(action, answer, obs)
            elif isinstance(answer, Exception):
                obs = self._failing(action.task, answer, asked, obs)
                failed = failed or answer
            else:
                raise answer
        return obs, failed

    async def _post_job(self, action: CreateJob, obs: Observation, at_once: asyncio.Semaphore) -> _JobAnswer:
        namespace = obs.run.metadata.namespace
        async with at_once:
            try:
                return _JobAnswer(await self._kube.create(JOBS, namespace, dict(action.manifest)), made=True)
            except AlreadyExists:
                raw = await self._kube.get(JOBS, namespace, action.manifest["metadata"]["name"])
                return _JobAnswer(raw)
            except NotFound:
                raise  # the namespace is gone
            except ApiError as error:
                if not isinstance(error, Forbidden | Invalid) and error.status != _BAD_REQUEST:
                    raise
                return _JobAnswer(refused=error)

    def _failing(self, task: str, error: Exception, asked: datetime, obs: Observation) -> Observation:
        """Remember that a request for a task failed, for the status if that goes on."""
        if not isinstance(error, ApiError) or isinstance(error, NotFound | NotLeader):
            return obs
        index = next(i for i, item in enumerate(obs.run.spec.tasks) if item.name == task)
        refusal = Refusal(
            Reason.REQUEST_FAILED,
            f"spec.tasks[{index}]",
            "the API server does not carry out a request for it, which is made again and again, each 30 s in the end:"
            f" {error}",
            permanent=False,
        )
        memory, now = obs.memory.about(task), self._now()
        before = memory.failing or Failing(asked, now, refusal)
        return _remember(
            obs, obs.memory.with_task(task, replace(memory, failing=before.again(asked, now, refusal)))
        )

    def _job_answered(self, action: CreateJob, answer: _JobAnswer, obs: Observation) -> Observation:
        obs = _without_failing(action.task, obs)
        if answer.refused is not None:
            index = next(i for i, task in enumerate(obs.run.spec.tasks) if task.name == action.task)
            refusal = _refusal(Reason.JOB_REFUSED, f"spec.tasks[{index}].template", answer.refused)
            return self._refused(action.task, refusal, obs)
        job = JobView.parse(answer.raw)
        self._jobs.record(answer.raw)  # before the watch shows it
        memory = obs.memory
        if answer.made:
            log.info("job made", extra=_about(obs, job.name, action.task))
            memory = replace(memory, jobs_made=memory.jobs_made | {job.uid})
            memory = memory.with_task(action.task, replace(memory.about(action.task), refused=None))
        # What was there already may have gone any way since the pods were read.
        fresh = obs.fresh and answer.made
        return replace(obs, jobs={**obs.jobs, job.name: job}, memory=memory, fresh=fresh)

    async def _delete_job(self, action: DeleteJob, obs: Observation) -> Observation:
        jobs = {name: job for name, job in obs.jobs.items() if job.uid != action.uid}
        try:
            answer = await self._kube.delete(
                JOBS, obs.run.metadata.namespace, action.name, uid=action.uid, propagation="Background"
            )
            if not answer.gone:
                jobs[action.name] = replace(obs.jobs[action.name], deleting=True)
        except (NotFound, Conflict):
            pass  # it is gone, or another one bears its name by now
        return replace(obs, jobs=jobs)

    async def _diagnose(self, action: Diagnose, obs: Observation) -> Observation:
        refusal = await why_no_pod(self._kube, obs.run.metadata.namespace, action.job_name, action.job_uid)
        if refusal is not None:
            log.info(
                "no pod: %s", refusal, extra={**_about(obs, action.job_name), "reason": refusal.reason.value}
            )
        found = replace(obs.memory.about(action.task), waiting=Finding(self._now(), refusal))
        return _remember(obs, obs.memory.with_task(action.task, found))

    def _refused(self, task: str, refusal: Refusal, obs: Observation) -> Observation:
        found = replace(obs.memory.about(task), refused=Finding(self._now(), refusal))
        return _remember(obs, obs.memory.with_task(task, found))

    async def _purge_input(self, obs: Observation) -> Observation:
        """Take the sealed input out of the run, and out of the copy that `kubectl apply` left in it."""
        metadata = obs.run.metadata
        body: dict[str, Any] = {"spec": {"sealedInput": None}}
        applied = _without_sealed_input(metadata.annotations.get(LAST_APPLIED, ""))
        if applied is not None:
            body["metadata"] = {"annotations": {LAST_APPLIED: applied}}
        raw = await self._kube.patch(
            RUNS, metadata.namespace, metadata.name, body, resource_version=metadata.resource_version
        )
        log.info("sealed input taken out", extra={"run": obs.run.key})
        return replace(obs, run=WorkflowRun.parse(raw))

    async def _delete_run(self, action: DeleteRun, obs: Observation) -> Observation:
        metadata = obs.run.metadata
        with contextlib.suppress(NotFound, Conflict):
            await self._kube.delete(
                RUNS, metadata.namespace, metadata.name, uid=action.uid, propagation="Background"
            )
        gone = metadata.model_copy(update={"deletion_timestamp": self._now()})
        return replace(obs, run=obs.run.model_copy(update={"metadata": gone}))


def _without_sealed_input(applied: str) -> str | None:
    """The annotation without the sealed input; None if it need not be changed."""
    if "sealedInput" not in applied:
        return None
    try:
        document = documents.read(applied)
        del document["spec"]["sealedInput"]
        return json.dumps(document, separators=(",", ":")) + "\n"
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""  # it holds the word, and cannot be read: nothing of it may stay


def _task_of(action: CheckSources, obs: Observation) -> str:
    """The task that the first of the references is of."""
    index = int(action.references[0].field.removeprefix("spec.tasks[").partition("]")[0])
    return obs.run.spec.tasks[index].name


def _without_failing(task: str, obs: Observation) -> Observation:
    memory = obs.memory.about(task)
    if memory.failing is None:
        return obs
    return _remember(obs, obs.memory.with_task(task, replace(memory, failing=None)))


def _made(obs: Observation, job_uid: str, secret: SecretMemory) -> Observation:
    """Whoever makes another Secret reads anew: a run may have many tasks, and this took a while."""
    return replace(_with_secret(obs, job_uid, secret), fresh=False)


def _with_secret(obs: Observation, job_uid: str, secret: SecretMemory) -> Observation:
    return _remember(obs, obs.memory.with_secret(job_uid, secret))


def _remember(obs: Observation, memory: Memory) -> Observation:
    return replace(obs, memory=memory)


def _refusal(reason: Reason, field: str, error: ApiError) -> Refusal:
    """A refusal by the API server. What a fixed template cannot pass it never will; quotas and rights change."""
    fields = ", ".join(cause.field for cause in error.causes if cause.field)
    return Refusal(
        reason,
        field,
        f"the API server refused it ({error.reason or error.status}): {error.message or fields}",
        permanent=reason is Reason.JOB_REFUSED and not isinstance(error, Forbidden),
    )


def _attempt(obs: Observation, job: str) -> AttemptStatus | None:
    attempts = (attempt for task in obs.run.status.tasks for attempt in task.attempts)
    return next((attempt for attempt in attempts if attempt.job == job), None)


def _about(obs: Observation, job: str, task: str = "") -> dict[str, Any]:
    """Run, task, attempt and Job, for the log; a Job that was just made is not in the status yet."""
    about: dict[str, Any] = {"run": obs.run.key, "job": job}
    for status in obs.run.status.tasks:
        numbers = {attempt.job: attempt.number for attempt in status.attempts}
        if job in numbers:
            return {**about, "task": status.name, "attempt": numbers[job]}
        if status.name == task:
            about["attempt"] = len(numbers) + 1
    return {**about, "attempt": about.get("attempt", 1), "task": task} if task else about


def _tell_tasks(obs: Observation, status: WorkflowRunStatus) -> None:
    """One line for each task that is in another state, or gives another reason, than before."""
    before = {task.name: (task.state, task.reason) for task in obs.run.status.tasks}
    for task in status.tasks:
        if before.get(task.name) != (task.state, task.reason):
            attempt = task.attempts[-1].number if task.attempts else None
            fields = {
                "run": obs.run.key,
                "task": task.name,
                "attempt": attempt,
                "reason": task.reason or None,
            }
            log.info("task %s", task.state, extra=fields)


def _is_missed(obs: Observation, job_uid: str) -> bool:
    """Whether the kubelet has said that a container of the pod cannot be made: without its Secret it cannot."""
    pods = (pod for pod in obs.pods if pod.job_uid == job_uid)
    return any(item.waiting == "CreateContainerConfigError" for pod in pods for item in pod.containers)


def _reason_of(status: WorkflowRunStatus) -> str | None:
    return next((task.reason for task in status.tasks if task.reason), None)


def _merge_patch(old: WorkflowRunStatus, new: WorkflowRunStatus) -> dict[str, Any]:
    """``new`` as a merge patch on ``old``: what is no longer there has to be named to go."""
    wire: dict[str, Any] = new.to_wire()
    return {**{name: None for name in old.to_wire() if name not in wire}, **wire}
