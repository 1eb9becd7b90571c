"""The observation of one run: the input of :func:`runkeys.planning.plan.plan`. Holds no secret's value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from runkeys.api import WorkflowRun
from runkeys.names import run_uid_of
from runkeys.planning.bindings import Bindings
from runkeys.planning.memory import Memory
from runkeys.planning.pod_template import volume_images
from runkeys.planning.readers import NO_SHAPE, Shape, is_key, readers, shape_of
from runkeys.planning.refusal import shortened
from runkeys.planning.requirements import NO_SUPPORT, SealedSupport

LABEL_JOB_UID = "batch.kubernetes.io/controller-uid"
"""Label by which a Job counts its pods: those that have its uid here, and that it owns."""

_MOST_MESSAGE = 400
"""Limit on what is kept of a message that Kubernetes wrote into a status."""


NOTHING_LEFT = "NothingToDeliver"
"""Reason of an answer to a pod's request that holds no value."""


class JobState(StrEnum):
    """Where a Job is in its life."""

    ACTIVE = "Active"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class JobView:
    """The fields of a Job that planning uses.

    :ivar controller_uid: uid of the object that controls it; it belongs to the run only if that is the run's uid.
    :ivar run_uid: uid of the run that it was made for, as its labels say and its name shows; empty otherwise.
    :ivar deadline_seconds: ``activeDeadlineSeconds`` of its pod template.
    :ivar ttl_seconds: how long after its end Kubernetes removes it, and with it its Secret.
    :ivar gone: it was deleted.
    :ivar sealed: its pod gets its values by sealed delivery: no Secret is ever created for it.
    :ivar suspended: it has no pod and makes none until somebody resumes it.
    :ivar counted: it has counted a pod as ended, so that it will finish by itself.
    """

    name: str
    uid: str
    controller_uid: str
    created: datetime
    state: JobState = JobState.ACTIVE
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None
    deleting: bool = False
    deadline_seconds: int | None = None
    ttl_seconds: int | None = None
    gone: bool = False
    sealed: bool = False
    run_uid: str = ""
    suspended: bool = False
    counted: bool = False

    def vanished(self) -> JobView:
        """It is gone, and its deletion was not seen."""
        return replace(self, gone=True)

    def after(self, _before: JobView) -> JobView:
        """With what was known before: nothing of that is lost in a newer version."""
        return self

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> JobView:
        """Read a ``batch/v1`` Job as the API server sends it."""
        metadata, status = raw["metadata"], raw.get("status") or {}
        state, reason, message, finished = JobState.ACTIVE, "", "", None
        for condition in status.get("conditions") or []:
            if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
                state = JobState.SUCCEEDED if condition["type"] == "Complete" else JobState.FAILED
                reason, message = condition.get("reason", ""), condition.get("message", "")
                finished = _moment(condition.get("lastTransitionTime"))
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            controller_uid=_controller(metadata, "WorkflowRun"),
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            state=state,
            reason=reason,
            message=message,
            finished_at=finished,
            deleting="deletionTimestamp" in metadata,
            deadline_seconds=raw["spec"]["template"]["spec"].get("activeDeadlineSeconds"),
            ttl_seconds=raw["spec"].get("ttlSecondsAfterFinished"),
            sealed=any(is_key(volume) for volume in raw["spec"]["template"]["spec"].get("volumes") or []),
            run_uid=run_uid_of(metadata),
            suspended=bool(raw["spec"].get("suspend")),
            counted=_has_counted(status),
        )


class Role(StrEnum):
    """What a container is to its pod."""

    MAIN = "Main"
    INIT = "Init"
    SIDECAR = "Sidecar"
    """An init container that runs beside the others, and that the kubelet stops after them."""
    EPHEMERAL = "Ephemeral"


