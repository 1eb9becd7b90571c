"""Kubernetes Events for people: one for each new reason that a run stalls or fails."""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime
from typing import NamedTuple

from runkeys._text.times import to_seconds
from runkeys.api import API_VERSION, Condition, WorkflowRun, WorkflowRunStatus
from runkeys.planning.asking_pod import AskingPod
from runkeys.planning.refusal import Reason
from runkeys_operator.errors import AlreadyExists, ApiError
from runkeys_operator.kube import EVENTS, Kube

log = logging.getLogger(__name__)

_MAX_MESSAGE = 1024

_LEASES = (Reason.REVOCATION_PENDING, Reason.LEASE_EXPIRED)


async def announce(kube: Kube, run: WorkflowRun, status: WorkflowRunStatus, now: datetime) -> None:
    """Post a Warning if the run is to say that it stalls, or keeps its secrets, for a new reason.

    Call it before ``status`` is written. The Event is optional: if it cannot be posted, the run continues. Its name is
    a hash of its content, so that the same Event is never posted twice for one run.
    """
    metadata = run.metadata
    about = _Object(API_VERSION, "WorkflowRun", metadata.name, metadata.namespace, metadata.uid)
    for of in (_stalled, _unreleased):
        before, after = of(run.status), of(status)
        if after is not None and (before is None or before.reason != after.reason):
            await _post(kube, about, "Warning", after.reason, after.message, now)


async def post_on_pod(
    kube: Kube, pod: AskingPod, kind: str, reason: str, message: str, now: datetime, once: str = ""
) -> None:
    """Post an Event on a pod that asks for secrets itself.

    :param kind: Normal or Warning. :param once: posted once for each of these texts, even if it says the same.
    """
    about = _Object("v1", "Pod", pod.view.name, pod.namespace, pod.view.uid)
    await _post(kube, about, kind, reason, message, now, once)


class _Object(NamedTuple):
    api_version: str
    kind: str
    name: str
    namespace: str
    uid: str


async def _post(
    kube: Kube, about: _Object, kind: str, reason: str, message: str, now: datetime, once: str = ""
) -> None:
    digest = hashlib.sha256(f"{about.uid}/{reason}/{message}{once}".encode()).hexdigest()[:10]
    moment = to_seconds(now)
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about.name}.{digest}", "namespace": about.namespace},
        "involvedObject": {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "name": about.name,
            "namespace": about.namespace,
            "uid": about.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message[:_MAX_MESSAGE],
        "source": {"component": "runkeys"},
        "reportingComponent": "runkeys.dev/operator",
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
    try:
        await kube.create(EVENTS, about.namespace, event)
    except AlreadyExists:
        pass
    except ApiError as error:
        log.warning("could not post an event: %s", error, extra={"about": f"{about.namespace}/{about.name}"})


def _stalled(status: WorkflowRunStatus) -> Condition | None:
    return next(
        (item for item in status.conditions if item.type == "Stalled" and item.status == "True"), None
    )


def _unreleased(status: WorkflowRunStatus) -> Condition | None:
    """That a lease is not revoked as it should be."""
    return next(
        (item for item in status.conditions if item.type == "SecretsReleased" and item.reason in _LEASES),
        None,
    )
