"""Whether the admission policies are in force: without them this operator makes no Secret, and no Job for one (I6).

What is installed is compared with what this version ships, by reading each policy and binding by its name. That is
done with the resync, and before something is made, unless the last look was a moment ago.

Nothing that was made while they were away is believed afterwards: since when they are in force, and when they were
before, is kept in an annotation of the ConfigMap with the public keys, see :mod:`runkeys_operator.checks.admission`.
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
from runkeys.policies import MUTATING, VALIDATING, Account
from runkeys_operator.checks.admission import Record, Sighting, looked
from runkeys_operator.errors import ApiError, Conflict, Forbidden, NotFound
from runkeys_operator.kube import CONFIG_MAPS, Json, Kube, Resource
from runkeys_operator.process import metrics
from runkeys_operator.process.logs import get_logger

log = get_logger(__name__)

FRESH_SECONDS = 5.0
"""For how long the last check is good enough to create something."""

_AGAIN_SECONDS = 1.0
"""For how long a failed check is not repeated."""

_KEEP_SECONDS = 60.0
"""So often is it written down that they are still in force, when nothing is made."""

_CONFIRM_SECONDS = 3.0
"""So often are they looked at when something was made since the last look, which is written down then: what was made
in between is not believed if they go."""

KEPT = f"{GROUP}/policies-in-force"
"""The annotation."""

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
    "so nothing holds people to what they may use, and no Job and no Secret is made. Install the policies of this"
    " version again (helm upgrade, or kubectl apply -f policies/); the run then goes on by itself"
)


Built = Callable[[tuple[str, ...]], dict[tuple[str, str], Json]]
"""The specs by kind and name, as they are for the namespaces that are served; ``()``: all."""


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


def for_pods(image: str) -> PolicySet:
    """The policies on pods that ask for secrets themselves. :param image: the operator's."""
    remedy = (
        "so nobody can tell what pods ask for, and those that ask for secrets themselves get none. Install the policies"
        " of this version again (helm upgrade with pods.enabled); new pods then get theirs"
    )
    build = partial(policies.build_asking, image=image)
    return PolicySet(build, f"{GROUP}/pod-policies-in-force", remedy, metrics.pod_policies_in_force.set)


