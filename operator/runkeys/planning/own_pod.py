"""Whether the pod of an attempt is as the run describes it: policies and webhooks of others change pods. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from runkeys.names import UNSEALER
from runkeys.planning import manifests
from runkeys.planning.observation import ContainerView, JobView, Observation, PodView
from runkeys.planning.pod_template import MOST_GRACE
from runkeys.planning.readers import shape_of
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import SealedSupport, TaskRequirements

_LEAVE = (
    "something in the cluster, such as a mutating policy or webhook, has changed the pod; configure it to leave"
    " the pods of runs unchanged"
)


def is_unsealer(support: SealedSupport, job: JobView, container: ContainerView) -> bool:
    """Whether a container is the unseal container. ``support``: as it was when the Job was created."""
    return job.sealed and container.name == UNSEALER and container.image == support.image


def added_reader(
    support: SealedSupport, job: JobView, pod: PodView, secret_containers: Sequence[str]
) -> Refusal | None:
    """Why the values are not for the pod as it was made: containers that the run does not name would have them."""
    others = [
        container
        for container in pod.containers
        if container.reads
        and container.name not in secret_containers
        and not is_unsealer(support, job, container)
    ]
    if not others:
        return None
    what = f"container {others[0].name} ({others[0].image})"
    if others[0].name == UNSEALER:
        what += f", which is not the operator's image {support.image},"
    message = (
        f"{what} would get the secrets, which the run gives only to {', '.join(secret_containers)}: {_LEAVE}"
    )
    return _refusal(f"pod {pod.name}", message)


def rewritten(
    obs: Observation,
    support: SealedSupport,
    index: int,
    number: int,
    requirements: TaskRequirements,
    job: JobView,
    pod: PodView,
) -> Refusal | None:
    """Why the values are not for the pod as it was made: others could read them in it, or have them for longer.

    It is compared with the template that the operator makes for this attempt, and not with that of the Job, which was
    made past the same policies.
    """
    planned = manifests.job(obs.run, index, number, requirements, support=support)["spec"]
    unlike = pod.shape.unlike(shape_of(planned["template"]["spec"]))
    if unlike:
        return _refusal(f"pod {pod.name}", f"{unlike[0]}, so that others could read the secrets: {_LEAVE}")
    for where, field, found, most in (
        (f"pod {pod.name}", "activeDeadlineSeconds", pod.deadline_seconds, requirements.deadline_seconds),
        (f"pod {pod.name}", "terminationGracePeriodSeconds", pod.grace_seconds, MOST_GRACE),
        (f"Job {job.name}", "ttlSecondsAfterFinished", job.ttl_seconds, planned["ttlSecondsAfterFinished"]),
    ):
        if most is not None and (found is None or found > most):
            what = "is missing" if found is None else f"is {found}"
            message = (
                f"{field} {what}, but the run and its bindings allow at most {most}: the secrets could exist"
                " for longer. Either something in the cluster, such as a mutating policy or webhook, has"
                " changed it: configure it to leave Jobs and pods of runs unchanged. Or the bindings have been"
                " changed since: create a new run"
            )
            return _refusal(where, message)
    return None


def _refusal(where: str, message: str) -> Refusal:
    return Refusal(Reason.POD_CHANGED, where, message, permanent=False)
