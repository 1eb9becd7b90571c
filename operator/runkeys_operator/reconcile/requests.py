"""PodCertificateRequests of our signer: what watches and answers showed, and the answers themselves."""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from runkeys.delivery import Issuer, RecipientError
from runkeys.naming import SIGNER
from runkeys.needs import SealedOffer
from runkeys.observation import PodView, RequestView
from runkeys_operator.errors import Conflict, NotFound
from runkeys_operator.kube import PODS, REQUESTS, Kube
from runkeys_operator.reconcile.key import RequestKey, RunKey
from runkeys_operator.reconcile.store import Store, run_of

log = logging.getLogger(__name__)

OF_SIGNER = f"spec.signerName={SIGNER}"
"""Field selector of the requests that are ours to answer."""

_NO_RUN = "this is no pod of a WorkflowRun; ask for secrets in a run"


class Delivery:
    """The requests that are known, and what answers them.

    :ivar offer: whether anything is delivered sealed.
    """

    def __init__(self, kube: Kube, offer: SealedOffer) -> None:
        self.offer = offer
        self._kube = kube
        self._issuer = Issuer()
        self._known: dict[str, dict[str, RequestView]] = {}
        self._namespaces: dict[str, str] = {}

    def saw(self, raw: Mapping[str, Any], *, deleted: bool = False) -> bool:
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
        if deleted and view.state == "Denied":  # of no run, or of one that has been told
            mine.pop(view.uid)
            return False
        self._namespaces[view.uid] = raw["metadata"]["namespace"]
        mine[view.uid] = view
        return True

    def of(self, pod_uid: str) -> tuple[RequestView, ...]:
        """Those that name a pod, those that are gone included."""
        return tuple(self._known.get(pod_uid, {}).values())

    def named(self, key: RequestKey) -> RequestView | None:
        """The one that is there by this name."""
        return next(
            (
                item
                for mine in self._known.values()
                for item in mine.values()
                if item.name == key.name and self._namespaces[item.uid] == key.namespace and not item.gone
            ),
            None,
        )

    def forget(self, pods: Iterable[str]) -> None:
        """Drop what is known of pods that need nothing any more."""
        for uid in pods:
            for request in self._known.pop(uid, {}):
                self._namespaces.pop(request, None)

    async def answer(self, request: RequestView, values: Mapping[str, bytes], now: datetime) -> RequestView:
        """Issue the certificate that carries ``values``; what the request is by then."""
        namespace = self._namespaces[request.uid]
        try:
            answer = self._issuer.seal(
                values, base64.b64decode(request.public), namespace, request.pod_uid, now
            )
        except RecipientError as error:
            return await self.deny(request, str(error))
        status = {
            "certificateChain": answer.chain,
            "notBefore": _text(answer.not_before),
            "notAfter": _text(answer.not_after),
            "beginRefreshAt": _text(answer.begin_refresh_at),
            "conditions": [
                _condition("Issued", "Delivered", "the values are in the certificate, sealed", now)
            ],
        }
        return await self._conclude(request, status)

    async def deny(self, request: RequestView, message: str) -> RequestView:
        """Refuse it, for good."""
        log.warning("request of pod %s refused: %s", request.pod_name, message)
        condition = _condition("Denied", "RequestRefused", message, self._kube.clock.now())
        return await self._conclude(request, {"conditions": [condition]})

    async def delete(self, request: RequestView) -> RequestView:
        """Delete it; absent already: all is well."""
        where = self._namespaces[request.uid]
        with contextlib.suppress(NotFound, Conflict):
            await self._kube.delete(REQUESTS, where, request.name, uid=request.uid, propagation="Background")
        return self._note(replace(request, gone=True))

    async def _conclude(self, request: RequestView, status: dict[str, Any]) -> RequestView:
        """Write the one answer. That it was answered meanwhile is a Conflict, and the watch tells how."""
        try:
            raw = await self._kube.patch_status(
                *(REQUESTS, self._namespaces[request.uid], request.name, status),
                resource_version=request.version,
            )
        except NotFound:
            return self._note(replace(request, gone=True))
        return self._note(RequestView.parse(raw))

    def _note(self, request: RequestView) -> RequestView:
        self._known.setdefault(request.pod_uid, {})[request.uid] = request
        return request


class RequestReconciler:
    """Finds the run that a request is of; one that is of none is refused."""

    def __init__(self, kube: Kube, delivery: Delivery, pods: Store[PodView]) -> None:
        self._kube = kube
        self._delivery = delivery
        self._pods = pods

    async def reconcile(self, key: RequestKey) -> RunKey | None:
        """The run to look at, if there is one."""
        request = self._delivery.named(key)
        if request is None:
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
                return run
        if not request.state:
            # A pod that is gone, or bears labels that no Job gave it: nobody who may be answered.
            await self._delivery.deny(request, _NO_RUN)
        return None


def _condition(kind: str, reason: str, message: str, now: datetime) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": _text(now),
    }


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
