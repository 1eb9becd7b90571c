"""Carries out the actions of a plan; each returns the observation that follows from its answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from runkeys.api import WorkflowRun, WorkflowRunStatus
from runkeys.names import FINALIZER, LAST_APPLIED
from runkeys.planning import memory
from runkeys.planning.actions import (
    Action,
    AnswerEmpty,
    CheckSources,
    CreateJob,
    DeleteJob,
    DeleteRequest,
    DeleteRun,
    DeleteSecret,
    Deliver,
    DenyRequest,
    Diagnose,
    DropFinalizer,
    EnsureSecret,
    LookForSecret,
    PatchStatus,
    PurgeInput,
    Refresh,
    RevokeLeases,
)
from runkeys.planning.memory import Memory
from runkeys.planning.observation import JobView, Observation, RequestView
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import SecretReference, TaskRequirements, task_requirements
from runkeys_operator.checks.access_review import Authorizer
from runkeys_operator.checks.policies import PolicyCheck
from runkeys_operator.controllers.certificates import CertificateRequests
from runkeys_operator.controllers.runs import leasing
from runkeys_operator.controllers.runs.cache import Cache
from runkeys_operator.controllers.runs.diagnose import why_no_pod
from runkeys_operator.controllers.runs.log_lines import about, attempt_of, is_missed, log_tasks, reason_of
from runkeys_operator.controllers.runs.patches import merge_patch, without_sealed_input
from runkeys_operator.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound, NotLeader
from runkeys_operator.kube import JOBS, RUNS, SECRETS, Kube
from runkeys_operator.kube.events import announce
from runkeys_operator.process import metrics
from runkeys_operator.values import Values
from runkeys_operator.values.delivery import create_secret
from runkeys_operator.values.leases import Leases
from runkeys_operator.values.refused import SourceRefusedError
from runkeys_operator.values.sources import Sources

log = logging.getLogger(__name__)

_BAD_REQUEST = 400


_JOBS_AT_ONCE = 8
"""Of one run. All requests share the API server, and each one that is under way needs a connection."""

OneAtATime = (
    AnswerEmpty
    | CheckSources
    | DeleteJob
    | DeleteRun
    | DeleteRequest
    | DeleteSecret
    | Deliver
    | DenyRequest
    | Diagnose
    | DropFinalizer
    | EnsureSecret
    | LookForSecret
    | PatchStatus
    | PurgeInput
    | Refresh
    | RevokeLeases
)


@dataclass(frozen=True)
class _JobAnswer:
    """Result of a request to create a Job.

    :ivar made: by this request; else one of its name was there already.
    """

    raw: Mapping[str, Any] = field(default_factory=dict)
    made: bool = False
    refused: ApiError | None = None


class Executor:
    """Carries out plans. Raises :class:`ApiError` if the only remedy is to retry."""

    def __init__(
        self,
        kube: Kube,
        sources: Sources,
        leases: Leases,
        jobs: Cache[JobView],
        policy_check: PolicyCheck,
        requests: CertificateRequests,
        clock: Callable[[], datetime],
    ) -> None:
        self._kube = kube
        self._policy_check = policy_check
        self._requests = requests
        self._jobs = jobs
        self._sources = sources
        self._leases = leases
        self._authorizer = Authorizer(kube)
        self._now = clock

    async def apply(self, actions: Iterable[Action], obs: Observation) -> AsyncIterator[Observation]:
        """Do ``actions`` in their order, Jobs last and side by side; after each say what is known by then.

        Successes are reported before a failure is raised.
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
        try:
            return await self._carry_out(action, obs)
        except Forbidden as error:
            # A namespace that is deleted may have lost the operator's role already. Then it takes all this away itself,
            # and only the lease is left, which is revoked in the store.
            if FINALIZER not in obs.run.metadata.finalizers or obs.run.metadata.deletion_timestamp is None:
                raise
            left = _left_to_others(action, obs)
            if left is None:
                raise
            log.warning("left to the namespace's deletion: %s", error, extra={"run": obs.run.key})
            return left

    async def _carry_out(self, action: OneAtATime, obs: Observation) -> Observation:
        match action:
            case Refresh():
                return obs  # the controller does it
            case DeleteSecret():
                return await self._delete_secret(action, obs)
            case EnsureSecret():
                return await self._ensure_secret(action, obs)
            case Deliver():
                return await self._deliver(action, obs)
            case LookForSecret():
                return await self._look_for_secret(action, obs)
            case RevokeLeases():
                return await leasing.revoke(self._leases, action, obs, self._now)
            case DropFinalizer():
                return await leasing.drop_finalizer(self._kube, obs)
            case AnswerEmpty():
                answered = await self._requests.answer_empty(action.request, self._now())
                return self._with_requests(obs, answered)
            case DenyRequest():
                return self._with_requests(obs, await self._requests.deny(action.request, action.message))
            case DeleteRequest():
                return self._with_requests(obs, await self._requests.delete(action.request))
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
        held: tuple[str, ...] = ()
        try:
            answer = await self._kube.delete(SECRETS, obs.run.metadata.namespace, action.name)
            if not answer.gone:
                held = answer.finalizers or ("unknown",)
        except NotFound:
            pass
        now = self._now()
        if held:
            log.warning("secret held by %s", ", ".join(held), extra=about(obs, action.name))
            return _remember(obs, memory.secret_held(obs.memory, action.job_uid, now, held))
        if obs.memory.of(action.job_uid).gone_at is None:
            self._tell_gone(action, obs, now)
        return _remember(obs, memory.secret_gone(obs.memory, action.job_uid, now))

    def _tell_gone(self, action: DeleteSecret, obs: Observation, gone: datetime) -> None:
        metrics.bound.forget(action.job_uid)
        metrics.ended.observe(action.job_uid, metrics.end_to_gone_seconds)
        attempt = attempt_of(obs, action.name)
        created = (
            next((item.created for item in attempt.exposures if not item.deleted), None) if attempt else None
        )
        made = obs.memory.of(action.job_uid).made_at or created
        seconds = max(0.0, (gone - made).total_seconds()) if made is not None else None
        if attempt is not None and seconds is not None:
            metrics.exposure_seconds.labels(attempt.release_policy).observe(seconds)
        took = {} if seconds is None else {"seconds": round(seconds, 3)}
        log.info("secret deleted", extra={**about(obs, action.name), **took})

    async def _ensure_secret(self, action: EnsureSecret, obs: Observation) -> Observation:
        namespace = obs.run.metadata.namespace
        obs, values, intent = await self._values(action, obs)
        if isinstance(values, Refusal):
            return self._values_refused(action.task, values, obs)
        if intent is not None:
            obs = await self._patch_status(PatchStatus(intent), obs)
        asked = self._now()
        try:
            await create_secret(self._kube, namespace, action.manifest, values)
        except AlreadyExists:
            # Only the operator creates Secrets of such a name: an earlier request arrived, but its answer did not.
            obs = _made(obs, action.job_uid, asked, certain=False)
            # What it leased was revoked when the Secret was not there yet.
            return (
                obs
                if action.leasing is None
                else _remember(obs, memory.secret_void(obs.memory, action.job_uid))
            )
        except (Forbidden, Invalid) as error:
            return self._refused(action.task, _refusal(Reason.SECRET_REFUSED, "Secret", error), obs)
        metrics.bound.observe(action.job_uid, metrics.bound_to_secret_seconds)
        if is_missed(obs, action.job_uid):
            metrics.late_secrets.inc()
        log.info("secret created", extra=about(obs, action.name))
        # Without an intent to write one was there: its request may have been sent, and may still be under way.
        return _made(obs, action.job_uid, asked, certain=action.intent is not None)

    async def _look_for_secret(self, action: LookForSecret, obs: Observation) -> Observation:
        asked = self._now()
        if await self._kube.could_create(SECRETS, obs.run.metadata.namespace, dict(action.manifest)):
            return _remember(obs, memory.secret_absent(obs.memory, action.job_uid, asked))
        return _made(obs, action.job_uid, asked, certain=False)

    async def _values(
        self, action: EnsureSecret | Deliver, obs: Observation
    ) -> tuple[Observation, Values | Refusal, WorkflowRunStatus | None]:
        """The values of an attempt, or why it may not have them now; and the status to write before it has them."""
        missing_policies, denied = await asyncio.gather(
            self._policy_check.refusal(), self._authorizer.refusal(obs.run, action.references, obs.bindings)
        )
        denied = missing_policies or self._not_admitted(action.references, obs) or denied
        if denied is not None:
            return obs, denied, None
        namespace, opening = obs.run.metadata.namespace, None
        if action.leasing is not None:
            opening = leasing.Opening(
                *(self._kube, self._leases, self._patch_status, self._now, action, action.leasing, obs)
            )
        try:
            values = await self._sources.resolve(namespace, action.references, action.pod, opening)
        except SourceRefusedError as error:
            return obs if opening is None else opening.obs, error.refusal, None
        if opening is None:
            return obs, values, action.intent
        return opening.obs, values, opening.intent()

    async def _deliver(self, action: Deliver, obs: Observation) -> Observation:
        obs, values, intent = await self._values(action, obs)
        if isinstance(values, Refusal):
            return self._values_refused(action.task, values, obs)
        if intent is not None:
            obs = await self._patch_status(PatchStatus(intent), obs)
        answered = await self._requests.answer(action.request, values, self._now())
        if answered.state == "Issued":
            log.info("delivered sealed", extra=about(obs, action.job_name))
        return replace(self._with_requests(obs, answered), fresh=False)

    def _with_requests(self, obs: Observation, changed: RequestView) -> Observation:
        others = (item for item in obs.requests if item.uid != changed.uid)
        return replace(obs, requests=(*others, changed))

    async def _patch_status(self, action: PatchStatus, obs: Observation) -> Observation:
        metadata = obs.run.metadata
        # Before the status, by which it is known what was announced: else a lost answer loses the Event, too.
        await announce(self._kube, obs.run, action.status, self._now())
        raw = await self._kube.patch_status(
            RUNS,
            metadata.namespace,
            metadata.name,
            merge_patch(obs.run.status, action.status),
            resource_version=metadata.resource_version,
        )
        if action.status.finished and not obs.run.status.finished:
            metrics.runs_finished.labels(action.status.phase).inc()
        log.info(
            "status %s",
            action.status.phase,
            extra={"run": obs.run.key, "reason": reason_of(action.status)},
        )
        log_tasks(obs, action.status)
        return replace(
            obs,
            run=WorkflowRun.parse(raw),
            memory=memory.note_staleness(obs.memory, self._now(), stale=False),
        )

    def _not_admitted(self, references: Sequence[SecretReference], obs: Observation) -> Refusal | None:
        """Why the run is not believed to be of whom it names. For good, so it is asked while the policies are there."""
        if not references:
            return None
        metadata = obs.run.metadata
        return self._policy_check.not_admitted(
            "the run", metadata.namespace, metadata.creation_timestamp, references[0].field
        )

    def _task_not_admitted(self, name: str, obs: Observation) -> Refusal | None:
        """The same before the Job of a task is made."""
        index = next(index for index, task in enumerate(obs.run.spec.tasks) if task.name == name)
        requirements = task_requirements(obs.run, index, obs.bindings)
        return (
            self._not_admitted(requirements.references, obs)
            if isinstance(requirements, TaskRequirements)
            else None
        )

    async def _check_sources(self, action: CheckSources, obs: Observation) -> Observation:
        missing_policies = await self._policy_check.refusal()
        refusal = None if missing_policies is not None else self._not_admitted(action.references, obs)
        refusal = refusal or await self._authorizer.refusal(obs.run, action.references, obs.bindings)
        refusal = refusal or await self._sources.check(obs.run.metadata.namespace, action.references)
        return _remember(obs, memory.sources_checked(obs.memory, self._now(), refusal))

    async def _create_jobs(
        self, actions: Sequence[CreateJob], obs: Observation
    ) -> tuple[Observation, Exception | None]:
        """Make Jobs side by side, so that tasks which are due together need not wait for each other.

        :return: what is known afterwards, and the first failure that trying again may mend.
        """
        missing_policies = await self._policy_check.refusal()
        refused = {
            action.task: missing_policies or self._task_not_admitted(action.task, obs) for action in actions
        }
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
        """Remember that a request for a task failed, for the status if it keeps failing."""
        if not isinstance(error, ApiError) or isinstance(error, NotFound | NotLeader):
            return obs
        index = next(i for i, item in enumerate(obs.run.spec.tasks) if item.name == task)
        refusal = Refusal(
            Reason.REQUEST_FAILED,
            f"spec.tasks[{index}]",
            "the API server does not carry out a request for this task; the request is repeated, at last every 30 s:"
            f" {error}",
            permanent=False,
        )
        return _remember(obs, memory.request_failed(obs.memory, task, asked, self._now(), refusal))

    def _job_answered(self, action: CreateJob, answer: _JobAnswer, obs: Observation) -> Observation:
        obs = _without_failing(action.task, obs)
        if answer.refused is not None:
            index = next(i for i, task in enumerate(obs.run.spec.tasks) if task.name == action.task)
            refusal = _refusal(Reason.JOB_REFUSED, f"spec.tasks[{index}].template", answer.refused)
            return self._refused(action.task, refusal, obs)
        job = JobView.parse(answer.raw)
        self._jobs.record(answer.raw)  # before the watch shows it
        known = obs.memory
        if answer.made:
            log.info("job created", extra=about(obs, job.name, action.task))
            known = memory.job_created(known, action.task, job.uid)
        # What was there already may have gone any way since the pods were read.
        fresh = obs.fresh and answer.made
        return replace(obs, jobs={**obs.jobs, job.name: job}, memory=known, fresh=fresh)

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
        job, namespace = obs.jobs.get(action.job_name), obs.run.metadata.namespace
        unsealer = obs.support if job is not None and job.sealed else None
        refusal = await why_no_pod(self._kube, namespace, action.job_name, action.job_uid, unsealer)
        if refusal is not None:
            log.info(
                "no pod: %s", refusal, extra={**about(obs, action.job_name), "reason": refusal.reason.value}
            )
        return _remember(obs, memory.diagnosed(obs.memory, action.task, self._now(), refusal))

    def _refused(self, task: str, refusal: Refusal, obs: Observation) -> Observation:
        return _remember(obs, memory.creation_refused(obs.memory, task, self._now(), refusal))

    def _values_refused(self, task: str, refusal: Refusal, obs: Observation) -> Observation:
        return _remember(obs, memory.values_refused(obs.memory, task, self._now(), refusal))

    async def _purge_input(self, obs: Observation) -> Observation:
        """Take the sealed input out of the run, and out of the copy that `kubectl apply` left in it."""
        metadata = obs.run.metadata
        body: dict[str, Any] = {"spec": {"sealedInput": None}}
        applied = without_sealed_input(metadata.annotations.get(LAST_APPLIED, ""))
        if applied is not None:
            body["metadata"] = {"annotations": {LAST_APPLIED: applied}}
        raw = await self._kube.patch(
            RUNS, metadata.namespace, metadata.name, body, resource_version=metadata.resource_version
        )
        log.info("sealed input removed", extra={"run": obs.run.key})
        return replace(obs, run=WorkflowRun.parse(raw))

    async def _delete_run(self, action: DeleteRun, obs: Observation) -> Observation:
        metadata = obs.run.metadata
        with contextlib.suppress(NotFound, Conflict):
            await self._kube.delete(
                RUNS, metadata.namespace, metadata.name, uid=action.uid, propagation="Background"
            )
        gone = metadata.model_copy(update={"deletion_timestamp": self._now()})
        return replace(obs, run=obs.run.model_copy(update={"metadata": gone}))


