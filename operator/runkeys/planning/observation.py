"""The observation of one run: the input of :func:`runkeys.planning.plan.plan`. Holds no secret's value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from runkeys.api import WorkflowRun
from runkeys.names import run_uid_of
from runkeys.planning.bindings import Bindings
from runkeys.planning.memory import Memory
from runkeys.planning.pod_template import volume_images
from runkeys.planning.readers import NO_SHAPE, Shape, is_key, readers, shape_of
from runkeys.planning.requirements import NO_SUPPORT, SealedSupport

LABEL_JOB_UID = "batch.kubernetes.io/controller-uid"
"""Label by which a Job counts its pods: those that have its uid here, and that it owns."""


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

    def vanished(self) -> JobView:
        """It is gone, and its deletion was not seen."""
        return replace(self, gone=True)

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
        )


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container of a pod.

    :ivar restartable: it may start again after it ended (a sidecar), so that its end says nothing.
    :ivar reads: it can read the run's values as soon as they exist.
    :ivar waiting: why it does not run yet, e.g. ``ImagePullBackOff``; empty if it is not waiting.
    :ivar output: its termination message.
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


@dataclass(frozen=True, slots=True)
class PodView:
    """The fields of a pod with a node that planning uses.

    :ivar job_uid: uid of the Job that controls it, empty if none does.
    :ivar gone: it was deleted; nothing of it runs any more, or will.
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

    @property
    def over(self) -> bool:
        """Whether no container of it runs or will run."""
        return self.gone or self.phase in ("Succeeded", "Failed")

    @property
    def started(self) -> bool:
        """Whether any container has started."""
        return any(container.started for container in self.containers)

    def vanished(self) -> PodView:
        """It is gone, and its deletion was not seen: how it ended is unknown."""
        return replace(self, gone=True, phase=self.phase if self.over else "Unknown")

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
        bound = conditions.get("PodScheduled", {})
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            job_uid=job_uid,
            bound_at=_moment(bound.get("lastTransitionTime")) or _moment(metadata.get("creationTimestamp")),
            phase=status.get("phase", "Pending"),
            service_account=spec.get("serviceAccountName", "default"),
            containers=tuple(_containers(spec, status)),
            reason=status.get("reason", ""),
            disrupted=conditions.get("DisruptionTarget", {}).get("status") == "True",
            node=spec.get("nodeName", ""),
            volume_images=tuple(volume_images(spec)),
            shape=shape_of(spec),
            deadline_seconds=spec.get("activeDeadlineSeconds"),
            grace_seconds=spec.get("terminationGracePeriodSeconds", 0),
        )


@dataclass(frozen=True, slots=True)
class RequestView:
    """A PodCertificateRequest of Runkeys' signer, which the kubelet creates for a pod.

    :ivar public: the PKCS#10 request in base64: who gets it, as Kubernetes has checked.
    :ivar state: Issued, Denied or Failed, which is final; empty while nothing has answered it.
    :ivar gone: it was deleted.
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
                    message=waiting.get("message", ""),
                    exit_code=terminated.get("exitCode") if terminated else None,
                    output=terminated.get("message", "") if terminated else "",
                    ended_at=_moment(terminated.get("finishedAt")) if terminated else None,
                    reads=container["name"] in reading,
                )
            )
    return views


def _controller(metadata: Mapping[str, Any], kind: str) -> str:
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller") and owner.get("kind") == kind:
            return str(owner.get("uid", ""))
    return ""


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
