"""Observes one run before its next step is planned.

Before a Job or a Secret is created, every read is a GET by name: authorisation never trusts a cache, and a LIST waits
for the server's watch cache. Everything else uses what the watches showed. Lists are left to the resync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

from runkeys.api import AttemptStatus, SecretBinding, WorkflowRun, WorkflowRunSpec, WorkflowRunStatus
from runkeys.api.common import ObjectMeta
from runkeys.planning.bindings import Bindings, requester_of
from runkeys.planning.memory import Memory, SecretMemory
from runkeys.planning.observation import LABEL_JOB_UID, JobState, JobView, Observation, PodView, RequestView
from runkeys.planning.outcome import named_after
from runkeys.planning.task import jobs_with_secrets
from runkeys_operator.checks.policies import PolicyCheck
from runkeys_operator.controllers.certificates import CertificateRequests
from runkeys_operator.controllers.key import Key
from runkeys_operator.controllers.reading import UnreadableError, parse, personal_bindings
from runkeys_operator.controllers.runs.cache import OwnedObjects
from runkeys_operator.controllers.runs.record import Record
from runkeys_operator.errors import NotFound
from runkeys_operator.kube import BINDINGS, JOBS, PODS, RUNS, Json, Kube


async def read_run(kube: Kube, key: Key) -> WorkflowRun | None:
    """Return the run, or None if it does not exist.

    :raises UnreadableError: if it does not fit the models.
    :raises ApiError: the request failed.
    """
    try:
        raw = await kube.get(RUNS, key.namespace, key.name)
    except NotFound:
        return None
    return parse(WorkflowRun, raw)


class Observer:
    """Observes runs: from what answers and watches showed last, without a request, or by reads by name."""

    def __init__(
        self, kube: Kube, owned: OwnedObjects, requests: CertificateRequests, policy_check: PolicyCheck
    ) -> None:
        self._kube = kube
        self._policy_check = policy_check
        self._known = requests
        self._jobs = owned.jobs
        self._pods = owned.pods

    def remembered(self, key: Key, last: Record) -> Observation:
        """Return the run as it was ``last``, with its Jobs and pods as the watches showed them. Sends no request."""
        pods = self._pods.of(key)
        return replace(
            last.observation(),
            jobs=self._known_jobs(key),
            pods=pods,
            requests=self._requests(pods),
            support=self._known.support,
            policies_in_force=self._policy_check.in_force,
        )

    def left_behind(self, key: Key, jobs: Iterable[JobView]) -> Observation:
        """Return what is known of a deleted run from those of its Jobs that still exist. Sends no request."""
        by_name = {job.name: job for job in jobs}
        uids = {job.uid for job in by_name.values()}
        pods = tuple(pod for pod in self._pods.of(key) if pod.job_uid in uids)
        secrets = {job.uid: SecretMemory(made_at=job.created, estimated=True) for job in by_name.values()}
        run = WorkflowRun.model_construct(
            metadata=ObjectMeta(name=key.name, namespace=key.namespace),
            spec=WorkflowRunSpec.model_construct(tasks=[]),
            status=WorkflowRunStatus(),
        )
        memory = Memory(jobs_made=frozenset(uids), secrets=secrets)
        return Observation(run, Bindings({}, {}), by_name, pods, memory, requests=self._requests(pods))

    async def run(self, key: Key, before: WorkflowRun | None) -> tuple[WorkflowRun | None, Bindings | None]:
        """Read the run by name, and at the same time the bindings that the run ``before`` names.

        :return: the run, None if it does not exist; and the bindings, None if the run now names others.
        :raises UnreadableError: if it does not fit the models.
        :raises ApiError: a request failed.
        """
        if before is None:
            return await read_run(self._kube, key), None
        run, bindings = await asyncio.gather(
            read_run(self._kube, key), _bindings(self._kube, before, wanted=not before.status.finished)
        )
        same = run is not None and _names(run) == _names(before)
        return run, bindings if same else None

    async def read(
        self, key: Key, run: WorkflowRun, memory: Memory, bindings: Bindings | None = None
    ) -> Observation:
        """Read everything that the next step depends on.

        A Job in the status that no watch has shown is read too: after a start the watch may not have shown it yet.

        :param run: just read.
        :param bindings: those of the run, if they were just read; None: they are read here.
        :raises ApiError: a request failed.
        """
        namespace, known = run.metadata.namespace, self._known_jobs(key)
        over = run.status.finished
        unseen = [
            attempt.job
            for task in run.status.tasks
            for attempt in task.attempts
            if _matters(attempt) and (attempt.job not in known or known[attempt.job].uid != attempt.job_uid)
        ]
        # No other pod can get a Secret, so its present state does not matter.
        with_secrets = jobs_with_secrets(run) if not over else set()
        shown = self._pods.of(key)
        waiting = [
            pod for pod in shown if pod.name.rpartition("-")[0] in with_secrets and not _has_started(pod)
        ]
        read, jobs, reread = await asyncio.gather(
            _known(bindings) if bindings is not None else _bindings(self._kube, run, wanted=not over),
            asyncio.gather(*(_job(self._kube, namespace, name) for name in unseen)),
            asyncio.gather(*(_pod(self._kube, namespace, pod) for pod in waiting)),
        )
        found = {job.name: job for job in jobs if job is not None}
        # If a task has ended while the answers were under way, it need not wait for another pass.
        for name, job in self._known_jobs(key).items():
            if name not in found or job.uid == found[name].uid:
                found[name] = job
        pods = {pod.uid: pod for pod in (*shown, *reread)}
        # The state of a pod after the end of its Job shows whether the Job's success is that pod's.
        behind = [
            pod for pod in pods.values() if not pod.over and pod.uid in _of_ended(run, found, pods.values())
        ]
        pods |= {
            pod.uid: pod
            for pod in await asyncio.gather(*(_pod(self._kube, namespace, one) for one in behind))
        }
        # The watch shows only pods with the labels of a run. A Job may count a pod without them.
        pods |= {
            pod.uid: pod
            for listed in await asyncio.gather(
                *(_pods_of(self._kube, namespace, job) for job in _unexplained(run, found, pods.values()))
            )
            for pod in listed
        }
        # A pod that no watch shows any more may have been ended by the Job, or taken from it.
        for job, listed in zip(
            bereft := _bereft(run, found, pods.values()),
            await asyncio.gather(*(_pods_of(self._kube, namespace, job) for job in bereft)),
            strict=True,
        ):
            pods |= {pod.uid: pod for pod in listed if pod.node}
            again = await _job(self._kube, namespace, job.name)
            found[job.name] = again if again is not None and again.uid == job.uid else job.vanished()
        return Observation(
            run,
            read,
            found,
            tuple(pods.values()),
            memory,
            fresh=True,
            requests=self._requests(pods.values()),
            support=self._known.support,
            policies_in_force=self._policy_check.in_force,
        )

    def knows_more(self, key: Key, obs: Observation) -> bool:
        """Whether a pod of the run, or an unanswered request of one, became known while ``obs`` was read.

        Forgotten with the run, the request would stay without an answer: nothing comes that would show it again.
        """
        pods = self._pods.of(key)
        pods_seen, requests_seen = {pod.uid for pod in obs.pods}, {item.uid for item in obs.requests}
        return any(pod.uid not in pods_seen for pod in pods) or any(
            not item.state and not item.gone and item.uid not in requests_seen
            for item in self._requests(pods)
        )

    def _requests(self, pods: Iterable[PodView]) -> tuple[RequestView, ...]:
        """The pods' requests, from the watch: only their answer changes, and the server takes no second answer."""
        return tuple(item for pod in pods for item in self._known.of(pod.uid))

    def _known_jobs(self, key: Key) -> dict[str, JobView]:
        """Jobs by name. Of two with the same name, the one that exists."""
        return {job.name: job for job in sorted(self._jobs.of(key), key=lambda job: not job.gone)}


