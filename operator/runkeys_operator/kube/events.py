"""Kubernetes Events for people: one for each new reason that a run stalls or fails."""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime

from runkeys._text.times import to_seconds
from runkeys.api import API_VERSION, Condition, WorkflowRun, WorkflowRunStatus
from runkeys_operator.errors import AlreadyExists, ApiError
from runkeys_operator.kube import EVENTS, Kube

log = logging.getLogger(__name__)

_MAX_MESSAGE = 1024


async def announce(kube: Kube, run: WorkflowRun, status: WorkflowRunStatus, now: datetime) -> None:
    """Post a Warning if ``status`` says that the run stalls for a reason that it did not give before.

    The Event is optional: if it cannot be posted, the run continues. Its name is a hash of its content,
    so that the same Event is never posted twice for one run.
    """
    before, after = _stalled(run.status), _stalled(status)
    if after is None or (before is not None and before.reason == after.reason):
        return
    metadata = run.metadata
    digest = hashlib.sha256(f"{metadata.uid}/{after.reason}/{after.message}".encode()).hexdigest()[:10]
    moment = to_seconds(now)
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata.name}.{digest}", "namespace": metadata.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": "WorkflowRun",
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
        },
        "type": "Warning",
        "reason": after.reason,
        "message": after.message[:_MAX_MESSAGE],
        "source": {"component": "runkeys"},
        "reportingComponent": "runkeys.dev/operator",
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
    try:
        await kube.create(EVENTS, metadata.namespace, event)
    except AlreadyExists:
        pass
    except ApiError as error:
        log.warning("could not post an event: %s", error, extra={"run": run.key})


def _stalled(status: WorkflowRunStatus) -> Condition | None:
    return next(
        (item for item in status.conditions if item.type == "Stalled" and item.status == "True"), None
    )
