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

from runkeys.api import LeaseStatus, WorkflowRun, WorkflowRunStatus
from runkeys.names import FINALIZER, RECIPIENT_VOLUME, UNSEALER, run_uid_of
from runkeys.planning import leases, memory
from runkeys.planning.actions import (
    Action,
    AnswerEmpty,
    CheckSources,
    CreateJob,
    DeleteJob,
    DeleteRequest,
    DeleteRun,
    DeleteSecret,
    Deliver,
    DenyRequest,
    Diagnose,
    DropFinalizer,
    EnsureSecret,
    LookForSecret,
    PatchStatus,
    PurgeInput,
    Refresh,
    RevokeLeases,
)
from runkeys.planning.bindings import Bindings
from runkeys.planning.memory import Memory
from runkeys.planning.observation import (
    NOTHING_LEFT,
    ContainerView,
    JobState,
    JobView,
    Observation,
    PodView,
    RequestView,
    Role,
)
from runkeys.planning.plan import plan, plan_deletion
from runkeys.planning.readers import shape_of
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import ANYWHERE, SealedSupport
from tests.unit.planning.objects import bound_to, later, make_binding, make_run

SOURCE_FIELD = "spec.tasks[0].secrets[0].secret"


class AnswerLostError(Exception):
    """The operator dies after its call was carried out, before it saw the answer."""


@dataclass
class Store:
    """What a store promises: a login that is on record can be revoked, and what it created goes with it.

    :ivar away: it answers nobody. :ivar stuck: it accepts revocations, and cannot carry them out yet.
    :ivar live: credentials by accessor, with when they end by themselves.
    :ivar delivered: by accessor, the uid of the Job whose pod was to be given the credential.
    """

    away: bool = False
    stuck: bool = False
    live: dict[str, datetime] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    delivered: dict[str, str] = field(default_factory=dict)
    logins: int = 0

    def log_in(self) -> str:
        self.logins += 1
        return f"accessor-{self.logins}"

    def create(self, accessor: str, until: datetime) -> None:
        if accessor not in self.revoked:
            self.live[accessor] = until

    def revoke(self, accessor: str) -> None:
        if self.away:
            return
        self.revoked.add(accessor)
        if not self.stuck:
            self.live.pop(accessor, None)

    def has(self, accessor: str, now: datetime) -> bool:
        return accessor in self.live and now < self.live[accessor]

    def come_back(self) -> None:
        """It works again, and carries out by itself what it has accepted."""
        self.away = self.stuck = False
        for accessor in self.revoked:
            self.live.pop(accessor, None)


