"""A WorkflowRun as processes on this machine, for a laptop without a cluster.

It is the operator's own :func:`runkeys.planning.plan.plan` that says what happens next, and its own manifests that are
run; only who carries it out is another. So retries, order, deadlines, tasks that run Always, what is refused and what
the status says are the same. Different, plainly:

* A container is a process: its ``command`` and ``args``, in the current folder. Its image is not looked at. When it
  ends, all that it started ends (on Linux; elsewhere its process group).
* ``/var/runtime`` is a temporary folder. ``RUNKEYS_RUNTIME_DIR`` names it, and in ``command``, ``args`` and ``env``
  the one is written for the other. Data pools are folders in ``input/``.
* A process also has the variables of the user who starts it, except ``SECRET_*`` and the names under which
  tasks of the run have secrets.
* What a process cannot have (`runkeys.local.limits`) is refused, or listed in :attr:`LocalRun.notes`.
"""

from __future__ import annotations

import copy
import json
import os
import queue
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from runkeys._text.times import to_seconds
from runkeys.api import WorkflowRun, offline
from runkeys.client.submission import LOCAL, parse_run, refusals, take_secrets
from runkeys.local import limits
from runkeys.local.pod import Json, LocalPod, now
from runkeys.local.stores import Lease, UserStore
from runkeys.local.values import Material, Values, known_bindings
from runkeys.local.volumes import POOLS
from runkeys.mapping import SECRETS
from runkeys.masking import MASK, Masker
from runkeys.names import LABEL_TASK
from runkeys.planning import memory
from runkeys.planning.actions import (
    Action,
    CheckSources,
    CreateJob,
    DeleteJob,
    DeleteSecret,
    Diagnose,
    EnsureSecret,
    PatchStatus,
    PurgeInput,
)
from runkeys.planning.memory import Memory
from runkeys.planning.observation import JobState, JobView, Observation
from runkeys.planning.plan import plan
from runkeys.planning.requirements import SecretReference, variable_of
from runkeys.problems import Invalid, NotFound


