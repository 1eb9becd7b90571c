"""Checks the admission policies. Without them this operator creates no Secret, and no Job for one (I6).

The check reads each policy and policy binding by name and compares it with the one of this version. It runs with the
resync, and before something is created, unless the last check was a moment ago.

Objects that were created while the policies were missing are not trusted afterwards. An annotation of the ConfigMap
with the public keys records when they were in force, see :mod:`runkeys_operator.checks.admission`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import NamedTuple

from runkeys import policies
from runkeys.api import GROUP
from runkeys.names import PUBLIC_KEYS
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import SealedSupport
from runkeys.policies import MUTATING, VALIDATING, Account
from runkeys_operator.checks.admission import Record, Sighting, looked
from runkeys_operator.errors import (
    ApiError,
    Conflict,
    Forbidden,
    NotFound,
    ServerError,
    TooManyRequests,
    Unreachable,
)
from runkeys_operator.kube import CONFIG_MAPS, Json, Kube, Resource
from runkeys_operator.process import metrics
from runkeys_operator.process.logs import get_logger

log = get_logger(__name__)

FRESH_SECONDS = 5.0
"""For how long the last check is good enough to create something."""

_AGAIN_SECONDS = 1.0
"""For how long a failed check is not repeated."""

_KEEP_SECONDS = 60.0
"""Interval at which the record says that they are still in force, while nothing is created."""

_CONFIRM_SECONDS = 3.0
"""Interval of the checks after something was created. Each is recorded: an object that was created since the last
check is not trusted if the policies disappear."""

# Each read that is on its way at the same time takes a connection of its own.
_AT_ONCE = 4

# A look is many reads, and one answer that is lost must not make all of them useless.
_TRY_SECONDS, _PAUSE_SECONDS = 3.0, 0.2

KEPT = f"{GROUP}/policies-in-force"
"""The annotation with the record."""

_GROUP, _VERSION = policies.API.split("/")
_RESOURCES = {
    kind: Resource(_GROUP, _VERSION, plural)
    for kind, plural in (
        (VALIDATING, "validatingadmissionpolicies"),
        (f"{VALIDATING}Binding", "validatingadmissionpolicybindings"),
        (MUTATING, "mutatingadmissionpolicies"),
        (f"{MUTATING}Binding", "mutatingadmissionpolicybindings"),
    )
}
REMEDY = (
    "so nothing limits users to what they may use, and no Job and no Secret is created. Install the policies of this"
    " version again (helm upgrade, or kubectl apply -f policies/); the run then continues by itself"
)


Built = Callable[[tuple[str, ...]], dict[tuple[str, str], Json]]
"""From the served namespaces (``()``: all) to the required specs, by kind and name."""


class PolicySet(NamedTuple):
    """Policies that are checked together.

    :ivar build: as :func:`runkeys.policies.build`. :ivar record: annotation that keeps since when they are in force.
    :ivar remedy: what follows while they are not, and what to do. :ivar report: is given whether they are.
    """

    build: Callable[..., list[Json]]
    record: str
    remedy: str
    report: Callable[[bool], None]


FOR_RUNS = PolicySet(policies.build, KEPT, REMEDY, metrics.policies_in_force.set)


def for_pods(support: SealedSupport) -> PolicySet:
    """The policies on pods that ask for secrets themselves. :param support: what the unseal container is made of."""
    remedy = (
        "so nobody can tell what pods ask for, and those that ask for secrets themselves get none. Install the policies"
        " of this version again (helm upgrade with pods.enabled); new pods then get theirs"
    )
    build = partial(policies.build_asking, support=support)
    return PolicySet(build, f"{GROUP}/pod-policies-in-force", remedy, metrics.pod_policies_in_force.set)


class _Found(NamedTuple):
    """A policy or policy binding that is as required.

    :ivar namespaces: those that a policy binding selects; None for a policy, or for a binding that selects all.
    """

    name: str
    sighting: Sighting
    namespaces: tuple[str, ...] | None


class PolicyCheck:
    """Checks the policies now and then, and reports what is wrong with them."""

    def __init__(
        self,
        kube: Kube,
        namespaces: Sequence[str],
        operator_namespace: str | None,
        clock: Callable[[], float] = time.monotonic,
        policy_set: PolicySet = FOR_RUNS,
        audiences: tuple[str, ...] = (),
    ) -> None:
        """Prepare the checks. No request is sent yet.

        :param namespaces: those that are served; empty: all.
        :param operator_namespace: where the sealing keys are.
        :param audiences: of SecretStores, of which the operator may request tokens.
        """
        self._audiences = audiences
        self._kube = kube
        self._set = policy_set
        self._namespaces = tuple(namespaces)
        self._operator_namespace = operator_namespace
        self._now = clock
        self._built: Built | None = None
        self._username = ""
        self._looked_at: float | None = None
        self._looking = asyncio.Lock()
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._missing = asyncio.Event()
        self._refusal: Refusal | None = None
        self._record: Record | None = None
        self._written: Record | None = None
        self._loaded = False
        self._newest: datetime | None = None
        self._kept_at: float | None = None
        # The API server's clock sets creation times, so it is the only one that counts.
        self._server: tuple[datetime, float] | None = None

    @property
    def in_force(self) -> bool:
        """Whether the policies were in force at the last check; False before the first."""
        return self._looked_at is not None and self._refusal is None

    @property
    def problem(self) -> str:
        """What was wrong at the last check; empty if nothing was."""
        return str(self._refusal) if self._refusal is not None else ""

    async def refusal(self, *, anew: bool = False) -> Refusal | None:
        """Return why nothing may be created now; None if the policies are in force.

        :param anew: rely only on a check that began after this call, not on one of a moment ago.
        :raises ApiError: the API server could not be asked.
        """
        asked = self._now()
        async with self._looking:
            lasts = FRESH_SECONDS if self._refusal is None else _AGAIN_SECONDS
            good_since = asked if anew else self._now() - lasts
            if self._looked_at is None or self._looked_at <= good_since:
                await self._look()
            return self._refusal

    def looked_since(self, created: datetime) -> bool:
        """Whether the last look that found them in force began after something was created.

        :param created: its ``creationTimestamp``, which is cut to seconds.
        """
        return self._record is not None and self._record.seen >= created + timedelta(seconds=1)

    async def watch(self, restored: Callable[[], None]) -> None:
        """While the policies are not in force, check again each second, and call `restored` once they are. Never ends.

        An upgrade replaces policies too. Runs that were refused in that moment continue at once.
        """
        while True:
            await self._missing.wait()
            await asyncio.sleep(_AGAIN_SECONDS)
            with contextlib.suppress(ApiError):  # the next check may be answered
                if await self.refusal() is None:
                    self._missing.clear()
                    restored()

    def not_admitted(self, what: str, namespace: str, created: datetime | None, field: str) -> Refusal | None:
        """Return why an object is not trusted although the policies are in force now; None if it is trusted.

        It is not trusted if it was created while they were not in force. Call this only after `refusal` returned None.

        :param what: the object, for the message. :param created: its creationTimestamp.
        :param field: the field that the refusal names.
        """
        record = self._record
        if created is not None:
            self._newest = max(created, self._newest or created)
        if record is None or created is None or record.covers(namespace, created):
            return None
        since = record.since(namespace)
        again = f" (they are since {since:%Y-%m-%dT%H:%M:%SZ})" if since is not None else ""
        return Refusal(
            Reason.REQUESTER_UNKNOWN,
            field,
            f"{what} was created at {created:%Y-%m-%dT%H:%M:%SZ}, and the admission policies are not known to"
            f" have been in force then{again}, so it is not known who created it; create it again",
            permanent=True,
        )

    async def confirm(self) -> None:
        """Check again soon after something was created, until cancelled.

        Policies that are the same before and after a creation were in force at that moment.
        """
        while True:
            await asyncio.sleep(_CONFIRM_SECONDS)
            newest, written = self._newest, self._written
            if newest is None or (written is not None and written.seen >= newest + timedelta(seconds=1)):
                continue
            try:
                async with self._looking:
                    await self._look()
                    if self._refusal is None:
                        await self._keep()
            except ApiError as error:
                log.debug("could not look at the admission policies: %s", error)  # the resync reports it

    async def _look(self) -> None:
        if self._server is None:
            await self._ask_the_time()
        began, seen = self._now(), self._server_time()
        built = self._built = self._built or await self._expect()
        findings = await asyncio.gather(*(self._compare(built, *key, began) for key in built(())))
        refusal = next((found for found in findings if isinstance(found, Refusal)), None)
        if refusal is None:
            await self._note([found for found in findings if isinstance(found, _Found)], seen)
        elif self._refusal is None:
            await self._keep()
        if refusal is not None and refusal != self._refusal:
            log.error("%s", refusal)
        elif refusal is None and (self._refusal is not None or self._looked_at is None):
            log.info("the admission policies are in force")
        self._refusal, self._looked_at = refusal, began
        if refusal is not None:
            self._missing.set()
        self._set.report(refusal is None)

    async def _note(self, found: Sequence[_Found], seen: datetime) -> None:
        """Record that they are in force."""
        if not self._loaded:
            self._record, self._loaded = await self._load(), True
        before = self._record
        everywhere = [item.namespaces for item in found if item.namespaces is not None]
        common = sorted(set.intersection(*map(set, everywhere))) if everywhere else []
        sightings = {item.name: item.sighting for item in found}
        record = looked(before, sightings, tuple(common), seen, self._server_time())
        if before is None or before.periods != record.periods:
            # A period may begin when the check ended. So the time is asked for, not computed.
            record = looked(before, sightings, tuple(common), seen, await self._ask_the_time())
            since = ", ".join(f"{item.begin:%Y-%m-%dT%H:%M:%SZ}" for item in record.periods if not item.end)
            log.info("the policies have checked everything created since %s", since)
        self._record = record
        changed = before is None or (before.periods, before.policies) != (record.periods, record.policies)
        if changed or self._kept_at is None or self._now() >= self._kept_at + _KEEP_SECONDS:
            await self._keep()

    async def _load(self) -> Record | None:
        if self._operator_namespace is None:
            return None
        try:
            found = await self._kube.get(CONFIG_MAPS, self._operator_namespace, PUBLIC_KEYS)
        except (Forbidden, NotFound):
            return None  # the code that needs the keys reports it
        return Record.parse((found["metadata"].get("annotations") or {}).get(self._set.record, ""))

    async def _keep(self) -> None:
        """Write the record. A lost write makes more objects doubtful, never fewer; `confirm` repeats it."""
        record = self._record
        if record is None or self._operator_namespace is None:
            self._written = record  # nothing more can be done
            return
        annotations = {self._set.record: record.wire()}
        try:
            found = await self._kube.get(CONFIG_MAPS, self._operator_namespace, PUBLIC_KEYS)
            await self._kube.patch(
                CONFIG_MAPS,
                self._operator_namespace,
                PUBLIC_KEYS,
                {"metadata": {"annotations": annotations}},
                resource_version=str(found["metadata"]["resourceVersion"]),
            )
        except Conflict:
            return  # the next check writes it
        except ApiError as error:
            log.warning("could not record since when the admission policies are in force: %s", error)
            if isinstance(error, Forbidden):
                self._written = record  # trying again soon does not help
        else:
            self._written = record
        self._kept_at = self._now()
        await self._ask_the_time()

    async def _ask_the_time(self) -> datetime:
        """Return a time that the API server's clock has not passed: it cuts times to seconds.

        :raises ApiError: the request failed.
        """
        review = await self._kube.who_am_i()
        moment = datetime.fromisoformat(review["metadata"]["creationTimestamp"])
        self._server = moment, self._now()
        self._username = str(review["status"]["userInfo"]["username"])
        return moment + timedelta(seconds=1)

    def _server_time(self) -> datetime:
        """Return a time that the API server's clock has reached."""
        if self._server is None:
            raise RuntimeError("it has to be asked first")
        moment, answered = self._server
        return moment + timedelta(seconds=self._now() - answered)

    async def _expect(self) -> Built:
        """Return the required specs, for this operator's username and for the kinds of policies that the server has."""
        username = self._username
        account = Account(username, self._operator_namespace or Account.home_of(username), self._audiences)
        kinds = {entry["name"] for entry in await self._kube.discover(_RESOURCES[MUTATING])}
        mutating = _RESOURCES[MUTATING].plural in kinds

        def built(namespaces: tuple[str, ...]) -> dict[tuple[str, str], Json]:
            items = self._set.build(account, namespaces, mutating=mutating)
            return {(item["kind"], item["metadata"]["name"]): item["spec"] for item in items}

        return lru_cache(maxsize=2)(built)

    async def _compare(self, built: Built, kind: str, name: str, began: float) -> Refusal | _Found:
        try:
            found = await self._read(_RESOURCES[kind], name, began)
        except NotFound:
            return self._refuse(kind, name, "is missing")
        except Forbidden:
            return self._refuse(kind, name, "cannot be read by the operator (see the chart's ClusterRole)")
        namespaces = policies.served(found)
        if namespaces is not None:
            left_out = sorted(set(self._namespaces) - set(namespaces))
            if left_out or not self._namespaces:
                what = ", ".join(left_out) or "all namespaces"
                return self._refuse(kind, name, f"does not cover {what}, which the operator serves")
        expected = built(tuple(namespaces or ()))[kind, name]
        different = policies.difference(expected, found.get("spec"))
        if different is not None:
            return self._refuse(kind, name, f"is not the one of this version ({different} differs)")
        metadata = found["metadata"]
        sighting = Sighting(
            metadata["uid"],
            int(metadata["generation"]),
            datetime.fromisoformat(metadata["creationTimestamp"]),
        )
        selects = kind.endswith("Binding") and namespaces is not None
        return _Found(f"{kind}/{name}", sighting, tuple(namespaces or ()) if selects else None)

    async def _read(self, resource: Resource, name: str, began: float) -> Json:
        """Read one of them, again and again in the first seconds of a look."""
        while True:
            try:
                async with self._turn:
                    return await self._kube.get(resource, None, name)
            except (TooManyRequests, ServerError, Unreachable) as error:
                pause = error.retry_after or _PAUSE_SECONDS
                if self._now() + pause > began + _TRY_SECONDS:
                    raise
                await asyncio.sleep(pause)

    def _refuse(self, kind: str, name: str, what: str) -> Refusal:
        return Refusal(
            Reason.POLICIES_MISSING, f"{kind} {name}", f"{what}, {self._set.remedy}", permanent=False
        )
