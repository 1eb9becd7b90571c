"""What keeps a bound pod from starting: the words for it, and when it has taken too long. Pure, a part of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from runkeys._text.words import shell
from runkeys.api import Task
from runkeys.planning.observation import ContainerView, JobView, PodView
from runkeys.planning.outcome import Ended, at_fault
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.status import Outcome, State, Verdict

NODE_PATIENCE = timedelta(seconds=30)
"""How long a pod may be bound to a node before the run says that the kubelet there does not take it."""

UNREAD = timedelta(seconds=60)
"""How long a Secret may exist for a pod that no kubelet takes. By then Kubernetes has given up a node that is silent,
and a kubelet that was started again, or has hundreds of pods to report, has taken it."""

_PULLING = ("ErrImagePull", "ImagePullBackOff")


def trouble(pods: Sequence[PodView], names: Sequence[str]) -> Verdict | None:
    """What the kubelet says of a container that cannot start; None if it says nothing.

    A container that starts again by itself is trouble only while the pod does nothing else.
    """
    for pod in pods:
        stuck = pod.stuck_since(names) is not None
        for container in pod.containers:
            if _is_trouble(container) and (stuck or not container.restartable):
                # The kubelet says the two in turns.
                reason = "ImagePullBackOff" if container.waiting in _PULLING else container.waiting
                what = f"container {container.name} ({container.image}) of pod {pod.name} waits"
                words = _words(container)
                message = f"{what}: {words}" if words else what
                return Verdict(State.WAITING if stuck else State.RUNNING, reason, message)
    return None


def not_taken(pods: Sequence[PodView], now: datetime) -> tuple[Refusal | None, datetime | None]:
    """That no kubelet has the pods of an attempt, if that is worth a word; else when it will be."""
    if not pods or any(pod.taken for pod in pods):
        return None, None
    pod = pods[0]
    due = (pod.bound_at or now) + NODE_PATIENCE
    if due > now:
        return None, due
    message = (
        f"is bound to node {pod.node}, and no kubelet there has taken it; see whether the node exists and is Ready:"
        f" {shell('kubectl', 'get', 'node', pod.node)}"
    )
    return Refusal(Reason.NODE_UNREACHABLE, f"pod {pod.name}", message, permanent=False), None


def late_start(
    task: Task, pods: Sequence[PodView], now: datetime, *, given: bool
) -> tuple[Ended | None, tuple[datetime, ...]]:
    """The end of an attempt whose pod has not started in time; else when its time is over.

    The time runs while the pod does nothing: from when it has its node, and again from the end of an init container.

    :param given: its Secret exists, or did.
    """
    moments = [pod.stuck_since(task.secret_containers) for pod in pods]
    since = [moment for moment in moments if moment is not None]
    if not since or len(since) < len(moments):
        return None, ()
    limit, unread = timedelta(seconds=task.start_deadline_seconds), not any(pod.taken for pod in pods)
    if unread and given:
        limit = min(limit, UNREAD)
    if min(since) + limit > now:
        return None, (min(since) + limit,)
    within = f"within {limit.total_seconds():g} s"
    if unread:
        message = f"no kubelet of node {pods[0].node} took pod {pods[0].name} {within}"
        return Ended(Outcome.DISRUPTED, Reason.NODE_UNREACHABLE, message), ()
    missing = [item for pod in pods for item in pod.containers if not item.started]
    container = next((item for item in missing if _is_trouble(item)), missing[0])
    words = ": ".join(text for text in (container.waiting, _words(container)) if text)
    message = (
        f"container {container.name} did not start {within}{f' ({words})' if words else ''};"
        " raise startDeadlineSeconds, or fix the cause"
    )
    return Ended(*at_fault(list(pods), Reason.START_DEADLINE_EXCEEDED, message)), ()


def suspended(job: JobView) -> Refusal:
    """That the Job of an attempt was suspended before it had a pod."""
    return Refusal(
        Reason.JOB_SUSPENDED,
        f"Job {job.name}",
        "is suspended (its spec.suspend), so that it has no pod. Something in the cluster, such as a queue, suspends"
        " Jobs when they are created: have it leave the Jobs of runs alone, and queue their pods instead. The run"
        " continues when the Job is resumed",
        permanent=False,
    )


def _is_trouble(container: ContainerView) -> bool:
    return container.waiting not in ("", "ContainerCreating", "PodInitializing")


def _words(container: ContainerView) -> str:
    """The kubelet's words for why a container waits, the same ones while it waits to try again."""
    return container.message.rpartition("ErrImagePull: ")[2]
