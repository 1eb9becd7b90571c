"""Answers SecretReveals: once, for users who have the right, sealed so that only their key opens it.

The value passes through this process and through nothing else: what is written into the answer opens with the
asker's key and for that one object. Before the answer an Event on the binding says who reads what.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from pydantic import ValidationError

from runkeys._text.times import to_seconds
from runkeys.api import API_VERSION, SecretBinding
from runkeys.api.common import describe_invalid
from runkeys.api.reveal import SecretReveal, SecretRevealStatus
from runkeys.planning.access import REVEAL
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import reference_to
from runkeys_operator.checks.access_review import Authorizer
from runkeys_operator.checks.policies import REMEDY, PolicyCheck
from runkeys_operator.controllers.key import Key, Kind
from runkeys_operator.controllers.reading import personal_bindings
from runkeys_operator.controllers.workqueue import ReconcileQueue, Urgency
from runkeys_operator.errors import Conflict, NotFound
from runkeys_operator.kube import BINDINGS, EVENTS, REVEALS, Json, Kube
from runkeys_operator.values.delivery import Asker, RecipientError
from runkeys_operator.values.refused import SourceRefusedError
from runkeys_operator.values.sources import Sources

log = logging.getLogger(__name__)

KEPT = timedelta(seconds=60)
"""How long a SecretReveal is kept, answered or not."""


_NOBODY_KNOWS = (
    "so it is not known who asks, and no value is returned. Ask an administrator of the cluster to install the"
    " policies of this version again (helm upgrade, or kubectl apply -f policies/), and ask again"
)


class _DeniedError(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class RevealController:
    """Brings one SecretReveal to its end."""

    def __init__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        sources: Sources,
        authorizer: Authorizer,
        policy_check: PolicyCheck,
        clock: Callable[[], datetime],
    ) -> None:
        self._kube = kube
        self._queue = queue
        self._policy_check = policy_check
        self._sources = sources
        self._authorizer = authorizer
        self._now = clock

    def on_event(self, event: Json) -> None:
        """A SecretReveal was made, or is there still: its answer is waited for."""
        if event.get("type") != "DELETED":
            key = Key.of(Kind.REVEAL, event["object"]["metadata"])
            self._queue.add(key, urgency=Urgency.EVENT)

    async def reconcile(self, key: Key) -> float | None:
        """Answer it if unanswered, delete it when its time has passed; return seconds until then."""
        try:
            raw = await self._kube.get(REVEALS, key.namespace, key.name)
        except NotFound:
            return None
        metadata = raw["metadata"]
        until = datetime.fromisoformat(metadata["creationTimestamp"]) + KEPT
        if until <= self._now():
            await self._delete(key, metadata["uid"])
            return None
        try:
            reveal = SecretReveal.parse(raw)
        except ValidationError as error:
            log.warning("cannot read SecretReveal %s: %s", key, describe_invalid(error))
        else:
            if reveal.status.answered_time is None:
                await self._answer(reveal)
        return (until - self._now()).total_seconds() + 1

    async def _answer(self, reveal: SecretReveal) -> None:
        metadata = reveal.metadata
        try:
            sealed = await self._sealed(reveal)
            status = SecretRevealStatus(answered_time=self._now(), sealed=sealed)
        except _DeniedError as error:
            refusal = error.refusal
            status = SecretRevealStatus(
                answered_time=self._now(), reason=refusal.reason.value, message=str(refusal)
            )
        except SourceRefusedError as error:
            refusal = error.refusal
            status = SecretRevealStatus(
                answered_time=self._now(), reason=refusal.reason.value, message=str(refusal)
            )
        await self._kube.patch_status(
            REVEALS,
            metadata.namespace,
            metadata.name,
            status.to_wire(),
            resource_version=metadata.resource_version,
        )
        log.info(
            "reveal %s",
            status.reason or "answered",
            extra={"reveal": f"{metadata.namespace}/{metadata.name}"},
        )

    async def _sealed(self, reveal: SecretReveal) -> str:
        """The value for the asker. Raises _DeniedError, SourceRefusedError."""
        namespace, entry_name = reveal.metadata.namespace, reveal.spec.entry
        try:
            asker = Asker(reveal.spec.public_key)
        except RecipientError as error:
            raise _DeniedError(
                Refusal(Reason.INVALID, "spec.publicKey", str(error), permanent=True)
            ) from None
        await self._admitted(reveal)
        binding = await self._binding(reveal)
        await self._authorize(reveal, binding)
        name = binding.metadata.name
        entry = binding.entry(entry_name)
        if entry is None:
            there = ", ".join(item.name for item in binding.spec.secrets)
            message = f"SecretBinding {name} has no entry {entry_name!r}; it has: {there}"
            raise _DeniedError(Refusal(Reason.SECRET_NOT_FOUND, "spec.entry", message, permanent=True))
        reference = reference_to(namespace, binding, entry, "spec.entry", file="value")
        if isinstance(reference, Refusal):
            raise _DeniedError(reference)
        values = await self._sources.resolve(namespace, [reference], None)
        await self._tell(reveal, binding)
        return asker.seal(values, namespace, reveal.metadata.uid)

    async def _admitted(self, reveal: SecretReveal) -> None:
        """Only the policies say who asks. They are looked at after the question, so that they were there before it."""
        metadata = reveal.metadata
        refusal = await self._policy_check.refusal(anew=True)
        if refusal is not None:
            message = refusal.message.removesuffix(REMEDY) + _NOBODY_KNOWS
            raise _DeniedError(replace(refusal, message=message))
        refusal = self._policy_check.not_admitted(
            "the SecretReveal", metadata.namespace, metadata.creation_timestamp, "spec.requester"
        )
        if refusal is not None:
            raise _DeniedError(refusal)

    async def _binding(self, reveal: SecretReveal) -> SecretBinding:
        namespace, name = reveal.metadata.namespace, reveal.spec.binding
        field = "spec.binding" if name else "spec.personal"
        requester = self._requester(reveal)
        if name is None:
            found = await personal_bindings(self._kube, namespace, requester)
            if len(found) != 1:
                what = "several personal SecretBindings" if found else "no personal SecretBinding"
                message = f"{requester} has {what} in namespace {namespace}"
                reason = Reason.NAME_COLLISION if found else Reason.BINDING_NOT_FOUND
                raise _DeniedError(Refusal(reason, field, message, permanent=True))
            raw = found[0]
        else:
            try:
                raw = await self._kube.get(BINDINGS, namespace, name)
            except NotFound:
                message = f"there is no SecretBinding {name} in namespace {namespace}"
                raise _DeniedError(
                    Refusal(Reason.BINDING_NOT_FOUND, field, message, permanent=True)
                ) from None
        try:
            return SecretBinding.parse(raw)
        except ValidationError as error:
            raise _DeniedError(
                Refusal(Reason.BINDING_INVALID, field, describe_invalid(error), permanent=True)
            ) from None

    def _requester(self, reveal: SecretReveal) -> str:
        if reveal.spec.requester is None:
            message = (
                "the request does not record who asks, so no value is returned; ask again when the policies are"
                " installed"
            )
            raise _DeniedError(Refusal(Reason.REQUESTER_UNKNOWN, "spec.requester", message, permanent=True))
        return reveal.spec.requester.username

    async def _authorize(self, reveal: SecretReveal, binding: SecretBinding) -> None:
        requester, owner = self._requester(reveal), binding.spec.owner
        name = binding.metadata.name
        if owner is not None:
            if owner.username == requester:
                return
            message = f"SecretBinding {name} is the personal binding of {owner.username}"
            raise _DeniedError(Refusal(Reason.REVEAL_DENIED, "spec.binding", message, permanent=True))
        denied = await self._authorizer.denied(reveal.metadata.namespace, reveal.spec.requester, REVEAL, name)
        if denied is not None:
            raise _DeniedError(Refusal(Reason.REVEAL_DENIED, "spec.binding", denied, permanent=True))

    async def _tell(self, reveal: SecretReveal, binding: SecretBinding) -> None:
        """Say on the binding who reads what. Without that there is no answer.

        Nobody can know the name before and take it, so that the Event would be missing. If the answer got lost it is
        said twice.
        """
        metadata, asked = binding.metadata, reveal.metadata
        moment = to_seconds(self._now())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata.name[:200]}.{secrets.token_hex(8)}",
                "namespace": metadata.namespace,
            },
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": "SecretBinding",
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid,
            },
            "type": "Normal",
            "reason": "SecretRevealed",
            "message": f"{self._requester(reveal)} read entry {reveal.spec.entry!r} (SecretReveal {asked.name})",
            "source": {"component": "runkeys"},
            "reportingComponent": "runkeys.dev/operator",
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        await self._kube.create(EVENTS, metadata.namespace, event)

    async def _delete(self, key: Key, uid: str) -> None:
        try:
            await self._kube.delete(REVEALS, key.namespace, key.name, uid=uid, propagation="Background")
        except (NotFound, Conflict):
            return  # gone, or another one by now