_RUN_ONCE = (Role.INIT, Role.MAIN)


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container of a pod.

    :ivar restartable: it may start again after it ended (a sidecar), so that its end says nothing.
    :ivar reads: it can read the run's values as soon as they exist.
    :ivar waiting: why it does not run yet, e.g. ``ImagePullBackOff``; empty if it is not waiting.
    :ivar message: the kubelet's words on that. :ivar reason: its word for how it ended, e.g. ``OOMKilled``.
    :ivar output: its termination message: what the task wrote, unless it never ran.
    """

    name: str
    image: str
    started: bool = False
    ended: bool = False
    restartable: bool = False
    waiting: str = ""
    message: str = ""
    exit_code: int | None = None
    output: str = ""
    ended_at: datetime | None = None
    reads: bool = False
    role: Role = Role.MAIN
    reason: str = ""

    @property
    def running(self) -> bool:
        """Whether it runs, as far as can be told of one that may start again."""
        return self.started and not self.ended


@dataclass(frozen=True, slots=True)
class PodView:
    """The fields of a pod with a node that planning uses.

    :ivar job_uid: uid of the Job that controls it, empty if none does.
    :ivar reason: the kubelet's word for why the pod as a whole ended. :ivar message: its words.
    :ivar disruption: why it was to leave its node, in Kubernetes' words.
    :ivar gone: it was deleted; nothing of it runs any more, or will.
    :ivar deleted_at: when its deletion was asked for.
    :ivar taken: the kubelet of its node has it, as its status shows.
    :ivar scheduled: a scheduler gave it its node, one that is there and was Ready; not the author of its spec.
    :ivar volume_images: images that are mounted as volumes.
    :ivar shape: what decides who reads in it. :ivar deadline_seconds: its ``activeDeadlineSeconds``.
    :ivar grace_seconds: how long after that its containers may take to end.
    """

    name: str
    uid: str
    job_uid: str
    bound_at: datetime | None
    phase: str
    service_account: str
    containers: tuple[ContainerView, ...]
    reason: str = ""
    disrupted: bool = False
    gone: bool = False
    node: str = ""
    volume_images: tuple[str, ...] = ()
    shape: Shape = NO_SHAPE
    deadline_seconds: int | None = None
    grace_seconds: int = 0
    message: str = ""
    disruption: str = ""
    deleted_at: datetime | None = None
    taken: bool = True
    scheduled: bool = True

    @property
    def over(self) -> bool:
        """Whether no container of it runs or will run."""
        return self.gone or self.phase in ("Succeeded", "Failed")

    @property
    def started(self) -> bool:
        """Whether any container has started."""
        return any(container.started for container in self.containers)

    def stuck_since(self, names: Sequence[str]) -> datetime | None:
        """Since when it does nothing although a container has yet to start; None if something goes on.

        ``names``: the containers that the task is about. While one of them has yet to start, only init containers and
        others of them are progress; a sidecar never is.
        """
        missing = [item for item in self.containers if not item.started and item.role is not Role.EPHEMERAL]
        if self.over or not missing:
            return None
        any_will_do = not any(item.name in names for item in missing)
        if any(
            item.running
            and (item.role is Role.INIT or (item.role is Role.MAIN and (any_will_do or item.name in names)))
            for item in self.containers
        ):
            return None
        moments = [self.bound_at, *(item.ended_at for item in self.containers if item.role in _RUN_ONCE)]
        return max((moment for moment in moments if moment is not None), default=None)

    def vanished(self) -> PodView:
        """It is gone, and its deletion was not seen: how it ended is unknown."""
        return replace(self, gone=True, phase=self.phase if self.over else "Unknown")

    def after(self, before: PodView) -> PodView:
        """With when its deletion was asked for first: at the end the kubelet asks for it once more."""
        return replace(self, deleted_at=before.deleted_at or self.deleted_at)

    def awaits(self, names: list[str]) -> bool:
        """Whether a container called one of ``names`` has yet to start."""
        return not self.over and any(item.name in names and not item.started for item in self.containers)

    def has_started(self, names: list[str]) -> bool:
        """Whether every container called one of ``names`` has started, or never will."""
        carrying = [container for container in self.containers if container.name in names]
        return self.over or (bool(carrying) and all(item.started for item in carrying))

    def done_with(self, names: list[str]) -> bool:
        """Whether every container called one of ``names`` has ended for good."""
        if self.over:
            return True
        carrying = [container for container in self.containers if container.name in names]
        return bool(carrying) and all(item.ended and not item.restartable for item in carrying)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> PodView:
        """Read a pod as the API server sends it."""
        metadata, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
        job_uid = _controller(metadata, "Job")
        if job_uid_of(metadata) != job_uid:
            job_uid = ""  # the Job controller labels its pods and disowns others: an owner reference alone is a claim
        conditions = {item["type"]: item for item in status.get("conditions") or []}
        bound, disruption = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget", {})
        disrupted = disruption.get("status") == "True"
        statuses = [status.get(f"{kind}Statuses") for kind in ("container", "initContainer")]
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            job_uid=job_uid,
            bound_at=_moment(bound.get("lastTransitionTime")) or _moment(metadata.get("creationTimestamp")),
            phase=status.get("phase", "Pending"),
            service_account=spec.get("serviceAccountName", "default"),
            containers=tuple(_containers(spec, status)),
            reason=status.get("reason", ""),
            disrupted=disrupted,
            node=spec.get("nodeName", ""),
            volume_images=tuple(volume_images(spec)),
            shape=shape_of(spec),
            deadline_seconds=spec.get("activeDeadlineSeconds"),
            grace_seconds=spec.get("terminationGracePeriodSeconds", 0),
            message=shortened(status.get("message", ""), _MOST_MESSAGE),
            disruption=_words(disruption) if disrupted else "",
            deleted_at=_deletion(metadata),
            scheduled=bound.get("status") == "True",
            taken="startTime" in status or any(statuses) or status.get("phase", "Pending") != "Pending",
        )


@dataclass(frozen=True, slots=True)
class RequestView:
    """A PodCertificateRequest of Runkeys' signer, which the kubelet creates for a pod.

    :ivar public: the PKCS#10 request in base64: who gets it, as Kubernetes has checked.
    :ivar state: Issued, Denied or Failed, which is final; empty while nothing has answered it.
    :ivar gone: it was deleted.
    :ivar contested: this process was refused when it answered it last, so that its answer is of an earlier try.
    """

    name: str
    uid: str
    version: str
    created: datetime
    pod_name: str
    pod_uid: str
    node: str
    service_account: str
    public: str
    state: str = ""
    reason: str = ""
    message: str = ""
    at: datetime | None = None
    gone: bool = False
    contested: bool = False

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> RequestView:
        """Read it as the API server sends it."""
        metadata, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
        known = (item for item in status.get("conditions") or [] if item.get("status") == "True")
        final: Mapping[str, Any] = next(known, {})
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            pod_name=spec["podName"],
            pod_uid=spec["podUID"],
            node=spec["nodeName"],
            service_account=spec["serviceAccountName"],
            public=spec.get("stubPKCS10Request", ""),
            state=final.get("type", ""),
            reason=final.get("reason", ""),
            message=final.get("message", ""),
            at=_moment(final.get("lastTransitionTime")),
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """One run and everything that its next step depends on.

    :ivar bindings: those that the run names; empty unless ``fresh``.
    :ivar jobs: by name, all Jobs labelled with this run, no matter who created them.
    :ivar pods: those labelled with this run; which of them count is decided by the uid of their Job.
    :ivar fresh: run, bindings and waiting pods were read by name for this pass. Otherwise all of it is what
        answers and watches showed last: good enough to delete, never to create.
    :ivar requests: by which those of ``pods`` that are delivered to sealed ask for it.
    :ivar offer: whether this operator can.
    :ivar policies_in_force: the admission policies were, when they were last looked at: what was refused for want of
        them need not wait any longer.
    """

    run: WorkflowRun
    bindings: Bindings
    jobs: Mapping[str, JobView]
    pods: tuple[PodView, ...]
    memory: Memory
    fresh: bool = False
    requests: tuple[RequestView, ...] = ()
    support: SealedSupport = NO_SUPPORT
    policies_in_force: bool = False


def job_uid_of(metadata: Mapping[str, Any]) -> str:
    """The uid of the Job that a pod's label names; empty if there is none."""
    return str((metadata.get("labels") or {}).get(LABEL_JOB_UID, ""))


