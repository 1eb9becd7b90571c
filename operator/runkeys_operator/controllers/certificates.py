"""PodCertificateRequests of Runkeys' signer: a cache of watches and answers, and the answers themselves."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from runkeys._text.times import to_seconds
from runkeys.names import ASK, SIGNER
from runkeys.planning.asking_pod import AskingPod, asking_pod
from runkeys.planning.observation import NOTHING_LEFT, PodView, RequestView
from runkeys.planning.requirements import SealedSupport
from runkeys_operator.controllers.key import Key, Kind
from runkeys_operator.controllers.runs.cache import Cache, run_of
from runkeys_operator.controllers.workqueue import ReconcileQueue, Urgency
from runkeys_operator.errors import Conflict, NotFound
from runkeys_operator.kube import PODS, REQUESTS, Json, Kube
from runkeys_operator.values import Values
from runkeys_operator.values.delivery import Answer, CertificateIssuer, RecipientError

log = logging.getLogger(__name__)


_NO_RUN = "this pod does not belong to a WorkflowRun; to get secrets, create a WorkflowRun"


class CertificateRequests:
    """The known requests, and the methods that answer them.

    :ivar offer: whether anything is delivered sealed.
    """

    def __init__(self, kube: Kube, support: SealedSupport) -> None:
        self.support = support
        self._kube = kube
        self._issuer = CertificateIssuer()
        self._known: dict[str, dict[str, RequestView]] = {}
        self._namespaces: dict[str, str] = {}
        self._unowned: set[str] = set()
        self._contested: set[str] = set()

    def record(self, raw: Mapping[str, Any], *, deleted: bool = False) -> bool:
        """Take in a request from the watch; whether that is news."""
        view = replace(RequestView.parse(raw), gone=deleted)
        if raw["spec"]["signerName"] != SIGNER:
            return False
        mine = self._known.setdefault(view.pod_uid, {})
        known = mine.get(view.uid)
        if known is not None and (known.gone or int(known.version) >= int(view.version)):
            return False
        if known is None and deleted:
            return False
        if deleted and view.pod_uid in self._unowned:
            self.forget([view.pod_uid])
            return True
        if deleted and view.state == "Denied":  # of no run, or of one that has been told
            mine.pop(view.uid)
            self._contested.discard(view.uid)
            return False
        self._namespaces[view.uid] = raw["metadata"]["namespace"]
        mine[view.uid] = view
        return True

    def of(self, pod_uid: str) -> tuple[RequestView, ...]:
        """The requests that name a pod, including deleted ones."""
        found = self._known.get(pod_uid, {}).values()
        return tuple(replace(item, contested=item.uid in self._contested) for item in found)

    def named(self, key: Key) -> RequestView | None:
        """The existing request of this name."""
        return next(
            (
                item
                for mine in self._known.values()
                for item in mine.values()
                if item.name == key.name and self._namespaces[item.uid] == key.namespace and not item.gone
            ),
            None,
        )

    def forget_when_gone(self, pod_uid: str) -> None:
        """Note a pod of no run: with its request it is forgotten."""
        self._unowned.add(pod_uid)

    def forget(self, pods: Iterable[str]) -> None:
        """Forget pods that need nothing more."""
        for uid in pods:
            self._unowned.discard(uid)
            for request in self._known.pop(uid, {}):
                self._namespaces.pop(request, None)
                self._contested.discard(request)

    async def answer(self, request: RequestView, values: Values, now: datetime) -> RequestView:
        """Issue the certificate that carries ``values``; return the request as it is afterwards."""
        namespace = self._namespaces[request.uid]
        try:
            answer = self._issuer.seal(values, request.public, namespace, request.pod_uid, now)
        except RecipientError as error:
            return await self.deny(request, str(error))
        return await self._issue(
            request, answer, "Delivered", "the values are in the certificate, sealed", now
        )

    async def answer_empty(self, request: RequestView, now: datetime) -> RequestView:
        """Issue a certificate that holds nothing; return the request as it is afterwards."""
        try:
            answer = self._issuer.empty(request.public, now)
        except RecipientError as error:
            return await self.deny(request, str(error))
        log.info("pod %s asks again: answered with nothing", request.pod_name)
        message = "the pod needs no values any more; nothing is in the certificate"
        return await self._issue(request, answer, NOTHING_LEFT, message, now)

    async def deny(self, request: RequestView, message: str) -> RequestView:
        """Refuse it, for good."""
        log.warning("request of pod %s refused: %s", request.pod_name, message)
        condition = _condition("Denied", "RequestRefused", message, self._kube.clock.now())
        return await self._conclude(request, {"conditions": [condition]})

    async def _issue(
        self, request: RequestView, answer: Answer, reason: str, message: str, now: datetime
    ) -> RequestView:
        status = {
            "certificateChain": answer.chain,
            "notBefore": to_seconds(answer.not_before),
            "notAfter": to_seconds(answer.not_after),
            "beginRefreshAt": to_seconds(answer.begin_refresh_at),
            "conditions": [_condition("Issued", reason, message, now)],
        }
        return await self._conclude(request, status)

    async def delete(self, request: RequestView) -> RequestView:
        """Delete it; it is no error if it is absent already."""
        where = self._namespaces[request.uid]
        with contextlib.suppress(NotFound, Conflict):
            await self._kube.delete(REQUESTS, where, request.name, uid=request.uid, propagation="Background")
        return self._note(replace(request, gone=True))

    async def _conclude(self, request: RequestView, status: dict[str, Any]) -> RequestView:
        """Write the only answer. If it was answered meanwhile that is a Conflict, and the watch shows the answer."""
        try:
            raw = await self._kube.patch_status(
                *(REQUESTS, self._namespaces[request.uid], request.name, status),
                resource_version=request.version,
            )
        except NotFound:
            return self._note(replace(request, gone=True))
        except Conflict:
            self._contested.add(request.uid)
            raise
        self._contested.discard(request.uid)
        return self._note(RequestView.parse(raw))

    def _note(self, request: RequestView) -> RequestView:
        self._known.setdefault(request.pod_uid, {})[request.uid] = request
        return request


class AskingPods(Protocol):
    """Answers pods that ask for secrets themselves (:mod:`runkeys_operator.controllers.asking_pods`)."""

    async def reconcile(self, key: Key, request: RequestView, pod: AskingPod) -> float | None:
        """Answer a request of such a pod."""

    def ended(self, key: Key) -> None:
        """A request is gone."""


class CertificateController:
    """Finds the run of a PodCertificateRequest; a request of no run is denied."""

    def __init__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        requests: CertificateRequests,
        pods: Cache[PodView],
        pod_asks: Callable[[Key], None],
        asking_pods: AskingPods | None,
    ) -> None:
        """``pod_asks`` is given the key of a run when a pod of it asks for its values.

        ``asking_pods``: answers pods of no run; None: they are denied.
        """
        self._kube = kube
        self._queue = queue
        self._requests = requests
        self._pods = pods
        self._pod_asks = pod_asks
        self._asking_pods = asking_pods

    def on_event(self, event: Json) -> None:
        """A PodCertificateRequest of Runkeys' signer was created, answered or listed."""
        if self._requests.record(event["object"], deleted=event.get("type") == "DELETED"):
            key = Key.of(Kind.REQUEST, event["object"]["metadata"])
            self._queue.add(key, urgency=Urgency.PODS)

    async def reconcile(self, key: Key) -> float | None:
        """Have the run looked at, if there is one; else refuse the request."""
        request = self._requests.named(key)
        if request is None:
            if self._asking_pods is not None:
                self._asking_pods.ended(key)
            return None
        try:
            raw = await self._kube.get(PODS, key.namespace, request.pod_name)
        except NotFound:
            raw = {"metadata": {}}
        metadata = raw["metadata"]
        is_that = metadata.get("uid") == request.pod_uid
        run = run_of({"namespace": key.namespace, **metadata}) if is_that else None
        if run is not None:
            self._pods.record(raw)
            pod = next((item for item in self._pods.of(run) if item.uid == request.pod_uid), None)
            if pod is not None and pod.job_uid:
                self._pod_asks(run)
                return None
        asking = asking_pod(raw) if is_that and self._asking_pods is not None else None
        if asking is not None and self._asking_pods is not None and ASK in (metadata.get("labels") or {}):
            self._requests.forget_when_gone(request.pod_uid)
            return await self._asking_pods.reconcile(key, request, asking)
        if not request.state:
            # A pod that is gone, or bears labels that no Job gave it: nobody who may be answered.
            # Answered meanwhile: the watch shows the answer.
            with contextlib.suppress(Conflict):
                await self._requests.deny(request, _NO_RUN)
        return None


def _condition(kind: str, reason: str, message: str, now: datetime) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": to_seconds(now),
    }