def _names(run: WorkflowRun) -> tuple[object, ...]:
    """Return what decides which bindings are read for a run."""
    return run.metadata.uid, run.status.finished, run.spec.bindings, run.spec.requester


async def _known(bindings: Bindings) -> Bindings:
    return bindings


def _matters(attempt: AttemptStatus) -> bool:
    """Whether the attempt may still need an action as long as its Job exists."""
    return not attempt.outcome or any(
        exposure.deleted is None or exposure.estimated for exposure in attempt.exposures
    )


async def _bindings(kube: Kube, run: WorkflowRun, *, wanted: bool) -> Bindings:
    if not wanted:
        return Bindings({}, {})
    names = {reference.name for reference in run.spec.bindings if reference.name is not None}
    found: dict[str, SecretBinding] = {}
    unreadable: dict[str, str] = {}

    def take_in(raw: Json) -> None:
        name = raw["metadata"]["name"]
        try:
            found[name] = parse(SecretBinding, raw)
        except UnreadableError as error:
            unreadable[name] = error.where

    async def read(name: str) -> None:
        try:
            raw = await kube.get(BINDINGS, run.metadata.namespace, name)
        except NotFound:
            return
        take_in(raw)

    async def look_for_personal() -> tuple[str, ...]:
        owner = requester_of(run)
        if not owner or not any(reference.personal for reference in run.spec.bindings):
            return ()
        listed = await personal_bindings(kube, run.metadata.namespace, owner)
        for raw in listed:
            take_in(raw)
        return tuple(sorted(raw["metadata"]["name"] for raw in listed))

    personal, _ = await asyncio.gather(
        look_for_personal(), asyncio.gather(*(read(name) for name in sorted(names)))
    )
    return Bindings(found, unreadable, personal)