class _Found(NamedTuple):
    """A policy or binding that is as required. ``namespaces``: those that a binding selects; None: all."""

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
    ) -> None:
        """`namespaces`: those that are served; none: all. `operator_namespace`: where the sealing keys are."""
        self._kube = kube
        self._set = policy_set
        self._namespaces = tuple(namespaces)
        self._operator_namespace = operator_namespace
        self._now = clock
        self._built: Built | None = None
        self._username = ""
        self._looked_at: float | None = None
        self._looking = asyncio.Lock()
        self._missing = asyncio.Event()
        self._refusal: Refusal | None = None
        self._record: Record | None = None
        self._loaded = False
        self._newest: datetime | None = None
        self._kept_at: float | None = None
        # The API server's clock tells when objects were made, so it is the only one that counts.
        self._server: tuple[datetime, float] | None = None

    @property
    def in_force(self) -> bool:
        """Whether the policies were in force at the last look; False before the first."""
        return self._looked_at is not None and self._refusal is None

    @property
    def problem(self) -> str:
        """What was wrong at the last look; empty if nothing was."""
        return str(self._refusal) if self._refusal is not None else ""

    async def refusal(self, *, anew: bool = False) -> Refusal | None:
        """Why nothing may be created now; None if the policies are in force.

        :param anew: by a look that begins now, or since somebody else has asked for one.
        :raises ApiError: if the API server could not be asked.
        """
        asked = self._now()
        async with self._looking:
            lasts = FRESH_SECONDS if self._refusal is None else _AGAIN_SECONDS
            good_since = asked if anew else self._now() - lasts
            if self._looked_at is None or self._looked_at <= good_since:
                await self._look()
            return self._refusal

    async def watch(self, restored: Callable[[], None]) -> None:
        """While they are not in force, look again each second, and say so once they are; never ends.

        Policies are replaced by an upgrade, too: what was refused in that moment goes on at once.
        """
        while True:
            await self._missing.wait()
            await asyncio.sleep(_AGAIN_SECONDS)
            with contextlib.suppress(ApiError):  # the next check may be answered
                if await self.refusal() is None:
                    self._missing.clear()
                    restored()

    def not_admitted(self, what: str, namespace: str, created: datetime | None, field: str) -> Refusal | None:
        """Why something is not trusted although the policies are in force now: it was created while they were not.

        To be asked when `refusal` has just found nothing.

        :param what: it in words. :param field: what the refusal is about.
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
            f"{what} was made at {created:%Y-%m-%dT%H:%M:%SZ}, and the admission policies are not known to have been in"
            f" force then{again}, so nobody can tell who made it; make it again",
            permanent=True,
        )

    async def confirm(self) -> None:
        """Look again soon after something was made, until cancelled: what was there before and after was there then."""
        while True:
            await asyncio.sleep(_CONFIRM_SECONDS)
            record, newest = self._record, self._newest
            if record is None or newest is None or record.seen >= newest + timedelta(seconds=1):
                continue
            try:
                async with self._looking:
                    await self._look()
                    if self._refusal is None:
                        await self._keep()
            except ApiError as error:
                log.debug("could not look at the admission policies: %s", error)  # the resync tells

    async def _look(self) -> None:
        if self._server is None:
            await self._ask_the_time()
        began, seen = self._now(), self._server_time()
        built = self._built = self._built or await self._expect()
        findings = await asyncio.gather(*(self._compare(built, *key) for key in built(())))
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
            # When that ended is what counts, so it is asked for and not reckoned.
            record = looked(before, sightings, tuple(common), seen, await self._ask_the_time())
            since = ", ".join(f"{item.begin:%Y-%m-%dT%H:%M:%SZ}" for item in record.periods if not item.end)
            log.info("what was made since %s was admitted by the policies", since)
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
            return None  # told by whoever needs the keys
        return Record.parse((found["metadata"].get("annotations") or {}).get(self._set.record, ""))

    async def _keep(self) -> None:
        """Write the record. A lost write makes more objects doubtful, never fewer."""
        if self._record is None or self._operator_namespace is None:
            return
        annotations = {self._set.record: self._record.wire()}
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
            log.warning("could not write down since when the admission policies are in force: %s", error)
        self._kept_at = self._now()
        await self._ask_the_time()

    async def _ask_the_time(self) -> datetime:
        """The API server's, which it cuts to seconds: a time that it was not later than."""
        review = await self._kube.who_am_i()
        moment = datetime.fromisoformat(review["metadata"]["creationTimestamp"])
        self._server = moment, self._now()
        self._username = str(review["status"]["userInfo"]["username"])
        return moment + timedelta(seconds=1)

    def _server_time(self) -> datetime:
        """A time that the API server's clock has reached."""
        if self._server is None:
            raise RuntimeError("it has to be asked first")
        moment, answered = self._server
        return moment + timedelta(seconds=self._now() - answered)

    async def _expect(self) -> Built:
        """Find out who this operator is, and whether the server knows policies that change what is sent."""
        username = self._username
        account = Account(username, self._operator_namespace or Account.home_of(username))
        kinds = {entry["name"] for entry in await self._kube.discover(_RESOURCES[MUTATING])}
        mutating = _RESOURCES[MUTATING].plural in kinds

        def built(namespaces: tuple[str, ...]) -> dict[tuple[str, str], Json]:
            items = self._set.build(account, namespaces, mutating=mutating)
            return {(item["kind"], item["metadata"]["name"]): item["spec"] for item in items}

        return lru_cache(maxsize=2)(built)

    async def _compare(self, built: Built, kind: str, name: str) -> Refusal | _Found:
        try:
            found = await self._kube.get(_RESOURCES[kind], None, name)
        except NotFound:
            return self._refuse(kind, name, "is missing")
        except Forbidden:
            return self._refuse(kind, name, "cannot be read by the operator (see the chart's ClusterRole)")
        namespaces = policies.served(found)
        if namespaces is not None:
            left_out = sorted(set(self._namespaces) - set(namespaces))
            if left_out or not self._namespaces:
                what = ", ".join(left_out) or "all namespaces"
                return self._refuse(kind, name, f"is not for {what}, which the operator serves")
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

    def _refuse(self, kind: str, name: str, what: str) -> Refusal:
        return Refusal(
            Reason.POLICIES_MISSING, f"{kind} {name}", f"{what}, {self._set.remedy}", permanent=False
        )