@dataclass
class World:
    """The run, what the cluster holds for it, and what the operator process remembers."""

    run: WorkflowRun = field(default_factory=make_run)
    bindings: Bindings = field(default_factory=lambda: bound_to(make_binding()))
    restored: Bindings = field(default_factory=lambda: bound_to(make_binding()))
    source_there: bool = True
    support: SealedSupport = ANYWHERE
    seconds: float = 0.0
    run_there: bool = True
    jobs: dict[str, JobView] = field(default_factory=dict)
    pods: dict[str, PodView] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    requests: dict[str, RequestView] = field(default_factory=dict)
    answered: list[str] = field(default_factory=list)
    """Uids of requests, each time that one is answered with values."""
    emptied: list[str] = field(default_factory=list)
    """The same, each time that one is answered with nothing while its pod waits for its values."""
    memory: Memory = field(default_factory=Memory)
    secrets_created: dict[str, list[datetime]] = field(default_factory=dict)
    """By uid of the Job, each time that a Secret was asked for and the server did as asked."""
    crashes: int = 0
    history: list[Action] = field(default_factory=list)
    lose_answer_in: int | None = None
    kubelet_there: bool = True
    fresh: bool = False
    task_of: dict[str, str] = field(default_factory=dict)
    """By the name of a Job, the task that it is an attempt of."""
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the name of a Job, its pod as it was asked for."""
    outputs: dict[str, str] = field(default_factory=dict)
    """By the name of a task, what its container writes."""
    holds: dict[str, str] = field(default_factory=dict)
    """By the name of a Secret, or the uid of a request that was answered, the accessor of the lease in it."""
    newest_lease: str = ""
    store: Store = field(default_factory=Store)
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
        self.crashes += 1

    def _pass(self) -> None:
        self.fresh = False
        if not self.run_there:
            for action in plan_deletion(self._observe(), self.now).actions:
                self._do(action)
            return
        for _ in range(20 + 6 * len(self.run.spec.tasks)):
            step = plan(self._observe(), self.now)
            if step.status is not None:
                self.memory = memory.note_staleness(self.memory, self.now, stale=step.stale)
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
            self.support,
        )

    def _do(self, action: Action) -> None:
        if isinstance(action, Refresh):
            self.fresh = True
            return
        assert self.fresh or not isinstance(action, CheckSources | CreateJob | EnsureSecret | Deliver)
        if isinstance(action, EnsureSecret | Deliver) and self.source_there:
            intent = action.intent
            if action.leasing is not None:
                intent = self._lease(action)
                if intent is None:
                    return
            if intent is not None:
                self._do(PatchStatus(intent))
        self.history.append(action)
        self._change(action)
        if not isinstance(action, CheckSources | Diagnose):
            self._answered()
        self._learn(action)

    def _answered(self) -> None:
        if self.lose_answer_in is not None:
            self.lose_answer_in -= 1
            if self.lose_answer_in < 0:
                self.lose_answer_in = None
                raise AnswerLostError

    def _lease(self, action: EnsureSecret | Deliver) -> WorkflowRunStatus | None:
        """What the operator does before it delivers values with a lease; None: the store did not let it."""
        assert action.leasing is not None
        assert action.leasing.record is not None
        if self.store.away:
            found = Refusal(Reason.SOURCE_UNAVAILABLE, SOURCE_FIELD, "away", permanent=False)
            self.memory = memory.values_refused(self.memory, action.task, self.now, found)
            return None
        accessor = self.store.log_in()
        self._answered()
        until = later(self.seconds + action.leasing.seconds)
        lease = LeaseStatus(store="bao", role="r", accessor=accessor, paths=["db/creds/a"], expires=until)
        uid = action.leasing.job_uid
        self._do(PatchStatus(leases.with_leases(action.leasing.record, uid, [lease])))
        if FINALIZER not in self.run.metadata.finalizers:
            self._finalizers(FINALIZER)
            self._answered()
        recorded = [item.accessor for item in self._leases() if item.open]
        assert accessor in recorded, "something is leased with a login that is not on record"
        self.store.create(accessor, until)
        self._answered()
        assert action.intent is not None
        lease = lease.model_copy(update={"ids": [f"id-{accessor}"]})
        self.store.delivered[accessor] = uid
        self.newest_lease = accessor
        return leases.with_leases(action.intent, uid, [lease])

    def _leases(self) -> list[LeaseStatus]:
        return [
            lease for task in self.run.status.tasks for item in task.attempts for lease in item.leases or ()
        ]

    def _finalizers(self, *finalizers: str) -> None:
        metadata = self.run.metadata.model_copy(update={"finalizers": list(finalizers)})
        self.run = self.run.model_copy(update={"metadata": metadata})

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
                if self.source_there:
                    self.secrets_created.setdefault(job_uid, []).append(self.now)
                job = self.jobs.get(name)
                # the garbage collector takes a Secret whose owner is not there
                if self.source_there and job is not None and job.uid == job_uid:
                    assert not job.sealed, "a Secret for a pod that is delivered to sealed"
                    if name not in self.secrets:
                        self.holds[name] = self.newest_lease
                    self.secrets.add(name)
            case Deliver(request=request) if self.source_there:
                # as the API server does: a request is answered once, and one that is gone never
                asked = self.requests[request.uid]
                if not asked.state and not asked.gone:
                    self.answered.append(request.uid)
                    self.holds[request.uid] = self.newest_lease
                    self.requests[request.uid] = replace(asked, state="Issued", at=self.now)
            case AnswerEmpty(request):
                asked = self.requests[request.uid]
                if not asked.state and not asked.gone:
                    if self._waits(asked.pod_uid):
                        self.emptied.append(request.uid)
                    self.requests[request.uid] = replace(
                        asked, state="Issued", reason=NOTHING_LEFT, at=self.now
                    )
            case DenyRequest(request, message):
                asked = self.requests[request.uid]
                if not asked.state and not asked.gone:
                    self.requests[request.uid] = replace(asked, state="Denied", message=message)
            case DeleteRequest(request):
                self.requests[request.uid] = replace(self.requests[request.uid], gone=True)
            case DeleteSecret(name):
                self.secrets.discard(name)
            case RevokeLeases(_, _, revoked):
                for lease in revoked:
                    self.store.revoke(lease.accessor)
            case DropFinalizer():
                self._finalizers()
                if self.run.metadata.deletion_timestamp is not None:
                    self._collect()
            case DeleteRun():
                self.delete_run()
            case PurgeInput():
                spec = self.run.spec.model_copy(update={"sealed_input": {}})
                self.run = self.run.model_copy(update={"spec": spec})
            case CheckSources() | Deliver() | Diagnose() | LookForSecret() | Refresh():
                pass

    def _learn(self, action: Action) -> None:
        """What the answer does to what the operator remembers: its own fold, so that histories test that."""
        known, now = self.memory, self.now
        missing = (
            None
            if self.source_there
            else Refusal(Reason.SOURCE_NOT_FOUND, SOURCE_FIELD, "gone", permanent=False)
        )
        match action:
            case CheckSources():
                self.memory = memory.sources_checked(known, now, missing)
            case CreateJob(task, manifest):
                self.memory = memory.job_created(known, task, self.jobs[manifest["metadata"]["name"]].uid)
            case EnsureSecret(task) | Deliver(task) if missing is not None:
                self.memory = memory.values_refused(known, task, now, missing)
                self.fresh = self.fresh and isinstance(action, EnsureSecret)
            case EnsureSecret(_, _, job_uid, _, _, intent):
                self.memory = memory.secret_created(known, job_uid, now, certain=intent is not None)
                if action.leasing is not None and self.holds.get(action.name) != self.newest_lease:
                    self.memory = memory.secret_void(self.memory, job_uid)
                self.fresh = False
            case Deliver():
                self.fresh = False
            case DeleteSecret(_, job_uid):
                self.memory = memory.secret_gone(known, job_uid, now)
            case LookForSecret(name, job_uid) if name in self.secrets:
                self.memory = memory.secret_created(known, job_uid, now, certain=False)
                self.fresh = False
            case LookForSecret(_, job_uid):
                self.memory = memory.secret_absent(known, job_uid, now)
            case RevokeLeases(_, _, revoked):
                for lease in revoked:
                    if self.store.has(lease.accessor, now) or self.store.away:
                        known = memory.lease_pending(known, "bao", lease.accessor, now, "away")
                    else:
                        known = memory.lease_revoked(known, "bao", lease.accessor, now)
                self.memory = known
            case Diagnose(task):
                self.memory = memory.diagnosed(known, task, now, None)
            case PatchStatus():
                self.memory = memory.note_staleness(known, now, stale=False)
            case _:
                pass

    # the cluster

    def bind_pod(self, task: str = "", *, scheduled: bool = True) -> None:
        """The scheduler gives the pod of each Job (of that task) a node; or the author of the template named it."""
        for job in self._jobs(task):
            mine = [pod for pod in self.pods.values() if pod.job_uid == job.uid]
            # after a pod that was not counted another one comes
            more = not job.counted and all(pod.gone for pod in mine)
            if job.state is JobState.ACTIVE and not job.suspended and more:
                uid = f"pod-{next(self._uids)}"
                self.pods[uid] = PodView(
                    name=f"{job.name}-{len(mine):05}",
                    uid=uid,
                    job_uid=job.uid,
                    bound_at=self.now,
                    phase="Pending",
                    service_account="default",
                    containers=(*self._unsealer(job), ContainerView("main", "ghcr.io/acme/app:1")),
                    node="node1",
                    shape=shape_of(self.specs[job.name]),
                    deadline_seconds=self.specs[job.name].get("activeDeadlineSeconds"),
                    taken=self.kubelet_there,
                    scheduled=scheduled,
                )
                if job.sealed and self.kubelet_there:
                    self.ask(self.pods[uid])

    def lose_kubelet(self) -> None:
        """The kubelet of the node does not run: pods that are bound to it from now on are taken by nobody."""
        self.kubelet_there = False

    def start_kubelet(self) -> None:
        """It is there again, and takes the pods that wait for it."""
        self.kubelet_there = True
        for uid, pod in self.pods.items():
            job = next((job for job in self.jobs.values() if job.uid == pod.job_uid), None)
            if not pod.taken and not pod.over:
                self.pods[uid] = replace(pod, taken=True)
                if job is not None and job.sealed:
                    self.ask(pod)

    def refuse_pod(self, task: str = "") -> None:
        """The kubelet does not admit a pod that has its node, or loses it: no container of it runs (any more)."""
        mine = {job.uid for job in self._jobs(task)}
        for uid, pod in self.pods.items():
            if not pod.over and pod.taken and pod.job_uid in mine:
                self.pods[uid] = replace(pod, phase="Failed", reason="OutOfcpu", message="no room")

    def suspend_jobs(self, *, on: bool = True) -> None:
        """Somebody suspends the Jobs, and the Job controller takes their pods away uncounted; or resumes them."""
        active = {job.uid for job in self.jobs.values() if job.state is JobState.ACTIVE}
        self.jobs = {
            name: replace(job, suspended=on) if job.uid in active else job for name, job in self.jobs.items()
        }
        if on:
            self._take_pods_away(active)

    def take_pods_away(self) -> None:
        """The pods are gone, and their Jobs do not know how they ended and go on."""
        self._take_pods_away(
            {job.uid for job in self.jobs.values() if job.state is JobState.ACTIVE and not job.counted}
        )

    def _take_pods_away(self, jobs: set[str]) -> None:
        self.pods = {
            uid: replace(pod, gone=True)
            if pod.job_uid in jobs and pod.phase not in ("Succeeded", "Failed")
            else pod
            for uid, pod in self.pods.items()
        }

    def _unsealer(self, job: JobView) -> tuple[ContainerView, ...]:
        if not job.sealed:
            return ()
        return (
            ContainerView(
                UNSEALER, self.specs[job.name]["initContainers"][0]["image"], reads=True, role=Role.INIT
            ),
        )

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
        """It has forgotten all keys, and asks again for every pod; the old keys are nobody's any more."""
        for job in self._jobs(task):
            for pod in [item for item in self.pods.values() if item.job_uid == job.uid]:
                if job.sealed and not pod.gone:
                    self.ask(pod)

    def _waits(self, pod_uid: str) -> bool:
        """Whether a pod would still start if it had its values; its run and its Job have to be there for that."""
        pod = self.pods[pod_uid]
        job = next((job for job in self.jobs.values() if job.uid == pod.job_uid), None)
        attempts = [item for status in self.run.status.tasks for item in status.attempts]
        ended = any(item.job_uid == pod.job_uid and item.outcome for item in attempts)
        opened = any(item.name == UNSEALER and item.ended for item in pod.containers)
        return job is not None and not pod.over and not opened and not ended and not self.over

    def _has_its_volume(self, pod: PodView) -> bool:
        """Whether the kubelet goes on with a pod: it does nothing for a pod that waits for a certificate."""
        request = self.newest_of(pod.uid)
        return request is None or request.state == "Issued"

    def newest_of(self, pod_uid: str) -> RequestView | None:
        """The request for a pod whose key the kubelet has."""
        node = self.pods[pod_uid].node
        mine = [item for item in self.requests.values() if item.pod_uid == pod_uid and item.node == node]
        return max(mine, key=lambda item: int(item.version), default=None)

    def start_pod(self, task: str = "") -> None:
        """The kubelet starts the container, if every reference is there."""
        for uid, pod in self.pods.items():
            job = next((job for job in self._jobs(task) if job.uid == pod.job_uid), None)
            if (
                job is None
                or pod.over
                or not pod.taken
                or any(item.name != UNSEALER and item.started for item in pod.containers)
            ):
                continue
            asks = next(item for item in self.run.spec.tasks if item.name == self.task_of[job.name]).secrets
            *before, main = pod.containers
            if job.sealed:
                if not self._has_its_volume(pod):
                    continue
                before = [
                    replace(item, started=True, ended=True, exit_code=0, ended_at=item.ended_at or self.now)
                    for item in before
                ]
            elif asks and job.name not in self.secrets:
                continue
            self.pods[uid] = replace(pod, phase="Running", containers=(*before, replace(main, started=True)))

    def unseal(self, task: str = "") -> None:
        """The unseal container of every pod that has its certificate has ended, and no other has started yet."""
        for uid, pod in self.pods.items():
            sealed = any(job.uid == pod.job_uid and job.sealed for job in self._jobs(task))
            if sealed and pod.taken and not pod.over and not pod.started and self._has_its_volume(pod):
                first, *rest = pod.containers
                ended = replace(first, started=True, ended=True, exit_code=0, ended_at=self.now)
                self.pods[uid] = replace(pod, containers=(ended, *rest))

    def end_pod(self, task: str = "", *, well: bool = True, code: int = 1) -> None:
        """The process of every running container ends."""
        mine = {job.uid: self.task_of[job.name] for job in self._jobs(task)}
        for uid, pod in self.pods.items():
            running = any(item.name != UNSEALER and item.started for item in pod.containers)
            if running and not pod.over and pod.job_uid in mine and self._has_its_volume(pod):
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
        """Somebody deletes the pod: the Job counts it, and then it is gone."""
        self.pods = {uid: replace(pod, gone=True) for uid, pod in self.pods.items()}
        mine = {pod.job_uid for pod in self.pods.values()}
        self.jobs = {
            name: replace(job, counted=True) if job.uid in mine and not job.suspended else job
            for name, job in self.jobs.items()
        }

    def finish_jobs(self) -> None:
        """The Job controller sees pods that ended."""
        for name, job in self.jobs.items():
            mine = [pod for pod in self.pods.values() if pod.job_uid == job.uid]
            ended = [pod for pod in mine if job.counted or not pod.gone]
            if job.state is JobState.ACTIVE and ended and all(pod.over for pod in mine):
                well = all(pod.phase == "Succeeded" for pod in ended)
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
        """The run is deleted, and the garbage collector follows; with a finalizer once that is gone."""
        metadata = self.run.metadata.model_copy(update={"deletion_timestamp": self.now})
        self.run = self.run.model_copy(update={"metadata": metadata})
        if not metadata.finalizers:
            self._collect()

    def _collect(self) -> None:
        self.run_there = False
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
        self.bindings = self.restored

    def tick(self, seconds: float) -> None:
        """Time passes."""
        self.seconds += seconds

    def bring_to_end(self) -> None:
        """Everybody does what is theirs to do, for long enough."""
        self.source_there = True
        self.store.come_back()
        self.lose_answer_in = None
        self.suspend(on=False)
        self.suspend_jobs(on=False)
        self.start_kubelet()
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
        return [item for uid in self.answered if not (item := self.requests[uid]).gone]

    @property
    def over(self) -> bool:
        """Whether the run is final or gone."""
        return not self.run_there or self.run.status.finished


