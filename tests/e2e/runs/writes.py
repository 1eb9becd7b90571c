"""What a run's operator wrote, by the audit log, and whether a run needed more than it must."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from runkeys.planning.status import PATIENCE
from testing.cluster.audit import AuditEvent
from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.namespace import Team

FIVE = [
    "create jobs",
    "patch workflowruns/status",
    "create secrets",
    "delete secrets",
    "patch workflowruns/status",
]


def extra_writes(calls: list[AuditEvent], made: datetime) -> int:
    """How many writes a run needed beyond its five, by the calls of its operator in order, failed ones included.

    A status that lags behind is written when it has done so for ``PATIENCE`` (the pod got no node yet, the Job
    controller takes its time). So under load there may be more than two, but never sooner than that after
    the one before. A server that fails a request and made the Job all the same has it made anew. Nothing else
    but those: the five remain, each once and in their order.
    """
    done = [call for call in calls if call.status < 300]
    story = [f"{call.verb} {call.resource} {call.status}" for call in calls]
    spelled = [f"{call.verb} {call.resource}" for call in done]
    anew = 0
    if spelled[0] == "delete jobs" and calls[0].status >= 500:
        anew, done, spelled = 1, done[1:], spelled[1:]
    designed = (spelled.index("create secrets") - 1, len(done) - 1)
    status = [number for number, call in enumerate(done) if call.resource == "workflowruns/status"]
    extras = [number for number in status if number not in designed]
    assert [text for number, text in enumerate(spelled) if number not in extras] == FIVE, story
    written = dict(zip(status, [made, *(done[number].received for number in status)], strict=False))
    for number in extras:
        assert done[number].received - written[number] >= PATIENCE, story
    return anew + len(extras)


def asked_at(team: Team, node: Cluster, mark: int) -> dict[str, datetime]:
    """When each run of the team was made, by its name."""
    made = node.audit.events(mark, verb="create", resource="workflowruns", namespace=team.namespace)
    return {event.name: event.received for event in made}


def calls_of(team: Team, node: Cluster, mark: int) -> dict[str, list[AuditEvent]]:
    """What the team's operator wrote or tried to, by the name of the object; its lease apart."""
    account = f"system:serviceaccount:{team.namespace}:"
    found = defaultdict(list)
    for event in node.audit.events(
        mark, verb=("create", "update", "patch", "delete"), namespace=team.namespace
    ):
        # A review is a question, and the lease is no run's. An Event tells people that something takes long, as it may
        # on a busy machine.
        if event.user.startswith(account) and not event.resource.endswith(("reviews", "leases", "events")):
            found[event.name or _name_sent(event)].append(event)
    return found


def _name_sent(event: AuditEvent) -> str:
    """The name in the body of a creation that failed; of a Secret the body is not recorded."""
    return str(event.raw.get("requestObject", {}).get("metadata", {}).get("name", ""))


def writes_of(team: Team, calls: dict[str, list[AuditEvent]], run: Object) -> list[AuditEvent]:
    """The writes for one run, in the order in which they were answered."""
    mine = calls[run["metadata"]["name"]] + calls[team.object_name(run)]
    return sorted(mine, key=lambda event: event.answered)
