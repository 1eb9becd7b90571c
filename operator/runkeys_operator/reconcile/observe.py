"""Reads one run and everything that its next step depends on, fresh from the API server.

On the way to a Secret every read is a GET by name: authorisation never trusts a cache, and a LIST waits
for the server's watch cache. Lists are left to the sweep.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from pydantic import ValidationError

from runkeys.api import SecretBinding, WorkflowRun
from runkeys.naming import attempt_name
from runkeys.needs import Bindings
from runkeys.observation import JobView, Memory, Observation, PodView
from runkeys.status import finished
from runkeys_operator.errors import NotFound
from runkeys_operator.kube import BINDINGS, JOBS, PODS, RUNS, Kube
from runkeys_operator.reconcile.key import RunKey


class UnreadableRunError(Exception):
    """A stored run that this version cannot read, e.g. written under a newer schema. ``where`` names the field."""

    def __init__(self, where: str, generation: int, resource_version: str) -> None:
        super().__init__(f"cannot read the run: {where}")
        self.where, self.generation, self.resource_version = where, generation, resource_version


async def read_run(kube: Kube, key: RunKey) -> WorkflowRun | None:
    """The run, or None if there is none.

    :raises UnreadableRunError: if it does not fit the models.
    """
    try:
        raw = await kube.get(RUNS, key.namespace, key.name)
    except NotFound:
        return None
    try:
        return WorkflowRun.parse(raw)
    except ValidationError as error:
        metadata = raw["metadata"]
        raise UnreadableRunError(
            describe_invalid(error), metadata.get("generation", 0), metadata["resourceVersion"]
        ) from None


async def observe(kube: Kube, run: WorkflowRun, pods: tuple[PodView, ...], memory: Memory) -> Observation:
    """Everything that the next step of ``run`` depends on."""
    names = {
        attempt_name(run.metadata.name, run.metadata.uid, run.spec.tasks[0].name, 1),
        *(attempt.job for task in run.status.tasks for attempt in task.attempts),
    }
    over = finished(run.status)
    bindings, jobs, fresh = await asyncio.gather(
        _bindings(kube, run, wanted=not over),
        asyncio.gather(*(_job(kube, run, name) for name in sorted(names))),
        asyncio.gather(*(_pod(kube, run, pod, over) for pod in pods)),
    )
    return Observation(
        run=run,
        bindings=bindings,
        jobs={job.name: job for job in jobs if job is not None},
        pods=tuple(fresh),
        memory=memory,
    )


async def _bindings(kube: Kube, run: WorkflowRun, *, wanted: bool) -> Bindings:
    names = list(dict.fromkeys(reference.name for reference in run.spec.bindings)) if wanted else []
    found: dict[str, SecretBinding] = {}
    unreadable: dict[str, str] = {}

    async def read(name: str) -> None:
        try:
            raw = await kube.get(BINDINGS, run.metadata.namespace, name)
        except NotFound:
            return
        try:
            found[name] = SecretBinding.parse(raw)
        except ValidationError as error:
            unreadable[name] = describe_invalid(error)

    await asyncio.gather(*(read(name) for name in names))
    return Bindings(found, unreadable)


async def _job(kube: Kube, run: WorkflowRun, name: str) -> JobView | None:
    try:
        return JobView.parse(await kube.get(JOBS, run.metadata.namespace, name))
    except NotFound:
        return None


async def _pod(kube: Kube, run: WorkflowRun, seen: PodView, over: bool) -> PodView:
    """``seen``, read again while a Secret may still be made for it: its images can be changed in place."""
    if over or seen.over or seen.started:
        return seen
    try:
        raw = await kube.get(PODS, run.metadata.namespace, seen.name)
    except NotFound:
        return replace(seen, gone=True)
    fresh = PodView.parse(raw)
    return fresh if fresh.uid == seen.uid else replace(seen, gone=True)


def describe_invalid(error: ValidationError) -> str:
    """Which fields are wrong and why, without what they hold."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
        for item in error.errors(include_input=False, include_url=False, include_context=False)[:5]
    )
