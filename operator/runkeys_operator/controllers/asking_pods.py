"""Answers the requests of pods that ask for secrets themselves: pods of any engine, not of a run.

Nothing is kept that a restart could lose: a request that is unanswered is there until it is answered, and everything
else is read when it is answered. Two writes a pod: the answer, and the deletion of the request once it was opened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from runkeys._text.times import to_seconds
from runkeys.api import SecretBinding
from runkeys.api.run import Requester
from runkeys.names import SERVICE_ACCOUNT
from runkeys.planning.access import USE
from runkeys.planning.asking_pod import FIELD, AskingPod, references_of, shape_refusal
from runkeys.planning.bindings import Bindings
from runkeys.planning.certificate_requests import differs
from runkeys.planning.observation import NOTHING_LEFT, RequestView
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.retry import RETRY_AFTER
from runkeys_operator.checks.access_review import Authorizer
from runkeys_operator.checks.policies import PolicyCheck
from runkeys_operator.controllers.certificates import CertificateRequests
from runkeys_operator.controllers.key import Key
from runkeys_operator.controllers.reading import UnreadableError, parse
from runkeys_operator.controllers.workqueue import ReconcileQueue, Urgency
from runkeys_operator.errors import ApiError, NotFound
from runkeys_operator.kube import BINDINGS, Kube
from runkeys_operator.kube.events import post_on_pod
from runkeys_operator.process import metrics
from runkeys_operator.values import Values
from runkeys_operator.values.refused import SourceRefusedError
from runkeys_operator.values.sources import Sources

log = logging.getLogger(__name__)

_LOOK_AGAIN, _LONGEST_PAUSE, _GIVE_UP = 2.0, 60.0, 900.0
"""Seconds. Kubernetes itself deletes a request 15 minutes after it was made."""

_NOTED = timedelta(minutes=1)


@dataclass(frozen=True)
class _Verdict:
    """What becomes of a request: values, or a refusal."""

    values: Values | None = None
    refusal: Refusal | None = None
    bindings: tuple[SecretBinding, ...] = ()


class AskingPods:
    """Answers them one by one."""

    def __init__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        requests: CertificateRequests,
        sources: Sources,
        policy_check: PolicyCheck,
        binding_policy_check: PolicyCheck,
        clock: Callable[[], datetime],
    ) -> None:
        """``policy_check``: of the policies on such pods. ``binding_policy_check``: of those on authors of bindings."""
        self._kube = kube
        self._queue = queue
        self._requests = requests
        self._sources = sources
        self._authorizer = Authorizer(kube)
        self._policy_check = policy_check
        self._binding_policy_check = binding_policy_check
        self._now = clock
        self._waiting: dict[Key, tuple[str, ...]] = {}
        self._told: set[str] = set()
        self._noted: dict[str, datetime] = {}

    def binding_changed(self, namespace: str, name: str) -> None:
        """Look again at the pods that wait for this binding."""
        for waiting, bindings in self._waiting.items():
            if waiting.namespace == namespace and name in bindings:
                self._queue.add(waiting, urgency=Urgency.PODS)

    def policies_restored(self) -> None:
        """Look again at all pods that wait: some may wait for the policies."""
        for waiting in self._waiting:
            self._queue.add(waiting, urgency=Urgency.PODS)

    def ended(self, key: Key) -> None:
        """The request is gone."""
        self._waiting.pop(key, None)

    async def reconcile(self, key: Key, request: RequestView, pod: AskingPod) -> float | None:
        """Answer a request, or clean it up; return seconds until the next look."""
        if request.state:
            self.ended(key)
            return await self._clean_up(request, pod)
        other = differs(request, pod.view)
        if other:
            await self._deny(request, other)
            return None
        if pod.view.over or (pod.opened and not pod.again):
            return await self._answer_empty(request)
        verdict = await self._judge(pod)
        if verdict.values is not None:
            return await self._answer(key, request, pod, verdict.values, verdict.bindings)
        refusal = verdict.refusal
        if refusal is None:
            raise RuntimeError("a verdict has values or a refusal")
        if pod.opened:
            # It runs, and only asks because its kubelet was started again: a pod without an answer is not looked after.
            return await self._answer_empty(request)
        if refusal.permanent:
            await self._deny(request, str(refusal))
            return None
        return await self._leave_waiting(key, pod, refusal)

    async def _judge(self, pod: AskingPod) -> _Verdict:
        """Whether the pod may have its values, and the values: read last, and never kept."""
        # A pod can be younger than the last look: then it may have been created while they were away.
        refusal = await self._policy_check.refusal(anew=not self._policy_check.looked_since(pod.created))
        if refusal is None:
            refusal = self._policy_check.not_admitted("the pod", pod.namespace, pod.created, FIELD)
        refusal = refusal or shape_refusal(pod) or await self._binding_policy_check.refusal()
        if refusal is not None:
            return _Verdict(refusal=refusal)
        bindings, denied = await asyncio.gather(self._read_bindings(pod), self._denied(pod))
        if denied is not None:
            return _Verdict(refusal=Refusal(Reason.USE_DENIED, FIELD, denied, permanent=False))
        references = references_of(pod, bindings)
        if isinstance(references, Refusal):
            return _Verdict(refusal=references)
        try:
            values = await self._sources.resolve(pod.namespace, references, pod.identity)
            return _Verdict(values, bindings=tuple(bindings.found.values()))
        except SourceRefusedError as error:
            return _Verdict(refusal=error.refusal)

    async def _read_bindings(self, pod: AskingPod) -> Bindings:
        found: dict[str, SecretBinding] = {}
        unreadable: dict[str, str] = {}

        async def read(name: str) -> None:
            try:
                found[name] = parse(SecretBinding, await self._kube.get(BINDINGS, pod.namespace, name))
            except NotFound:
                return
            except UnreadableError as error:
                unreadable[name] = error.where

        await asyncio.gather(*(read(name) for name in pod.bindings))
        return Bindings(found, unreadable)

    async def _denied(self, pod: AskingPod) -> str | None:
        """Why the pod's service account may not use one of the bindings; None if it may."""
        account = Requester(
            username=f"{SERVICE_ACCOUNT}{pod.namespace}:{pod.subject.service_account}",
            groups=[
                "system:serviceaccounts",
                f"system:serviceaccounts:{pod.namespace}",
                "system:authenticated",
            ],
        )
        answers = await asyncio.gather(
            *(self._authorizer.denied(pod.namespace, account, USE, name) for name in pod.bindings)
        )
        return next((answer for answer in answers if answer is not None), None)

    async def _answer(
        self,
        key: Key,
        request: RequestView,
        pod: AskingPod,
        values: Values,
        bindings: tuple[SecretBinding, ...],
    ) -> float | None:
        answered = await self._requests.answer(request, values, self._now())
        self.ended(key)
        metrics.pods_answered.labels("Values").inc()
        log.info("pod %s was given %s", pod.view.name, _given(pod), extra={"pod": str(key)})
        await asyncio.gather(self._tell(pod, answered.uid), self._note_use(bindings))
        return _LOOK_AGAIN

    async def _tell(self, pod: AskingPod, answer: str) -> None:
        """Say so in an Event, once for each answer, whichever operator gave it."""
        message = f"{_given(pod)}, for {', '.join(pod.containers)}"
        await post_on_pod(self._kube, pod, "Normal", "SecretsDelivered", message, self._now(), answer)
        self._told.add(answer)

    async def _note_use(self, bindings: Iterable[SecretBinding]) -> None:
        """Write into the bindings' status that they were used: once a minute, since many pods may use them at once."""
        now = self._now().replace(microsecond=0)
        self._noted = {uid: at for uid, at in self._noted.items() if at + _NOTED > now}
        for binding in bindings:
            metadata = binding.metadata
            before = binding.status.last_used
            if metadata.uid in self._noted or (before is not None and before + _NOTED > now):
                continue
            self._noted[metadata.uid] = now
            try:
                await self._kube.patch_status(
                    BINDINGS,
                    metadata.namespace,
                    metadata.name,
                    {"lastUsed": to_seconds(now)},
                    resource_version=metadata.resource_version,
                )
            except ApiError as error:
                # It changed meanwhile, or is gone. The next pod tries again.
                self._noted.pop(metadata.uid, None)
                log.debug("SecretBinding %s: its use was not noted: %s", metadata.name, error)

    async def _answer_empty(self, request: RequestView) -> float | None:
        """With no value: the kubelet goes on with a pod whose volume is there."""
        await self._requests.answer_empty(request, self._now())
        metrics.pods_answered.labels("Empty").inc()
        return None  # what holds nothing stays until the kubelet has read it; Kubernetes deletes it

    async def _deny(self, request: RequestView, message: str) -> None:
        metrics.pods_answered.labels("Denied").inc()
        await self._requests.deny(request, message)

    async def _leave_waiting(self, key: Key, pod: AskingPod, refusal: Refusal) -> float:
        self._waiting[key] = pod.bindings
        metrics.pods_refused.labels(refusal.reason.value).inc()
        await post_on_pod(self._kube, pod, "Warning", refusal.reason.value, str(refusal), self._now())
        return RETRY_AFTER.total_seconds()

    async def _clean_up(self, request: RequestView, pod: AskingPod) -> float | None:
        """Delete a request that was answered once it has served; the kubelet reads it only until it has the answer."""
        if request.state != "Issued" or request.reason == NOTHING_LEFT:
            return None
        answered = request.at or request.created
        # One that was answered after the values were unsealed stays until the kubelet has read it.
        if pod.view.over or (pod.opened_at is not None and pod.opened_at >= answered):
            if request.uid not in self._told:
                await self._tell(pod, request.uid)  # whoever answered had no time to
            self._told.discard(request.uid)
            await self._requests.delete(request)
            self._requests.forget([request.pod_uid])
            return None
        age = (self._now() - answered).total_seconds()
        return None if age > _GIVE_UP else min(_LONGEST_PAUSE, max(_LOOK_AGAIN, age))


def _given(pod: AskingPod) -> str:
    """What it is given, in words."""
    parts = []
    if pod.asked:
        parts.append(f"{len(pod.asked)} secrets of SecretBinding {', '.join(pod.bindings)}")
    if pod.parameters:
        parts.append(f"{len(pod.parameters)} sealed parameters of its own")
    return " and ".join(parts)
