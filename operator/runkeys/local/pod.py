"""Processes in place of the containers of a pod: what the kubelet does, for one pod on this machine."""

from __future__ import annotations

import os
import queue
import re
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from runkeys.local.process import Process
from runkeys.local.volumes import POOLS, Volumes, field_of
from runkeys.names import FOLDER_VARIABLES, RUNTIME, RUNTIME_VARIABLE, SECRETS_VARIABLE, TASK_VARIABLE
from runkeys.planning.observation import ContainerView, PodView, Role
from runkeys.planning.readers import shape_of

Json = dict[str, Any]

_GRACE = 30
"""Seconds that Kubernetes grants if a template does not say."""

_EXPANSION = re.compile(r"\$\$|\$\(([^)]*)\)")


@dataclass
class LocalPod:
    """Processes in place of the containers of a pod.

    Everything but reading and waiting is done by the thread that runs the plan.

    :ivar folder: a new folder of this pod alone. It is deleted when the pod has ended.
    :ivar private: variables of the user that no container gets, because they hold secrets of the run.
    """

    name: str
    namespace: str
    job_uid: str
    task: str
    template: Mapping[str, Any]
    folder: Path
    cwd: Path
    private: Collection[str]
    line: Callable[[str, bytes], None]
    events: queue.SimpleQueue[Callable[[], None]]
    ended: Callable[[], None] = lambda: None
    started_at: datetime | None = None
    view: PodView = field(init=False)

    def __post_init__(self) -> None:
        spec = self.template["spec"]
        self._waiting: list[Json] = list(spec.get("initContainers") or [])
        self._main: list[Json] = list(spec["containers"])
        self._places: dict[str, dict[str, Path]] = {}
        self._volumes: Volumes | None = None
        self._running: dict[str, Process] = {}
        self._values: dict[str, bytes] = {}
        self._stopping = False
        self._last_call: threading.Timer | None = None
        self.view = PodView(
            f"{self.name}-local",
            str(uuid4()),
            self.job_uid,
            now(),
            "Pending",
            spec["serviceAccountName"],
            tuple(
                ContainerView(item["name"], str(item.get("image", "")), role=role)
                for role, found in ((Role.INIT, self._waiting), (Role.MAIN, self._main))
                for item in found
            ),
            shape=shape_of(spec),
            deadline_seconds=spec.get("activeDeadlineSeconds"),
        )

    def start(self, values: Mapping[str, bytes]) -> None:
        """Everything that it needs is there."""
        self._values = dict(values)
        self.started_at = now()
        if self._stopping:
            return
        self.view = replace(self.view, phase="Running")
        self._volumes = Volumes(self.folder, self.template, self._metadata(), self.cwd / POOLS, self._values)
        for number, container in enumerate((*self._waiting, *self._main)):
            self._places[container["name"]] = self._volumes.of_container(number, container)
        self._go_on()

    def forget(self) -> None:
        """The values are no longer needed. Their files stay until the pod has ended, as in the cluster."""
        self._values = {}

    def stop(self) -> None:
        """End it as the kubelet does: SIGTERM first, then SIGKILL when the grace period has passed."""
        if self.view.over or self._stopping:
            return
        self._stopping = True
        grace = self.template["spec"].get("terminationGracePeriodSeconds")
        for process in self._running.values():
            process.terminate()
        if self._running:
            self._last_call = threading.Timer(float(_GRACE if grace is None else grace), self.kill)
            self._last_call.daemon = True
            self._last_call.start()
        else:
            self._over()

    def kill(self) -> None:
        """End it at once."""
        for process in list(self._running.values()):
            process.kill()

    def wait(self) -> None:
        """Wait for the end of all processes."""
        for process in list(self._running.values()):
            process.wait()

    def _go_on(self) -> None:
        if self._waiting:
            self._launch(self._waiting[0])
        else:
            for container in self._main:
                self._launch(container)

    def _launch(self, container: Json) -> None:
        name, places = container["name"], self._places[container["name"]]
        own = self._environment(container, places)
        secret = self._secret_names(container)
        plain = {key: value for key, value in own.items() if key not in secret}
        words = [str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ()))]
        words = [_expanded(_moved(word, places), plain) for word in words]
        workdir = _moved(str(container.get("workingDir") or ""), places)
        folder = Path(workdir) if workdir and Path(workdir).is_dir() else self.cwd
        self._running[name] = Process(
            words,
            environment=self._of_user(places) | own,
            folder=folder,
            remove=self.folder.parent,
            line=lambda text: self.line(self.task, text),
            ended=lambda code: self.events.put(lambda: self._container_ended(container, code)),
        )
        self._change(name, started=True)

    def _container_ended(self, container: Json, code: int) -> None:
        name = container["name"]
        self._running.pop(name, None)
        output = ""
        if "terminationMessagePath" in container and self._volumes is not None:
            output = self._volumes.output()
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
        if self._last_call is not None:
            self._last_call.cancel()
        well = not self._stopping and all(item.exit_code == 0 for item in self.view.containers)
        self.view = replace(self.view, phase="Succeeded" if well else "Failed")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.ended()

    def _change(self, name: str, **changes: Any) -> None:
        containers = tuple(
            replace(item, **changes) if item.name == name else item for item in self.view.containers
        )
        self.view = replace(self.view, containers=containers)

    def _metadata(self) -> Json:
        """The pod's metadata, for what refers to it."""
        return {
            **(self.template.get("metadata") or {}),
            "name": self.view.name,
            "namespace": self.namespace,
            "uid": self.view.uid,
        }

    def _of_user(self, places: Mapping[str, Path]) -> dict[str, str]:
        """Variables of the user who starts the run, without those that hold secrets or are about a task."""
        mine = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("SECRET_") and key not in self.private
        }
        for name in (TASK_VARIABLE, SECRETS_VARIABLE):
            mine.pop(name, None)
        # `python3` is the one that runs this, with what is installed beside it.
        mine["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), mine.get("PATH", os.defpath)])
        mine[RUNTIME_VARIABLE] = str(places[RUNTIME])
        # The qhub runtime knows these, and a service's own ones are not for what runs here.
        mine |= {name: str(places[RUNTIME] / kind) for kind, name in FOLDER_VARIABLES.items()}
        mine["PYTHONUNBUFFERED"] = "1"
        return mine

    def _environment(self, container: Json, places: Mapping[str, Path]) -> dict[str, str]:
        """The variables of the container itself. Only these are known to `$(NAME)`, as in the cluster."""
        own: dict[str, str] = {}
        for item in container.get("env") or []:
            origin = item.get("valueFrom") or {}
            if "secretKeyRef" in origin:
                own[item["name"]] = os.fsdecode(self._values[origin["secretKeyRef"]["key"]])
            elif "fieldRef" in origin:
                own[item["name"]] = self._field(origin["fieldRef"]["fieldPath"])
            else:
                own[item["name"]] = _expanded(_moved(str(item.get("value") or ""), places), own)
        return own

    def _field(self, path: str) -> str:
        if path == "spec.serviceAccountName":
            return str(self.template["spec"]["serviceAccountName"])
        return field_of(path, self._metadata()) or ""

    @staticmethod
    def _secret_names(container: Json) -> set[str]:
        return {
            item["name"]
            for item in container.get("env") or []
            if "secretKeyRef" in (item.get("valueFrom") or {})
        }


def now() -> datetime:
    """The time: here the only clock is this machine's."""
    return datetime.now(UTC)


def _moved(text: str, places: Mapping[str, Path]) -> str:
    """The text with the paths of a container replaced by those of here."""
    for path in sorted(places, key=len, reverse=True):
        here = str(places[path]).replace("\\", r"\\")
        text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?![\w.-])", here, text)
    return text


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """The text with `$(NAME)` replaced, as Kubernetes does it; what is not known stays."""
    return _EXPANSION.sub(lambda found: "$" if found[1] is None else variables.get(found[1], found[0]), text)
