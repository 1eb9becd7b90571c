"""A small model of a cluster around one run, to run histories of events against the plan.

It keeps what the API server, the Job controller and the kubelet promise, and nothing of how the operator
works: a container with a required reference starts only while its Secret exists; names are unique; the
status changes only by a patch on the newest version.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from runkeys.actions import (
    Action,
    CheckSources,
    CreateJob,
    DeleteJob,
    DeleteRequest,
    DeleteRun,
    DeleteSecret,
    Deliver,
    DenyRequest,
    Diagnose,
    EnsureSecret,
    PatchStatus,
    PurgeInput,
    Refresh,
)
from runkeys.api import WorkflowRun
from runkeys.naming import OPENER, RECIPIENT_VOLUME, run_uid_of
from runkeys.needs import ANYWHERE, Bindings
from runkeys.observation import (
    ContainerView,
    Finding,
    JobState,
    JobView,
    Memory,
    Observation,
    PodView,
    RequestView,
)
from runkeys.plan import plan, plan_farewell
from runkeys.readers import shape_of
from runkeys.refusal import Reason, Refusal
from runkeys.status import finished
from tests.unit.plan.objects import bound_to, later, make_binding, make_run

SOURCE_FIELD = "spec.tasks[0].secrets[0].secret"


class AnswerLostError(Exception):
    """The operator dies after its call was carried out, before it saw the answer."""


@dataclass
class World:
    """The run, what the cluster holds for it, and what the operator process remembers."""

    run: WorkflowRun = field(default_factory=make_run)
    bindings: Bindings = field(default_factory=lambda: bound_to(make_binding()))
    source_there: bool = True
    seconds: float = 0.0
    run_there: bool = True
    jobs: dict[str, JobView] = field(default_factory=dict)
    pods: dict[str, PodView] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    requests: dict[str, RequestView] = field(default_factory=dict)
    answered: list[str] = field(default_factory=list)
    """Uids of requests, each time that one is answered with values."""
    memory: Memory = field(default_factory=Memory)
    history: list[Action] = field(default_factory=list)
    lose_answer_in: int | None = None
    fresh: bool = False
    task_of: dict[str, str] = field(default_factory=dict)
    """By the name of a Job, the task that it is an attempt of."""
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the name of a Job, its pod as it was asked for."""
    outputs: dict[str, str] = field(default_factory=dict)
    """By the name of a task, what its container writes."""
    _uids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def now(self) -> datetime:
        return later(self.seconds)

    # the operator

    def reconcile(self) -> None:
        """One pass, as the reconciler makes it. A lost answer ends the process and starts another."""
        try:
            self._pass()
        except AnswerLostError:
            self.crash()

    def crash(self) -> None:
        """The operator process is another one: it remembers nothing."""
        self.memory = Memory()

    def _pass(self) -> None:
        self.fresh = False
        if not self.run_there:
            for action in plan_farewell(self._observe()).actions:
                self._do(action)
            return
        for _ in range(20 + 6 * len(self.run.spec.tasks)):
            step = plan(self._observe(), self.now)
            if step.status is not None:
                since = (self.memory.stale_since or self.now) if step.stale else None
                self.memory = replace(self.memory, stale_since=since)
            if not step.actions:
                return
            for action in step.actions:
                self._do(action)
        raise AssertionError(f"the plan does not settle: {self.history[-4:]}")

    def _observe(self) -> Observation:
        bindings = self.bindings if self.fresh else Bindings({}, {})
        return Observation(
            self.run,
            bindings,
            dict(self.jobs),
            tuple(self.pods.values()),
            self.memory,
            self.fresh,
            tuple(self.requests.values()),
            ANYWHERE,
        )

    def _do(self, action: Action) -> None:
        if isinstance(action, Refresh):
            self.fresh = True
            return
        assert self.fresh or not isinstance(action, CheckSources | CreateJob | EnsureSecret | Deliver)
        if isinstance(action, EnsureSecret | Deliver) and action.intent is not None and self.source_there:
            self._do(PatchStatus(action.intent))
        self.history.append(action)
        self._change(action)
        if not isinstance(action, CheckSources | Diagnose) and self.lose_answer_in is not None:
            self.lose_answer_in -= 1
            if self.lose_answer_in < 0:
                self.lose_answer_in = None
                raise AnswerLostError
        self._learn(action)

    def _change(self, action: Action) -> None:
        match action:
            case CreateJob(_, manifest):
                name = manifest["metadata"]["name"]
                assert name not in self.jobs, "a Job is created that exists"
                self.task_of[name] = manifest["metadata"]["labels"]["runkeys.dev/task"]
                self.jobs[name] = JobView(
                    name=name,
                    uid=f"job-{next(self._uids)}",
                    controller_uid=manifest["metadata"]["ownerReferences"][0]["uid"],
                    created=self.now,
                    run_uid=run_uid_of(manifest["metadata"]),
                    deadline_seconds=manifest["spec"]["template"]["spec"].get("activeDeadlineSeconds"),
                    ttl_seconds=manifest["spec"]["ttlSecondsAfterFinished"],
                    sealed=RECIPIENT_VOLUME
                    in [item["name"] for item in manifest["spec"]["template"]["spec"].get("volumes", [])],
                )
                self.specs[name] = manifest["spec"]["template"]["spec"]
            case DeleteJob(name, uid):
                if name in self.jobs and self.jobs[name].uid == uid:
                    self.remove_job(name)
            case PatchStatus(status):
                # as the API server stores it: times cut to their resolution
                stored = type(status).model_validate(status.to_wire())
                self.run = self.run.model_copy(update={"status": stored})
            case EnsureSecret(_, name, job_uid):
                job = self.jobs.get(name)
                # the garbage collector takes a Secret whose owner is not there
                if self.source_there and job is not None and job.uid == job_uid:
                    assert not job.sealed, "a Secret for a pod that is delivered to sealed"
                    self.secrets.add(name)
            case Deliver(request=request) if self.source_there:
                # as the API server does: a request is answered once, and one that is gone never
                asked = self.requests[request.uid]
                if not asked.state and not asked.gone:
                    self.answered.append(request.uid)
                    self.requests[request.uid] = replace(asked, state="Issued", at=self.now)
            case DenyRequest(request, message):
                asked = self.requests[request.uid]
                if not asked.state and not asked.gone:
                    self.requests[request.uid] = replace(asked, state="Denied", message=message)
            case DeleteRequest(request):
                self.requests[request.uid] = replace(self.requests[request.uid], gone=True)
            case DeleteSecret(name):
                self.secrets.discard(name)
            case DeleteRun():
                self.delete_run()
            case PurgeInput():
                spec = self.run.spec.model_copy(update={"sealed_input": {}})
                self.run = self.run.model_copy(update={"spec": spec})
            case CheckSources() | Deliver() | Diagnose() | Refresh():
                pass

    def _learn(self, action: Action) -> None:
        memory = self.memory
        missing = (
            None
            if self.source_there
            else Refusal(Reason.SOURCE_NOT_FOUND, SOURCE_FIELD, "gone", permanent=False)
        )
        match action:
            case CheckSources():
                self.memory = replace(memory, sources=Finding(self.now, missing))
            case CreateJob(_, manifest):
                uid = self.jobs[manifest["metadata"]["name"]].uid
                self.memory = replace(memory, jobs_made=memory.jobs_made | {uid})
            case EnsureSecret(task, _, job_uid, _, _, intent):
                if missing is not None:
                    found = replace(memory.about(task), sources=Finding(self.now, missing))
                    self.memory = memory.with_task(task, found)
                else:
                    secret = replace(memory.of(job_uid), made_at=self.now, estimated=intent is None)
                    self.memory = memory.with_secret(job_uid, secret)
                    self.fresh = False
            case Deliver(task):
                if missing is not None:
                    found = replace(memory.about(task), sources=Finding(self.now, missing))
                    self.memory = memory.with_task(task, found)
                self.fresh = False
            case DeleteSecret(_, job_uid):
                secret = memory.of(job_uid)
                gone = replace(secret, gone_at=secret.gone_at or self.now, last_delete=self.now)
                self.memory = memory.with_secret(job_uid, gone)
            case Diagnose(task):
                found = replace(memory.about(task), waiting=Finding(self.now, None))
                self.memory = memory.with_task(task, found)
            case _:
                pass

    # the cluster

    def bind_pod(self, task: str = "") -> None:
        """The scheduler gives the pod of each Job (of that task) a node."""
        for job in self._jobs(task):
            if job.state is JobState.ACTIVE and not any(pod.job_uid == job.uid for pod in self.pods.values()):
                uid = f"pod-{next(self._uids)}"
                self.pods[uid] = PodView(
                    name=f"{job.name}-abcde",
                    uid=uid,
                    job_uid=job.uid,
                    bound_at=self.now,
                    phase="Pending",
                    service_account="default",
                    containers=(*_opener(job), ContainerView("main", "ghcr.io/acme/app:1")),
                    node="node1",
                    shape=shape_of(self.specs[job.name]),
                    deadline_seconds=self.specs[job.name].get("activeDeadlineSeconds"),
                )
                if job.sealed:
                    self.ask(self.pods[uid])

    def ask(self, pod: PodView) -> None:
        """The kubelet makes a key for the pod and asks for what is sealed to it."""
        number = next(self._uids)
        self.requests[f"req-{number}"] = RequestView(
            name=f"req-{number}",
            uid=f"req-{number}",
            version=str(number),
            created=self.now,
            pod_name=pod.name,
            pod_uid=pod.uid,
            node=pod.node,
            service_account=pod.service_account,
            public="AAAA",
        )

    def restart_kubelet(self, task: str = "") -> None:
        """It has forgotten the keys of pods that wait, and asks again; the old key is nobody's any more."""
        for job in self._jobs(task):
            for pod in [item for item in self.pods.values() if item.job_uid == job.uid]:
                if job.sealed and not pod.over and not pod.started:
                    self.ask(pod)

    def _newest_request(self, pod: PodView) -> RequestView | None:
        mine = [item for item in self.requests.values() if item.pod_uid == pod.uid]
        return max(mine, key=lambda item: int(item.version), default=None)

    def start_pod(self, task: str = "") -> None:
        """The kubelet starts the container, if every reference is there."""
        for uid, pod in self.pods.items():
            job = next((job for job in self._jobs(task) if job.uid == pod.job_uid), None)
            if job is None or pod.over or pod.started:
                continue
            asks = next(item for item in self.run.spec.tasks if item.name == self.task_of[job.name]).secrets
            *before, main = pod.containers
            if job.sealed:
                request = self._newest_request(pod)
                if request is None or request.state != "Issued":
                    continue
                before = [replace(item, ended=True, exit_code=0, ended_at=self.now) for item in before]
            elif asks and job.name not in self.secrets:
                continue
            self.pods[uid] = replace(pod, phase="Running", containers=(*before, replace(main, started=True)))

    def end_pod(self, task: str = "", *, well: bool = True, code: int = 1) -> None:
        """The process of every running container ends."""
        mine = {job.uid: self.task_of[job.name] for job in self._jobs(task)}
        for uid, pod in self.pods.items():
            if pod.started and not pod.over and pod.job_uid in mine:
                output = self.outputs.get(mine[pod.job_uid], "")
                *before, main = pod.containers
                ended = replace(main, ended=True, exit_code=0 if well else code, output=output)
                self.pods[uid] = replace(
                    pod, phase="Succeeded" if well else "Failed", containers=(*before, ended)
                )

    def drain(self, task: str = "") -> None:
        """The node is drained: the pod ends as one that was taken off it, and its Job says so."""
        mine = {job.uid for job in self._jobs(task)}
        for uid, pod in self.pods.items():
            if not pod.over and pod.job_uid in mine:
                self.pods[uid] = replace(pod, phase="Failed", disrupted=True)

    def complete(self, task: str, *, well: bool = True) -> None:
        """All that happens to the task's pod, to its end, with the operator there all the time."""
        for event in (self.bind_pod, self.start_pod, self.end_pod if well else self._fail):
            event(task)
            self.reconcile()
        self.finish_jobs()
        self.reconcile()

    def _fail(self, task: str = "") -> None:
        self.end_pod(task, well=False)

    def _jobs(self, task: str = "") -> list[JobView]:
        return [job for job in self.jobs.values() if not task or self.task_of[job.name] == task]

    def remove_pod(self) -> None:
        """Somebody deletes the pod."""
        self.pods = {uid: replace(pod, gone=True) for uid, pod in self.pods.items()}

    def finish_jobs(self) -> None:
        """The Job controller sees pods that ended."""
        for name, job in self.jobs.items():
            mine = [pod for pod in self.pods.values() if pod.job_uid == job.uid]
            if job.state is JobState.ACTIVE and mine and all(pod.over for pod in mine):
                well = all(pod.phase == "Succeeded" for pod in mine)
                state = JobState.SUCCEEDED if well else JobState.FAILED
                self.jobs[name] = replace(job, state=state, finished_at=self.now)

    def remove_job(self, name: str) -> None:
        """A Job goes, and the garbage collector takes its pods and its Secret."""
        uid = self.jobs.pop(name).uid
        self.secrets.discard(name)
        self.pods = {
            key: replace(pod, gone=True) if pod.job_uid == uid else pod for key, pod in self.pods.items()
        }

    def remove_jobs(self) -> None:
        """Somebody deletes the Jobs, or their time to live is over."""
        for name in list(self.jobs):
            self.remove_job(name)

    def delete_run(self) -> None:
        """The run is deleted, and the garbage collector follows."""
        self.run_there = False
        metadata = self.run.metadata.model_copy(update={"deletion_timestamp": self.now})
        self.run = self.run.model_copy(update={"metadata": metadata})
        self.remove_jobs()

    def suspend(self, *, on: bool = True) -> None:
        """Somebody sets spec.suspend, or takes it back."""
        spec = self.run.spec.model_copy(update={"suspend": on})
        self.run = self.run.model_copy(update={"spec": spec})

    def cancel(self) -> None:
        """Somebody sets spec.cancel."""
        spec = self.run.spec.model_copy(update={"cancel": True})
        self.run = self.run.model_copy(update={"spec": spec})

    def remove_bindings(self) -> None:
        """The binding is deleted."""
        self.bindings = Bindings({}, {})

    def restore_bindings(self) -> None:
        """The binding is there again."""
        self.bindings = bound_to(make_binding())

    def tick(self, seconds: float) -> None:
        """Time passes."""
        self.seconds += seconds

    def bring_to_end(self) -> None:
        """Everybody does what is theirs to do, for long enough."""
        self.source_there = True
        self.lose_answer_in = None
        self.suspend(on=False)
        self.restore_bindings()
        for _ in range(8 * len(self.run.spec.tasks)):
            for event in (self.bind_pod, self.start_pod, self.end_pod, self.finish_jobs):
                self.reconcile()
                event()
                self.tick(31)
            self.tick(240)  # the longest back-off is six minutes
        self.reconcile()

    @property
    def requests_left(self) -> list[RequestView]:
        """Those that are there and were answered, so that they hold something."""
        return [item for item in self.requests.values() if item.state == "Issued" and not item.gone]

    @property
    def over(self) -> bool:
        """Whether the run is final or gone."""
        return not self.run_there or finished(self.run.status)


def _opener(job: JobView) -> tuple[ContainerView, ...]:
    return (ContainerView(OPENER, ANYWHERE.image),) if job.sealed else ()


def check_answers(world: World) -> None:
    """What holds of the requests of pods after every event."""
    pods = [world.requests[uid].pod_uid for uid in world.answered]
    assert len(set(pods)) == len(pods), "a pod was answered twice"
    recorded = {
        attempt.sealed.request
        for status in world.run.status.tasks
        for attempt in status.attempts
        if attempt.sealed is not None
    }
    assert recorded >= set(world.answered), "an answer that the status does not speak of"
