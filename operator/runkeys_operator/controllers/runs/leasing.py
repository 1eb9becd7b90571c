"""The leases of one attempt: opened in an order that a crash at any call leaves nothing behind, and revoked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

from runkeys.api import LeaseStatus, WorkflowRun, WorkflowRunStatus
from runkeys.names import FINALIZER
from runkeys.planning import memory
from runkeys.planning.actions import Deliver, EnsureSecret, Leasing, PatchStatus, RevokeLeases
from runkeys.planning.leases import with_leases
from runkeys.planning.observation import Observation
from runkeys_operator.controllers.runs.log_lines import about
from runkeys_operator.errors import NotFound
from runkeys_operator.kube import RUNS, Kube
from runkeys_operator.process import metrics
from runkeys_operator.values import Values
from runkeys_operator.values.leases import Leases

log = logging.getLogger(__name__)

PatchStatusOf = Callable[[PatchStatus, Observation], Awaitable[Observation]]


class Opening:
    """Opens the leases of an attempt: call it once, when all its other values are read.

    :ivar obs: what is known after the last step, whether or not all of them succeeded.
    """

    def __init__(
        self,
        kube: Kube,
        leases: Leases,
        patch_status: PatchStatusOf,
        clock: Callable[[], datetime],
        action: EnsureSecret | Deliver,
        leasing: Leasing,
        obs: Observation,
    ) -> None:
        self.obs = obs
        self._kube = kube
        self._leases = leases
        self._patch_status = patch_status
        self._now = clock
        self._action = action
        self._leasing = leasing
        self._records: tuple[LeaseStatus, ...] = ()

    async def __call__(self) -> Values:
        """Log in, put that on record, and only then have credentials created.

        :raises SourceRefusedError: a store does not give them. :raises ApiError: the API server was to blame.
        """
        seconds = self._leasing.seconds
        logins = await self._leases.open(self._action.references, self._action.pod)
        try:
            # Renewed or not: by then none of them lives any more.
            until = self._now() + timedelta(
                seconds=max(seconds, *(login.session.seconds for login in logins))
            )
            found = [login.record(until) for login in logins]
            self.obs = await self._patch_status(
                PatchStatus(self._with(self._leasing.record, found)), self.obs
            )
        except BaseException:
            await self._leases.close(logins)
            raise
        # The finalizer has to be there before a pod has a value, not before a value is created.
        held, leased = await asyncio.gather(
            self._hold(self.obs), self._leases.read(logins, seconds), return_exceptions=True
        )
        if isinstance(held, BaseException):
            raise held
        self.obs = held
        if isinstance(leased, BaseException):
            raise leased
        self._records = leased.records
        return leased.values

    def intent(self) -> WorkflowRunStatus:
        """The status that says what was created, and that a pod may be given it from now on."""
        return self._with(self._action.intent, self._records)

    def _with(
        self, status: WorkflowRunStatus | None, records: list[LeaseStatus] | tuple[LeaseStatus, ...]
    ) -> WorkflowRunStatus:
        return with_leases(status or self.obs.run.status, self._leasing.job_uid, records)

    async def _hold(self, obs: Observation) -> Observation:
        """Keep the run, even if somebody deletes it, for as long as its status is needed."""
        metadata = obs.run.metadata
        if FINALIZER in metadata.finalizers:
            return obs
        return await change_finalizers(self._kube, obs, [*metadata.finalizers, FINALIZER])


async def change_finalizers(kube: Kube, obs: Observation, finalizers: list[str]) -> Observation:
    """Replace the run's finalizers, if it has not changed since it was read."""
    metadata = obs.run.metadata
    raw = await kube.patch(
        RUNS,
        metadata.namespace,
        metadata.name,
        {"metadata": {"finalizers": finalizers}},
        resource_version=metadata.resource_version,
    )
    return replace(obs, run=WorkflowRun.parse(raw))


async def drop_finalizer(kube: Kube, obs: Observation) -> Observation:
    """Let the run go: no lease of it is open."""
    left = [item for item in obs.run.metadata.finalizers if item != FINALIZER]
    try:
        return await change_finalizers(kube, obs, left)
    except NotFound:
        metadata = obs.run.metadata.model_copy(update={"finalizers": left})
        return replace(obs, run=obs.run.model_copy(update={"metadata": metadata}))


async def revoke(
    leases: Leases, action: RevokeLeases, obs: Observation, clock: Callable[[], datetime]
) -> Observation:
    """Revoke leases and have the store say that it has none of them any more, or remember why it does not."""
    answers = await asyncio.gather(*(leases.revoke(lease) for lease in action.leases))
    known, now = obs.memory, clock()
    for lease, why in zip(action.leases, answers, strict=True):
        extra = {**about(obs, action.job_name), "store": lease.store, "accessor": lease.accessor}
        if not why:
            known = memory.lease_revoked(known, lease.store, lease.accessor, now)
            log.info("lease revoked", extra=extra)
        else:
            known = memory.lease_pending(known, lease.store, lease.accessor, now, why)
            log.warning("lease not revoked yet: %s", why, extra=extra)
    if not any(answers):
        metrics.leased.observe(action.job_uid, metrics.revocation_seconds)
    return replace(obs, memory=known)
