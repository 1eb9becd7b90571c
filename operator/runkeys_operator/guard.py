"""Whether the admission policies are in force: without them this operator makes no Secret, and no Job for one (I6).

What is installed is compared with what this version ships, by reading each policy and binding by its name. That is
done with the sweep, and before something is made, unless the last look was a moment ago.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

from runkeys import policies
from runkeys.policies import MUTATING, VALIDATING, Account
from runkeys.refusal import Reason, Refusal

from . import metrics
from .errors import ApiError, Forbidden, NotFound
from .kube import Json, Kube, Resource
from .logs import get_logger

log = get_logger(__name__)

FRESH_SECONDS = 5.0
"""For so long the last look is good enough to make something."""

_AGAIN_SECONDS = 1.0
"""For so long what was wrong is not looked at again."""

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
_WHO_AM_I = Resource("authentication.k8s.io", "v1", "selfsubjectreviews")
_REVIEW: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
_REMEDY = (
    "so nothing holds people to what they may use, and no Job and no Secret is made. Install the policies of this"
    " version again (helm upgrade, or kubectl apply -f policies/); the run then goes on by itself"
)


Built = Callable[[tuple[str, ...]], dict[tuple[str, str], Json]]
"""The specs by kind and name, as they are for the namespaces that are served; ``()``: all."""


class Guard:
    """Looks at the policies now and then, and says what is wrong with them."""

    def __init__(
        self,
        kube: Kube,
        namespaces: Sequence[str],
        operator_namespace: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`namespaces`: those that are served; none: all. `operator_namespace`: where the sealing keys are."""
        self._kube = kube
        self._namespaces = tuple(namespaces)
        self._operator_namespace = operator_namespace
        self._now = clock
        self._built: Built | None = None
        self._looked_at: float | None = None
        self._looking = asyncio.Lock()
        self._missing = asyncio.Event()
        self._refusal: Refusal | None = None

    @property
    def in_force(self) -> bool:
        """Whether the policies were in force at the last look; False before the first."""
        return self._looked_at is not None and self._refusal is None

    @property
    def problem(self) -> str:
        """What was wrong at the last look; empty if nothing was."""
        return str(self._refusal) if self._refusal is not None else ""

    async def refusal(self) -> Refusal | None:
        """Why nothing may be made now; None if the policies are in force.

        :raises ApiError: if the API server could not be asked.
        """
        async with self._looking:
            lasts = FRESH_SECONDS if self._refusal is None else _AGAIN_SECONDS
            if self._looked_at is None or self._now() >= self._looked_at + lasts:
                await self._look()
            return self._refusal

    async def watch(self, restored: Callable[[], None]) -> None:
        """While they are not in force, look again each second, and say so once they are; never ends.

        Policies are replaced by an upgrade, too: what was refused in that moment goes on at once.
        """
        while True:
            await self._missing.wait()
            await asyncio.sleep(_AGAIN_SECONDS)
            with contextlib.suppress(ApiError):  # the next look may be answered
                if await self.refusal() is None:
                    self._missing.clear()
                    restored()

    async def _look(self) -> None:
        began = self._now()
        built = self._built = self._built or await self._expect()
        findings = await asyncio.gather(*(self._compare(built, *key) for key in built(())))
        refusal = next((found for found in findings if found is not None), None)
        if refusal is not None and refusal != self._refusal:
            log.error("%s", refusal)
        elif refusal is None and (self._refusal is not None or self._looked_at is None):
            log.info("the admission policies are in force")
        self._refusal, self._looked_at = refusal, began
        if refusal is not None:
            self._missing.set()
        metrics.policies_in_force.set(refusal is None)

    async def _expect(self) -> Built:
        """Find out who this operator is, and whether the server knows policies that change what is sent."""
        review = await self._kube.create(_WHO_AM_I, None, dict(_REVIEW))
        username = str(review["status"]["userInfo"]["username"])
        account = Account(username, self._operator_namespace or Account.home_of(username))
        kinds = {entry["name"] for entry in await self._kube.discover(_RESOURCES[MUTATING])}
        mutating = _RESOURCES[MUTATING].plural in kinds

        def built(namespaces: tuple[str, ...]) -> dict[tuple[str, str], Json]:
            items = policies.build(account, namespaces, mutating=mutating)
            return {(item["kind"], item["metadata"]["name"]): item["spec"] for item in items}

        return lru_cache(maxsize=2)(built)

    async def _compare(self, built: Built, kind: str, name: str) -> Refusal | None:
        try:
            found = await self._kube.get(_RESOURCES[kind], None, name)
        except NotFound:
            return _refusal(kind, name, "is missing")
        except Forbidden:
            return _refusal(kind, name, "cannot be read by the operator (see the chart's ClusterRole)")
        namespaces = policies.served(found)
        if namespaces is not None:
            left_out = sorted(set(self._namespaces) - set(namespaces))
            if left_out or not self._namespaces:
                what = ", ".join(left_out) or "all namespaces"
                return _refusal(kind, name, f"is not for {what}, which the operator serves")
        expected = built(tuple(namespaces or ()))[kind, name]
        different = policies.difference(expected, found.get("spec"))
        if different is not None:
            return _refusal(kind, name, f"is not the one of this version ({different} differs)")
        return None


def _refusal(kind: str, name: str, what: str) -> Refusal:
    return Refusal(Reason.POLICIES_MISSING, f"{kind} {name}", f"{what}, {_REMEDY}", permanent=False)