def check_exposures(world: World) -> None:
    """What the status says of when a value was there is true, or says that it is an estimate."""
    for status in world.run.status.tasks:
        for attempt in status.attempts:
            for exposure in attempt.exposures:
                if exposure.deleted is None:
                    continue
                truth = world.secrets_created.get(attempt.job_uid, [])
                assert world.crashes or not exposure.estimated, "an estimate although every answer was seen"
                assert exposure.estimated or [exposure.created] == truth, "a time that is not the real one"
                assert exposure.created <= min(truth, default=exposure.created), (
                    "it began earlier than it says"
                )


def check_answers(world: World) -> None:
    """What holds of the requests of pods after every event."""
    pods = [world.requests[uid].pod_uid for uid in world.answered]
    assert len(set(pods)) == len(pods), "a pod was given its values twice"
    assert not world.emptied, "a pod that waits for its values was answered with nothing"
    # Another pod in the place of the one with the values ends with its attempt.
    refused = [
        item
        for item in world.requests.values()
        if item.state == "Denied" and "another pod of this attempt" not in item.message
    ]
    newest = [item for item in refused if item == world.newest_of(item.pod_uid)]
    assert not newest, "the kubelet's own request was refused, so that it does nothing more for the pod"
    recorded = {
        attempt.sealed.request
        for status in world.run.status.tasks
        for attempt in status.attempts
        if attempt.sealed is not None
    }
    assert recorded >= set(world.answered), "an answer that the status does not speak of"
