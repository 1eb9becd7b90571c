"""Figures from the API server's audit log about the runs of one namespace, whatever program served them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from testing.cluster.node import NodeCluster
from testing.namespace import Team

# The fake node writes the status of a pod three times: when it has it, when it starts, and when it ends.
_STEPS = {
    "create pods/binding": "bound",
    "create secrets": "made",
    "patch pods/status": "ended",
    "delete secrets": "gone",
}


@dataclass(frozen=True)
class Calls:
    """All times are the API server's own.

    :ivar made_after: ms from the answered binding of each pod to the answered creation of its Secret.
    :ivar gone_after: ms from the answered status that says that a pod has ended to the answered deletion.
    :ivar to_secrets: s from the first run received to the last Secret answered.
    :ivar to_final: the same to the last final status.
    :ivar gets, lists, writes, reviews: requests of the operator's account, for each run.
    """

    made_after: list[float]
    gone_after: list[float]
    to_secrets: float
    to_final: float
    gets: float
    lists: float
    writes: float
    reviews: float


def delays(node: NodeCluster, mark: int, made: Team) -> tuple[list[float], list[float]]:
    """Bound to made and ended to gone, in ms, of every run in the namespace since ``mark``.

    Pods of the fake node wait for nothing: one that ended before its Secret was there is no sample.
    """
    at: dict[str, dict[str, datetime]] = {}
    for event in node.audit.events(mark, namespace=made.namespace):
        what = f"{event.verb} {event.resource}"
        if event.status >= 300 or what not in _STEPS:
            continue
        job = event.name if event.resource == "secrets" else event.name.rpartition("-")[0]
        times = at.setdefault(job, {})
        times[_STEPS[what]] = event.answered
    whole = [times for times in at.values() if times.keys() >= set(_STEPS.values())]
    if not whole:
        raise RuntimeError(f"none of {len(at)} pods had a Secret before it ended: this machine is too busy")
    made_after = [_ms(times["made"], times["bound"]) for times in whole]
    gone_after = [_ms(times["gone"], times["ended"]) for times in whole]
    return made_after, gone_after


def calls(node: NodeCluster, mark: int, made: Team, count: int) -> Calls:
    """Of ``count`` runs, all made after ``mark`` and all finished. Raises RuntimeError if one has had no Secret."""
    account = f"system:serviceaccount:{made.namespace}:"
    began: datetime | None = None
    secrets: list[datetime] = []
    final: list[datetime] = []
    counted = {"get": 0, "list": 0, "watch": 0}
    writes = reviews = 0
    for event in node.audit.events(mark, namespace=made.namespace):
        what = f"{event.verb} {event.resource}"
        if what == "create workflowruns":
            began = began or event.received
        if not event.user.startswith(account):
            continue
        if event.verb in counted:
            counted[event.verb] += 1
            continue
        if event.resource.endswith("reviews"):  # a question, which changes nothing
            reviews += 1
            continue
        writes += 1
        if event.status >= 300:
            continue
        if what == "create secrets":
            secrets.append(event.answered)
        elif what == "patch workflowruns/status" and event.raw["requestObject"]["status"].get(
            "completionTime"
        ):
            final.append(event.answered)
    if began is None or len(secrets) != count or len(final) != count:
        raise RuntimeError(
            f"{count} runs, but {len(secrets)} Secrets and {len(final)} final statuses:"
            " pods of the fake node started without, or something was done twice"
        )
    made_after, gone_after = delays(node, mark, made)
    return Calls(
        made_after,
        gone_after,
        (max(secrets) - began).total_seconds(),
        (max(final) - began).total_seconds(),
        counted["get"] / count,
        counted["list"] / count,
        writes / count,
        reviews / count,
    )


def _ms(later: datetime, earlier: datetime) -> float:
    return (later - earlier).total_seconds() * 1000