def _containers(spec: Mapping[str, Any], status: Mapping[str, Any]) -> list[ContainerView]:
    views, reading = [], readers(spec)
    for kind in ("initContainer", "container", "ephemeralContainer"):
        states = {item["name"]: item for item in status.get(f"{kind}Statuses") or []}
        for container in spec.get(f"{kind}s") or []:
            found = states.get(container["name"], {})
            state = found.get("state") or {}
            waiting, terminated = state.get("waiting") or {}, state.get("terminated")
            views.append(
                ContainerView(
                    name=container["name"],
                    image=container.get("image", ""),
                    started="running" in state or terminated is not None or bool(found.get("lastState")),
                    ended=terminated is not None,
                    restartable="restartPolicy" in container or "restartPolicyRules" in container,
                    waiting=waiting.get("reason", ""),
                    message=shortened(waiting.get("message", ""), _MOST_MESSAGE),
                    exit_code=terminated.get("exitCode") if terminated else None,
                    output=terminated.get("message", "") if terminated else "",
                    ended_at=_moment(terminated.get("finishedAt")) if terminated else None,
                    reads=container["name"] in reading,
                    role=_role(kind, container),
                    reason=terminated.get("reason", "") if terminated else "",
                )
            )
    return views


def _role(kind: str, container: Mapping[str, Any]) -> Role:
    if kind == "initContainer":
        return Role.SIDECAR if container.get("restartPolicy") == "Always" else Role.INIT
    return Role.MAIN if kind == "container" else Role.EPHEMERAL


def _has_counted(status: Mapping[str, Any]) -> bool:
    """Whether a Job has seen its pod end: the Job controller notes that before it lets the pod go."""
    uncounted = status.get("uncountedTerminatedPods") or {}
    return any(of.get(how) for of in (status, uncounted) for how in ("failed", "succeeded"))


def _deletion(metadata: Mapping[str, Any]) -> datetime | None:
    """When a deletion was asked for; the object says when it has to be carried out."""
    latest = _moment(metadata.get("deletionTimestamp"))
    return latest - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0) if latest else None


def _words(condition: Mapping[str, Any]) -> str:
    words = (condition.get("reason", ""), condition.get("message", ""))
    return shortened(": ".join(word for word in words if word), _MOST_MESSAGE)


def _controller(metadata: Mapping[str, Any], kind: str) -> str:
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller") and owner.get("kind") == kind:
            return str(owner.get("uid", ""))
    return ""


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
