"""Why the operator ends an attempt whose Job goes on, and until when its values may be there. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from runkeys.api import AttemptStatus, Task
from runkeys.planning import certificate_requests, leases, waiting
from runkeys.planning.graph import ALWAYS
from runkeys.planning.observation import JobState, JobView, Observation, PodView
from runkeys.planning.outcome import Ended, at_fault
from runkeys.planning.refusal import Reason
from runkeys.planning.status import Outcome

STOP_MARGIN = timedelta(seconds=30)
"""How long after the Secret's lifetime the operator ends a pod that the kubelet should have ended."""

Due = tuple[datetime, ...]
"""When to look again, even if nothing happens."""


@dataclass(frozen=True)
class AttemptEnd:
    """What an attempt's end depends on.

    :ivar recorded: the attempt as the status shows it.
    :ivar pods: those that bear the Job's name.
    :ivar deadline_over: that of the run.
    """

    obs: Observation
    task: Task
    job: JobView
    recorded: AttemptStatus
    pods: Sequence[PodView]
    now: datetime
    deadline_over: bool

    @property
    def current(self) -> list[PodView]:
        """Pods that are not over."""
        return [pod for pod in self.pods if not pod.over]

    def stop(self) -> tuple[Ended | None, Due]:
        """How and why the operator has to end the attempt, if it has to; else when that may be."""
        asked = (
            self._asked_to_stop() or self._suspended() or self._replaced() or self._bereft() or self._void()
        )
        if asked is not None:
            return asked, ()
        late, due = waiting.late_start(self.task, self.current, self.now, given=bool(self.recorded.exposures))
        if late is not None:
            return late, ()
        limit = self.lifetime()
        if limit is None:
            return None, due
        if limit + STOP_MARGIN <= self.now:
            return too_long(self.current), ()
        return None, (*due, limit, limit + STOP_MARGIN)

    def _asked_to_stop(self) -> Ended | None:
        spec = self.obs.run.spec
        if self.task.runs != ALWAYS and self.deadline_over and not spec.cancel:
            message = f"the run took longer than its activeDeadlineSeconds ({spec.active_deadline_seconds} s)"
            return Ended(Outcome.FAILED, Reason.RUN_DEADLINE_EXCEEDED, message)
        return asked_to_end(self.obs, self.task)

    def had_a_pod(self) -> bool:
        """Whether there is one, or was one."""
        return bool(self.pods) or self.recorded.pod_uid is not None

    def _suspended(self) -> Ended | None:
        """Somebody suspends the Job, which ends its pod. Another one would come, without what this one was given."""
        well = any(pod.phase == "Succeeded" for pod in self.pods)
        if not self.job.suspended or self.job.deleting or well or not self.had_a_pod():
            return None
        message = f"Job {self.job.name} was suspended (its spec.suspend), which ended its pod"
        return Ended(Outcome.DISRUPTED, Reason.JOB_SUSPENDED, message)

    def _replaced(self) -> Ended | None:
        """A Job has only one pod at a time, so the pod that has the values, or had its turn, is no longer the Job's."""
        uid = self.recorded.pod_uid
        second = next((pod for pod in self.current if uid not in (None, pod.uid)), None)
        if second is None:
            return None
        own = next((pod for pod in self.obs.pods if pod.uid == uid), None)
        given = bool(self.recorded.exposures) or self.recorded.sealed is not None
        if own is not None and not own.over and not given:
            return None
        message = f"pod {second.name} was created next to the pod that got the secrets, or in its place"
        return Ended(Outcome.DISRUPTED, Reason.POD_REPLACED, message)

    def key_lost(self, attempt: AttemptStatus) -> tuple[Ended | None, Due]:
        """The kubelet was started again after the answer, and has lost the key before the pod could use it.

        The values are not sealed a second time, to whatever key: the next attempt is another pod.
        """
        for pod in self.current if self.job.sealed else []:
            request = certificate_requests.asks_again(self.obs, pod, attempt)
            if request is None:
                continue
            due = request.created + certificate_requests.KEY_LOST_AFTER
            if due > self.now:
                return None, (due,)
            message = (
                f"the kubelet of node {pod.node} was started again after pod {pod.name} had been given its values and"
                " before it could use them: their key is lost, and an attempt is given them once"
            )
            return Ended(Outcome.DISRUPTED, Reason.DISRUPTED, message), ()
        return None, ()

    def lacks_its_pod(self) -> bool:
        """Whether its pod is gone, and the Job controller has not counted it: then the Job ends by no fault of it."""
        job = self.job
        passive = job.state is not JobState.ACTIVE or job.deleting or job.suspended or job.counted
        return (
            not passive
            and self.had_a_pod()
            and all(pod.gone and pod.phase != "Succeeded" for pod in self.pods)
        )

    def _bereft(self) -> Ended | None:
        """The end of an attempt whose pod is gone while its Job goes on, as read by name."""
        if not self.obs.fresh or not self.lacks_its_pod():
            return None
        message = f"the pod of Job {self.job.name} is gone, and the Job continues as if it had had none"
        return Ended(Outcome.DISRUPTED, Reason.POD_GONE, message)

    def _void(self) -> Ended | None:
        """The pod may have been given a credential that was revoked before."""
        if self.obs.memory.of(self.job.uid).void:
            what = "the Secret was created"
        elif self._has_dead_values():
            what = "the pod was given its values"
        else:
            return None
        message = f"{what} by a request whose answer had been lost, after its lease had been revoked"
        return Ended(Outcome.DISRUPTED, Reason.LEASE_LOST, message)

    def _has_dead_values(self) -> bool:
        """Whether sealed values are of leases that are revoked, although a container may use them still."""
        sealed, limit = self.recorded.sealed, self.lifetime()
        if sealed is None or not self.recorded.leases or (limit is not None and limit <= self.now):
            return False
        answer = next((item for item in self.obs.requests if item.uid == sealed.request), None)
        if answer is None or answer.state != "Issued":
            return False
        left = leases.followed(self.obs.memory, self.recorded).open_leases
        in_use = any(not pod.done_with(self.task.secret_containers) for pod in self.current)
        return in_use and (answer.contested or not left)

    def lifetime(self) -> datetime | None:
        """Until when the values may be there: as long as the pod's own deadline.

        That is never longer than the bindings allow, and it stays known if a binding is deleted. Anyone who takes
        it out of the pod, or the Job, wins no time: then the other one counts, or the task's.
        """
        attempt, pods = self.recorded, self.pods
        known = [
            self.job.deadline_seconds,
            self.task.active_deadline_seconds,
            *(pod.deadline_seconds for pod in pods),
        ]
        seconds = min((item for item in known if item is not None), default=None)
        if seconds is None:
            return None
        begun = attempt.exposures[-1].created if attempt.exposures else None
        if begun is None and attempt.sealed is not None:
            begun = attempt.sealed.delivered
        unbounded = any(
            pod.deadline_seconds is None or pod.deadline_seconds > seconds for pod in self.current
        )
        if begun is None and unbounded:
            begun = attempt.start_time
        return begun + timedelta(seconds=seconds) if begun is not None else None


def asked_to_end(obs: Observation, task: Task) -> Ended | None:
    """The end that the run's spec asks for."""
    spec = obs.run.spec
    if spec.cancel and task.runs != ALWAYS:
        return Ended(Outcome.CANCELLED, Reason.CANCELLED, "cancelled by spec.cancel")
    if spec.suspend:
        return Ended(Outcome.SUSPENDED, Reason.SUSPENDED, "ended by spec.suspend")
    return None


def too_long(pods: list[PodView]) -> Ended:
    """The end of pods that outlived their own deadline."""
    message = "the pod still existed after the longest time that its run and bindings allow"
    return Ended(*at_fault(pods, Reason.LIFETIME_EXCEEDED, message))