async def _job(kube: Kube, namespace: str, name: str) -> JobView | None:
    try:
        return JobView.parse(await kube.get(JOBS, namespace, name))
    except NotFound:
        return None


def _has_started(pod: PodView) -> bool:
    """Whether no Secret is created for it any more. Until then its images could be changed in place."""
    return pod.over or all(container.started for container in pod.containers)


def _of_ended(run: WorkflowRun, jobs: Mapping[str, JobView], pods: Iterable[PodView]) -> set[str]:
    """Return the uids of pods whose Job has ended: the Job that their label names, or that of the recorded attempt."""
    ended = {job.uid for job in jobs.values() if job.state is not JobState.ACTIVE}
    recorded = {
        attempt.pod_uid
        for task in run.status.tasks
        for attempt in task.attempts
        if attempt.pod_uid is not None and attempt.job_uid in ended
    }
    return recorded | {pod.uid for pod in pods if pod.job_uid in ended}


def _unexplained(run: WorkflowRun, jobs: Mapping[str, JobView], pods: Iterable[PodView]) -> list[JobView]:
    """Return Jobs that report success although none of their pods is seen to have succeeded."""
    over = {attempt.job_uid for task in run.status.tasks for attempt in task.attempts if attempt.outcome}
    well = [pod for pod in pods if pod.phase == "Succeeded"]
    return [
        job
        for job in jobs.values()
        if job.state is JobState.SUCCEEDED
        and job.uid not in over
        and not named_after(job, (pod for pod in well if pod.job_uid == job.uid))
    ]


def _bereft(run: WorkflowRun, jobs: Mapping[str, JobView], pods: Iterable[PodView]) -> list[JobView]:
    """Active Jobs that had a pod and have none that is seen now."""
    recorded = {
        attempt.job_uid
        for task in run.status.tasks
        for attempt in task.attempts
        if attempt.pod_uid is not None and not attempt.outcome
    }
    had, have = recorded | {pod.job_uid for pod in pods}, {pod.job_uid for pod in pods if not pod.gone}
    return [
        job
        for job in jobs.values()
        if job.state is JobState.ACTIVE and not job.gone and not job.deleting and job.uid in had - have
    ]


async def _pods_of(kube: Kube, namespace: str, job: JobView) -> list[PodView]:
    """Return all pods with the Job's label: those that the Job counts, or would count."""
    found = await kube.list(PODS, namespace, label_selector=f"{LABEL_JOB_UID}={job.uid}")
    return [pod for pod in map(PodView.parse, found) if pod.job_uid == job.uid]


async def _pod(kube: Kube, namespace: str, seen: PodView) -> PodView:
    """Read ``seen`` again."""
    try:
        raw = await kube.get(PODS, namespace, seen.name)
    except NotFound:
        return seen.vanished()
    fresh = PodView.parse(raw)
    return fresh.after(seen) if fresh.uid == seen.uid else seen.vanished()
