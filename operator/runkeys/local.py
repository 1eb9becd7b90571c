"""A WorkflowRun as processes on this machine, for a laptop without a cluster.

It is the operator's own :func:`runkeys.plan.plan` that says what happens next, and its own manifests that are run;
only who carries it out is another. So retries, order, deadlines, tasks that run Always, what is refused and what the
status says are the same. Different, plainly:

* A container is a process: its ``command`` and ``args``, in the current folder. Its image is not looked at.
* ``/var/runtime`` is a temporary folder. ``RUNKEYS_RUNTIME_DIR`` names it, and in ``command``, ``args`` and ``env``
  the one is written for the other. Data pools are folders in ``datapools/``.
* A process has the variables of whoever starts it too, but for ``SECRET_*``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from runkeys.actions import (
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
from runkeys.api import WorkflowRun
from runkeys.kubelet import RUNTIME
from runkeys.mapping import SECRETS
from runkeys.masking import Masker
from runkeys.naming import LABEL_TASK, secret_variable
from runkeys.needs import Bindings, SecretReference, TaskNeeds, task_needs
from runkeys.observation import ContainerView, Finding, JobState, JobView, Memory, Observation, PodView
from runkeys.plan import plan
from runkeys.problems import Invalid, NotFound
from runkeys.readers import shape_of
from runkeys.status import finished
from runkeys.submission import LOCAL, assumed_bindings, parse_run, refusals, take_secrets

Json = dict[str, Any]
Values = Mapping[str, str]

RUNTIME_VARIABLE = "RUNKEYS_RUNTIME_DIR"
POOLS = "datapools"
_OUTPUT_KEPT = 4096
"""Bytes of the end of an output that the kubelet keeps."""

_EXPANSION = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


class LocalRun:
    """One run. :meth:`execute` runs it to its end; :meth:`cancel` may be called meanwhile.

    :ivar run: as the API server would have it, with its status.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        values: Values,
        *,
        folder: Path | None = None,
        print_line: Callable[[str, str], None] = lambda _task, _line: None,
        changed: Callable[[WorkflowRun], None] = lambda _run: None,
    ) -> None:
        """Check everything; nothing is started.

        :param manifest: a WorkflowRun. ``$secrets`` in its input are values for ``secrets: [{name, input}]``.
        :param values: the others, by variable (``SECRET_API_TOKEN``), by ``SECRET_`` and the name of the secret in
            its binding, or by that name. What comes first in this order counts.
        :param folder: where processes run, and data pools are looked for. Default: the current one.
        :param print_line: is given each line that a task prints, masked, with the task's name.
        :raises Invalid: it cannot work as it is written.
        :raises NotFound: a value or a data pool is missing.
        """
        made, own = take_secrets(manifest)
        self.run = _without_delivery(_as_stored(made, own))
        self._bindings = assumed_bindings(self.run)
        self._folder = folder or Path.cwd()
        self._print, self._changed = print_line, changed
        self._material = _resolve(self.run, self._bindings, values, own)
        self._masker = Masker(self._material.values())
        self._check_places()
        self._jobs: dict[str, JobView] = {}
        self._pods: dict[str, _Pod] = {}
        self._memory = Memory()
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def execute(self) -> WorkflowRun:
        """Run all tasks and return the run as it ended. An exception in the middle kills its processes."""
        with tempfile.TemporaryDirectory(prefix="runkeys-") as name:
            self._root = Path(name)
            try:
                while not self._settled():
                    pass
            finally:
                for pod in self._pods.values():
                    pod.kill()
        return self.run

    def cancel(self) -> None:
        """Stop it, as `spec.cancel` does. May be called from a signal handler or another thread."""

        def change() -> None:
            self.run = self.run.model_copy(update={"spec": self.run.spec.model_copy(update={"cancel": True})})

        self._events.put(change)

    # what the operator does

    def _settled(self) -> bool:
        """One step: act, or wait for something to happen. True once nothing is left."""
        observation = Observation(
            self.run,
            self._bindings,
            dict(self._jobs),
            tuple(pod.view for pod in self._pods.values()),
            self._memory,
            fresh=True,
        )
        step = plan(observation, _now())
        if step.status is not None:
            since = (self._memory.stale_since or _now()) if step.stale else None
            self._memory = replace(self._memory, stale_since=since)
        for action in step.actions:
            self._act(action)
        if step.actions:
            return False
        if finished(self.run.status):
            return True
        try:
            self._events.get(timeout=min(step.look_again or 1.0, 1.0))()
        except queue.Empty:
            self._end_overdue()
        return False

    def _act(self, action: Action) -> None:
        match action:
            case CheckSources():
                self._memory = replace(self._memory, sources=Finding(_now(), None))
            case CreateJob(_, manifest):
                self._create_job(manifest)
            case EnsureSecret(_, name, uid, _, references, intent):
                if intent is not None:
                    self._patch(intent)
                secret = replace(self._memory.of(uid), made_at=_now(), estimated=False)
                self._memory = self._memory.with_secret(uid, secret)
                self._pods[name].start({item.key: self._material[item.field] for item in references})
            case DeleteSecret(name, uid):
                secret = self._memory.of(uid)
                gone = replace(secret, gone_at=secret.gone_at or _now(), last_delete=_now())
                self._memory = self._memory.with_secret(uid, gone)
                if name in self._pods:
                    self._pods[name].forget()
            case DeleteJob(name, _):
                self._pods[name].stop()
                self._jobs[name] = replace(self._jobs[name], deleting=True)
            case Diagnose(task):
                found = replace(self._memory.about(task), waiting=Finding(_now(), None))
                self._memory = self._memory.with_task(task, found)
            case PatchStatus(status):
                self._patch(status)
            case PurgeInput():
                spec = self.run.spec.model_copy(update={"sealed_input": {}})
                self.run = self.run.model_copy(update={"spec": spec})
            case _:
                raise AssertionError(f"{type(action).__name__} is nothing that a local run needs")

    def _patch(self, status: Any) -> None:
        stored = type(status).model_validate(status.to_wire())
        self.run = self.run.model_copy(update={"status": stored})
        self._changed(self.run)

    # what the cluster does

    def _create_job(self, manifest: Mapping[str, Any]) -> None:
        name, template = manifest["metadata"]["name"], manifest["spec"]["template"]
        uid = str(uuid4())
        self._jobs[name] = JobView(
            name,
            uid,
            self.run.metadata.uid,
            _now(),
            deadline_seconds=template["spec"].get("activeDeadlineSeconds"),
            ttl_seconds=manifest["spec"]["ttlSecondsAfterFinished"],
        )
        self._memory = replace(self._memory, jobs_made=self._memory.jobs_made | {uid})
        task = manifest["metadata"]["labels"][LABEL_TASK]
        pod = _Pod(name, uid, task, template, self._root / name, self._folder, self._line, self._events)
        self._pods[name] = pod
        pod.ended = lambda: self._job_ended(name)
        if not any(item.secrets for item in self.run.spec.tasks if item.name == task):
            pod.start({})

    def _job_ended(self, name: str) -> None:
        job, pod = self._jobs[name], self._pods[name]
        if job.deleting:
            self._jobs[name] = replace(job, gone=True)
            return
        state = JobState.SUCCEEDED if pod.view.phase == "Succeeded" else JobState.FAILED
        self._jobs[name] = replace(job, state=state, finished_at=_now())

    def _end_overdue(self) -> None:
        for name, job in self._jobs.items():
            pod = self._pods[name]
            if job.deadline_seconds is None or pod.started_at is None or pod.view.over:
                continue
            if pod.started_at + timedelta(seconds=job.deadline_seconds) <= _now():
                pod.view = replace(pod.view, reason="DeadlineExceeded")
                pod.stop()

    def _line(self, task: str, text: str) -> None:
        self._print(task, self._masker.mask(text))

    def _check_places(self) -> None:
        for task in self.run.spec.tasks:
            for pool in task.data_pools:
                if not (self._folder / POOLS / pool.name).is_dir():
                    raise NotFound(
                        f"task {task.name} needs the data pool {pool.name}: put it into {POOLS}/{pool.name}"
                    )
            for container in task.template["spec"]["containers"]:
                if not container.get("command") and not container.get("args"):
                    raise Invalid(
                        f"task {task.name}: container {container['name']} has no command, and locally nothing is"
                        " known of its image's own; write command"
                    )