class LocalRun:
    """One run. :meth:`execute` runs it to its end; :meth:`cancel` may be called meanwhile.

    :ivar run: as the API server would have it, with its status.
    :ivar left: after the end: leases that could not be revoked, for people.
    :ivar revoking: it ends, and leases are being revoked.
    :ivar notes: what the manifest asks for and a local run does not do, for people.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        values: Values,
        *,
        bindings: Sequence[Mapping[str, Any]] = (),
        folder: Path | None = None,
        print_line: Callable[[str, str], None] = lambda _task, _line: None,
        changed: Callable[[WorkflowRun], None] = lambda _run: None,
    ) -> None:
        """Check everything; nothing is started.

        :param manifest: a WorkflowRun. ``$secrets`` in its input are values for ``secrets: [{name, input}]``.
        :param values: the others, by variable (``SECRET_API_TOKEN``), by ``SECRET_`` and the name of the secret in
            its binding, or by that name. What comes first in this order counts.
        :param bindings: manifests of SecretBindings, for templates, and for entries of stores, which are read with the
            user's own login. ``values`` count more.
        :param folder: where processes run, and data pools are looked for. Default: the current one.
        :param print_line: is given each line that a task prints, masked, with the task's name.
        :raises Invalid: the run cannot work as written: the API server, the operator or a local run refuses it.
        :raises NotFound: a value or a data pool is missing.
        """
        self.run, own = as_stored(manifest)
        self._folder = folder or Path.cwd()
        self._print, self._changed = print_line, changed
        known = known_bindings(self.run, bindings)
        self._material = Material(self.run, known, values, own, lambda: UserStore(os.environ, Path.home()))
        self._masker = Masker(self._material.seen)
        self._check_places()
        self.notes = limits.notes(self.run)
        self._jobs: dict[str, JobView] = {}
        self._pods: dict[str, LocalPod] = {}
        self._leases: dict[str, list[Lease]] = {}
        self._unrevoked: list[Lease] = []
        self.left: list[str] = []
        self.revoking = False
        self._memory = Memory()
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._failure: BaseException | None = None

    def execute(self) -> WorkflowRun:
        """Run all tasks and return the run as it ended, masked. An exception in the middle kills its processes.

        If ``print_line`` raises, the run is cancelled, and the exception is raised again when all has ended.
        """
        with tempfile.TemporaryDirectory(prefix="runkeys-", ignore_cleanup_errors=True) as name:
            self._root = Path(name)
            try:
                while not self._settled():
                    pass
                # What was cancelled has its grace period still.
                while not all(pod.view.over for pod in self._pods.values()):
                    self._events.get()()
            finally:
                for pod in self._pods.values():
                    pod.kill()
                for pod in self._pods.values():
                    pod.wait()
                self._revoke_all()
        if self._failure is not None:
            raise self._failure
        return self._masked()

    def shown(self, manifest: Mapping[str, Any]) -> Json:
        """The manifest without values: those of its ``$secrets`` and all others that the run has."""
        copied = copy.deepcopy(dict(manifest))
        given = (copied.get("spec") or {}).get("input") or {}
        if SECRETS in given:
            given[SECRETS] = dict.fromkeys(given[SECRETS], MASK)
        return cast("Json", self._without_values(copied))

    def cancel(self) -> None:
        """Stop it, as `spec.cancel` does. May be called from a signal handler or another thread."""

        def change() -> None:
            self.run = self.run.model_copy(update={"spec": self.run.spec.model_copy(update={"cancel": True})})

        self._events.put(change)

    # what the operator does

    def _settled(self) -> bool:
        """One step: act, or wait for an event. True once nothing is left to do."""
        observation = Observation(
            self.run,
            self._material.bindings,
            dict(self._jobs),
            tuple(pod.view for pod in self._pods.values()),
            self._memory,
            fresh=True,
        )
        step = plan(observation, now())
        if step.status is not None:
            self._memory = memory.note_staleness(self._memory, now(), stale=step.stale)
        for action in step.actions:
            self._act(action)
        if step.actions:
            return False
        if self.run.status.finished:
            return True
        try:
            self._events.get(timeout=min(step.look_again or 1.0, 1.0))()
        except queue.Empty:
            self._end_overdue()
        return False

    def _act(self, action: Action) -> None:
        match action:
            case CheckSources():
                self._memory = memory.sources_checked(self._memory, now(), None)
            case CreateJob(_, manifest):
                self._create_job(manifest)
            case EnsureSecret(_, name, uid, _, references, intent):
                if intent is not None:
                    self._patch(intent)
                self._memory = memory.secret_created(self._memory, uid, now(), certain=True)
                self._pods[name].start(self._values(name, references))
            case DeleteSecret(name, uid):
                self._memory = memory.secret_gone(self._memory, uid, now())
                if name in self._pods:
                    self._pods[name].forget()
            case DeleteJob(name, _):
                self._pods[name].stop()
                self._jobs[name] = replace(self._jobs[name], deleting=True)
            case Diagnose(task):
                self._memory = memory.diagnosed(self._memory, task, now(), None)
            case PatchStatus(status):
                self._patch(status)
            case PurgeInput():
                spec = self.run.spec.model_copy(update={"sealed_input": {}})
                self.run = self.run.model_copy(update={"spec": spec})
            case _:
                raise AssertionError(f"{type(action).__name__} is nothing that a local run needs")

    def _values(self, name: str, references: Sequence[SecretReference]) -> dict[str, bytes]:
        """Those of the attempt whose Job is called ``name``. What it leases is revoked when its pod has ended."""
        found = self._material.of_attempt(references, self._leases.setdefault(name, []))
        self._masker = Masker(
            self._material.seen
        )  # another one: threads that print use the one that they have
        return found

    def _revoke(self, leases: list[Lease]) -> None:
        """Revoke them. Those that cannot be revoked now are tried again at the end."""
        while leases:
            lease = leases.pop()
            if self._material.revoke(lease):
                self._unrevoked.append(lease)

    def _revoke_all(self) -> None:
        self.revoking = True
        for leases in self._leases.values():
            self._revoke(leases)
        for lease in self._unrevoked:
            why = self._material.revoke(lease)
            if why:
                until = to_seconds(lease.expires)
                self.left.append(f"lease {lease.id} is not revoked, and ends at {until} at the latest: {why}")
        self._unrevoked = []
        self.revoking = False

    def _patch(self, status: Any) -> None:
        stored = type(status).model_validate(status.to_wire())
        self.run = self.run.model_copy(update={"status": stored})
        self._changed(self._masked())

    def _masked(self) -> WorkflowRun:
        """The run without values that tasks wrote into their output, or somebody into the manifest."""
        tasks = [
            task.model_copy(
                update={
                    "message": self._masker.mask(task.message),
                    "output": self._without_values(task.output),
                }
            )
            for task in self.run.status.tasks
        ]
        conditions = [
            item.model_copy(update={"message": self._masker.mask(item.message)})
            for item in self.run.status.conditions
        ]
        status = self.run.status.model_copy(update={"tasks": tasks, "conditions": conditions})
        spec = self.run.spec.model_copy(update={"input": self._without_values(self.run.spec.input)})
        return self.run.model_copy(update={"status": status, "spec": spec})

    def _without_values(self, document: Any) -> Any:
        if isinstance(document, dict):
            return {self._masker.mask(str(key)): self._without_values(item) for key, item in document.items()}
        if isinstance(document, list):
            return [self._without_values(item) for item in document]
        if isinstance(document, str):
            return self._masker.mask(document)
        text = json.dumps(document, default=str)
        return document if self._masker.mask(text) == text else MASK

    # what the cluster does

    def _create_job(self, manifest: Mapping[str, Any]) -> None:
        name, template = manifest["metadata"]["name"], manifest["spec"]["template"]
        uid = str(uuid4())
        self._jobs[name] = JobView(
            name,
            uid,
            self.run.metadata.uid,
            now(),
            deadline_seconds=template["spec"].get("activeDeadlineSeconds"),
            ttl_seconds=manifest["spec"]["ttlSecondsAfterFinished"],
        )
        task = manifest["metadata"]["labels"][LABEL_TASK]
        self._memory = memory.job_created(self._memory, task, uid)
        pod = LocalPod(
            name,
            self.run.metadata.namespace,
            uid,
            task,
            template,
            Path(tempfile.mkdtemp(dir=self._root)),
            self._folder,
            self._private,
            self._line,
            self._events,
        )
        self._pods[name] = pod
        pod.ended = lambda: self._job_ended(name)
        if not any(item.secrets for item in self.run.spec.tasks if item.name == task):
            pod.start({})

    def _job_ended(self, name: str) -> None:
        job, pod = self._jobs[name], self._pods[name]
        self._revoke(self._leases.get(name, []))
        if job.deleting:
            self._jobs[name] = replace(job, gone=True)
            return
        state = JobState.SUCCEEDED if pod.view.phase == "Succeeded" else JobState.FAILED
        self._jobs[name] = replace(job, state=state, finished_at=now())

    def _end_overdue(self) -> None:
        for name, job in self._jobs.items():
            pod = self._pods[name]
            if job.deadline_seconds is None or pod.started_at is None or pod.view.over:
                continue
            if pod.started_at + timedelta(seconds=job.deadline_seconds) <= now():
                pod.view = replace(pod.view, reason="DeadlineExceeded")
                pod.stop()

    def _line(self, task: str, text: bytes) -> None:
        if self._failure is not None:
            return
        try:
            self._print(task, self._masker.mask_bytes(text).decode(errors="replace"))
        except BaseException as error:  # noqa: BLE001 -- it is raised again by the thread that runs the plan
            self._failure = error
            self.cancel()

    @property
    def _private(self) -> set[str]:
        """Variables with secrets, of whichever task: another one that the user has of such a name is none of theirs."""
        return {variable_of(item) for task in self.run.spec.tasks for item in task.secrets}

    def _check_places(self) -> None:
        for task in self.run.spec.tasks:
            for pool in task.data_pools:
                if not (self._folder / POOLS / pool.name).is_dir():
                    raise NotFound(
                        f"task {task.name} needs the data pool {pool.name}: put it into {POOLS}/{pool.name}"
                    )


def as_stored(manifest: Mapping[str, Any]) -> tuple[WorkflowRun, dict[str, str]]:
    """The run as the API server would have it, and its ``$secrets``.

    :raises Invalid: the API server refuses it, or it cannot run without a cluster; in the API server's words.
    """
    _check({**manifest, "metadata": _named(manifest.get("metadata"))})
    made, own = take_secrets(manifest)
    metadata, spec = _named(made.get("metadata")), dict(made["spec"])
    brought = spec.get("sealedInput") or {}
    spec |= {"requester": {"username": "local", "groups": []}}
    if own:
        spec["sealedInput"] = {**brought, **dict.fromkeys(own, LOCAL)}
    made |= {"metadata": metadata, "spec": spec}
    made.pop("status", None)
    _check(made)  # again, with what stands for $secrets
    if brought:
        raise Invalid(
            f"spec.sealedInput: {', '.join(sorted(brought))} can be opened only in the cluster; for a local run give"
            f" the values as {SECRETS} in --input"
        )
    spec.pop("ttlSecondsAfterFinished", None)
    metadata |= {"uid": str(uuid4()), "generation": 1, "creationTimestamp": now().isoformat()}
    run = parse_run({**made, "status": {}})
    refused = limits.refusals(run)
    if refused:
        raise Invalid("a local run cannot have all of this:\n" + "\n".join(f"  {item}" for item in refused))
    return _without_delivery(run), own


def _named(metadata: Any) -> Any:
    """Metadata with a name and a namespace. What is no object is for the check to say."""
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        return metadata
    made = {"namespace": "local", **metadata}
    if not made.get("name"):
        made["name"] = f"{made.pop('generateName', None) or 'local-'}{uuid4().hex[:6]}"
    return made


def _check(made: Mapping[str, Any]) -> None:
    problems = offline.refusals(WorkflowRun, made)
    if problems:
        lines = [*problems, *_hints(made, problems)]
        raise Invalid("the API server would refuse the run:\n" + "\n".join(f"  {item}" for item in lines))


def _hints(made: Mapping[str, Any], problems: Sequence[str]) -> list[str]:
    """What the operator would say of the same fields: it knows the whole run, and may know what was meant."""
    try:
        run = parse_run({**made, "status": {}})
    except Invalid:
        return []
    fields = {item.partition(": ")[0] for item in problems}
    return [str(item) for item in refusals(run) if item.field in fields]


def _without_delivery(run: WorkflowRun) -> WorkflowRun:
    """Here values go from this process into those of the tasks, whichever way a cluster would take."""
    tasks = [task.model_copy(update={"delivery": None}) for task in run.spec.tasks]
    return run.model_copy(update={"spec": run.spec.model_copy(update={"tasks": tasks})})