def _left_to_others(action: OneAtATime, obs: Observation) -> Observation | None:
    """What is known when the deletion of something is left to others; None if the action is no deletion."""
    match action:
        case DeleteSecret():
            at = obs.run.metadata.deletion_timestamp or obs.run.metadata.creation_timestamp
            if at is None:
                return None
            return _remember(obs, memory.secret_held(obs.memory, action.job_uid, at, ("namespace",)))
        case DeleteJob():
            return replace(obs, jobs={name: job for name, job in obs.jobs.items() if job.uid != action.uid})
        case DeleteRequest():
            others = tuple(item for item in obs.requests if item.uid != action.request.uid)
            return replace(obs, requests=others)
    return None


def _task_of(action: CheckSources, obs: Observation) -> str:
    """The task of the first reference."""
    index = int(action.references[0].field.removeprefix("spec.tasks[").partition("]")[0])
    return obs.run.spec.tasks[index].name


def _without_failing(task: str, obs: Observation) -> Observation:
    return _remember(obs, memory.request_answered(obs.memory, task))


def _made(obs: Observation, job_uid: str, asked: datetime, *, certain: bool) -> Observation:
    """Force a fresh read before the next Secret is created: a run may have many tasks, and this took a while."""
    known = memory.secret_created(obs.memory, job_uid, asked, certain=certain)
    return replace(_remember(obs, known), fresh=False)


def _remember(obs: Observation, known: Memory) -> Observation:
    return replace(obs, memory=known)


def _refusal(reason: Reason, field: str, error: ApiError) -> Refusal:
    """A refusal by the API server. What a fixed template cannot pass it never will; quotas and rights change."""
    fields = ", ".join(cause.field for cause in error.causes if cause.field)
    return Refusal(
        reason,
        field,
        f"the API server refused it ({error.reason or error.status}): {error.message or fields}",
        permanent=reason is Reason.JOB_REFUSED and not isinstance(error, Forbidden),
    )