@dataclass
class _Pod:
    """Processes in place of the containers of a pod.

    Everything but reading and waiting is done by the thread that runs the plan.
    """

    name: str
    job_uid: str
    task: str
    template: Mapping[str, Any]
    folder: Path
    cwd: Path
    line: Callable[[str, str], None]
    events: queue.SimpleQueue[Callable[[], None]]
    ended: Callable[[], None] = lambda: None
    started_at: datetime | None = None
    view: PodView = field(init=False)

    def __post_init__(self) -> None:
        spec = self.template["spec"]
        self._waiting: list[Json] = list(spec.get("initContainers") or [])
        self._main: list[Json] = list(spec["containers"])
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._values: dict[str, bytes] = {}
        self._stopping = False
        self.view = PodView(
            f"{self.name}-local",
            str(uuid4()),
            self.job_uid,
            _now(),
            "Pending",
            spec["serviceAccountName"],
            tuple(
                ContainerView(item["name"], str(item.get("image", "")))
                for item in (*self._waiting, *self._main)
            ),
            shape=shape_of(spec),
            deadline_seconds=spec.get("activeDeadlineSeconds"),
        )

    def start(self, values: Mapping[str, bytes]) -> None:
        """Everything that it needs is there."""
        self._values = dict(values)
        self.started_at = _now()
        if not self._stopping:
            self.view = replace(self.view, phase="Running")
            self._go_on()

    def forget(self) -> None:
        """The values are needed no more: files with them go too, as the kubelet takes them with the pod."""
        self._values = {}

    def stop(self) -> None:
        """End it as the kubelet does: first asked, then made to."""
        if self.view.over or self._stopping:
            return
        self._stopping = True
        grace = min(float(self.template["spec"].get("terminationGracePeriodSeconds", 30)), 30.0)
        for process in self._running.values():
            _signal(process, signal.SIGTERM)
        if self._running:
            timer = threading.Timer(grace, self.kill)
            timer.daemon = True
            timer.start()
        else:
            self._over()

    def kill(self) -> None:
        """End it at once."""
        for process in list(self._running.values()):
            _signal(process, signal.SIGKILL)

    def _go_on(self) -> None:
        if self._waiting:
            self._launch(self._waiting[0])
        else:
            for container in self._main:
                self._launch(container)

    def _launch(self, container: Json) -> None:
        name = container["name"]
        places = self._places(container)
        environment = self._environment(container, places)
        words = [str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ()))]
        plain = {key: value for key, value in environment.items() if key not in self._secret_names(container)}
        words = [_expanded(_moved(word, places), plain) for word in words]
        workdir = _moved(str(container.get("workingDir", "")), places)
        try:
            process = subprocess.Popen(
                words,
                cwd=workdir if workdir and Path(workdir).is_dir() else self.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # an interrupt is for the run, which ends its processes in order
            )
        except OSError as error:
            self.line(self.task, f"{words[0]} cannot be started: {error.strerror}")
            self.events.put(lambda: self._container_ended(container, 127))
            return
        self._running[name] = process
        self._change(name, started=True)
        reader = threading.Thread(target=self._read, args=(container, process, process.stdout), daemon=True)
        reader.start()

    def _read(self, container: Json, process: subprocess.Popen[str], output: IO[str]) -> None:
        with output:
            for text in output:
                self.line(self.task, text.rstrip("\n"))
        code = process.wait()
        self.events.put(lambda: self._container_ended(container, code if code >= 0 else 128 - code))

    def _container_ended(self, container: Json, code: int) -> None:
        name = container["name"]
        self._running.pop(name, None)
        output = ""
        if "terminationMessagePath" in container:
            path = self.folder / "runtime" / "output" / "output.json"
            output = path.read_bytes()[-_OUTPUT_KEPT:].decode(errors="replace") if path.is_file() else ""
        self._change(name, started=True, ended=True, exit_code=code, output=output)
        if self._waiting:
            del self._waiting[0]
            if code == 0 and not self._stopping:
                self._go_on()
            else:
                self._over()
        elif not self._running and all(item.ended for item in self.view.containers):
            self._over()

    def _over(self) -> None:
        well = not self._stopping and all(item.exit_code == 0 for item in self.view.containers)
        self.view = replace(self.view, phase="Succeeded" if well else "Failed")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.ended()

    def _change(self, name: str, **changes: Any) -> None:
        containers = tuple(
            replace(item, **changes) if item.name == name else item for item in self.view.containers
        )
        self.view = replace(self.view, containers=containers)

    # what a container finds

    def _places(self, container: Json) -> dict[str, Path]:
        """By path in the container where it is here, made and filled."""
        volumes = {item["name"]: item for item in self.template["spec"].get("volumes") or []}
        runtime = self.folder / "runtime"
        runtime.mkdir(parents=True, exist_ok=True)
        places = {RUNTIME: runtime}
        for mount in container.get("volumeMounts") or []:
            path, volume = str(mount["mountPath"]).rstrip("/"), volumes.get(mount["name"], {})
            if path.startswith(f"{RUNTIME}/"):
                place = runtime / path.removeprefix(f"{RUNTIME}/")
            else:
                place = places[path] = self.folder / "volumes" / str(mount["name"])
            if "persistentVolumeClaim" in volume:
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    place.symlink_to((self.cwd / POOLS / place.name).resolve())
                continue
            place.mkdir(parents=True, exist_ok=True)
            for name, content in self._files(volume):
                (place / name).write_bytes(content)
        return places

    def _files(self, volume: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        annotations = (self.template.get("metadata") or {}).get("annotations") or {}
        for item in (volume.get("downwardAPI") or {}).get("items") or []:
            found = re.fullmatch(r"metadata\.annotations\['(.*)'\]", item["fieldRef"]["fieldPath"])
            if found is not None:
                yield item["path"], str(annotations.get(found[1], "")).encode()
        for item in (volume.get("secret") or {}).get("items") or []:
            yield item["path"], self._values[item["key"]]

    def _environment(self, container: Json, places: Mapping[str, Path]) -> dict[str, str]:
        mine = {key: value for key, value in os.environ.items() if not key.startswith("SECRET_")}
        # `python3` is the one that runs this, with what is installed beside it.
        mine["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), mine.get("PATH", os.defpath)])
        mine[RUNTIME_VARIABLE] = str(places[RUNTIME])
        mine["PYTHONUNBUFFERED"] = "1"
        for item in container.get("env") or []:
            if "value" in item:
                mine[item["name"]] = _expanded(_moved(str(item["value"]), places), mine)
            elif "secretKeyRef" in (item.get("valueFrom") or {}):
                mine[item["name"]] = os.fsdecode(self._values[item["valueFrom"]["secretKeyRef"]["key"]])
        return mine

    @staticmethod
    def _secret_names(container: Json) -> set[str]:
        return {item["name"] for item in container.get("env") or [] if "valueFrom" in item}


def _now() -> datetime:
    return datetime.now(UTC)


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """To the process and those that it started, which are its group."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _moved(text: str, places: Mapping[str, Path]) -> str:
    """The text with the paths of a container replaced by those of here."""
    for path in sorted(places, key=len, reverse=True):
        here = str(places[path]).replace("\\", r"\\")
        text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?![\w.-])", here, text)
    return text


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """The text with `$(NAME)` replaced, as Kubernetes does it; what is not known stays."""
    return _EXPANSION.sub(lambda found: "$" if found[1] is None else variables.get(found[1], found[0]), text)


def _as_stored(made: Json, own: Values) -> WorkflowRun:
    """The run as the API server would have it."""
    metadata = dict(made.get("metadata") or {})
    metadata.setdefault("name", f"{metadata.get('generateName', 'local-')}{uuid4().hex[:6]}")
    metadata.setdefault("namespace", "local")
    metadata |= {"uid": str(uuid4()), "generation": 1, "creationTimestamp": _now().isoformat()}
    spec = dict(made["spec"])
    brought = sorted(set(spec.get("sealedInput") or {}) - set(own))
    if brought:
        raise Invalid(
            f"spec.sealedInput: {', '.join(brought)} opens in the cluster only; give the values locally as"
            f" {SECRETS} in --input"
        )
    spec |= {"requester": {"username": "local", "groups": []}}
    if own:
        spec["sealedInput"] = dict.fromkeys(own, LOCAL)
    spec.pop("ttlSecondsAfterFinished", None)
    return parse_run({**made, "metadata": metadata, "spec": spec, "status": {}})


def _without_delivery(run: WorkflowRun) -> WorkflowRun:
    """Here values go from this process into those of the tasks, whichever way a cluster would take."""
    tasks = [task.model_copy(update={"delivery": None}) for task in run.spec.tasks]
    return run.model_copy(update={"spec": run.spec.model_copy(update={"tasks": tasks})})


def _resolve(run: WorkflowRun, bindings: Bindings, values: Values, own: Values) -> dict[str, bytes]:
    """The value of each secret, by the field of the task that asks for it."""
    found: dict[str, bytes] = {}
    missing: list[str] = []
    problems = refusals(run, bindings)
    if problems:
        raise Invalid("the run cannot work as it is written:\n" + "\n".join(f"  {item}" for item in problems))
    for index, task in enumerate(run.spec.tasks):
        needs = task_needs(run, index, bindings)
        for reference in needs.references if isinstance(needs, TaskNeeds) else ():
            value = _value_of(reference, values, own)
            if value is None:
                missing.append(f"  task {task.name}, {reference.what}: {_names_of(reference)[0]}=…")
            else:
                found[reference.field] = value
    if missing:
        raise NotFound(
            "there is no value for these; write them into the file of --env-file:\n" + "\n".join(missing)
        )
    return found


def _value_of(reference: SecretReference, values: Values, own: Values) -> bytes | None:
    if not reference.binding:
        return os.fsencode(own[reference.entry])
    name = next((name for name in _names_of(reference) if name in values), None)
    return None if name is None else os.fsencode(values[name])


def _names_of(reference: SecretReference) -> Sequence[str]:
    names = [reference.variable, secret_variable(reference.entry), reference.entry]
    return [name for name in dict.fromkeys(names) if name]
