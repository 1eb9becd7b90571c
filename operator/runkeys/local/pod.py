"""Processes in place of the containers of a pod: what the kubelet does, for one pod on this machine."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from runkeys.names import RUNTIME, RUNTIME_VARIABLE
from runkeys.planning.observation import ContainerView, PodView, Role
from runkeys.planning.readers import shape_of

Json = dict[str, Any]

POOLS = "datapools"
_OUTPUT_KEPT = 4096
"""Bytes of the end of an output that the kubelet keeps."""

_EXPANSION = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


@dataclass
class LocalPod:
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
        if not self._stopping:
            self.view = replace(self.view, phase="Running")
            self._go_on()

    def forget(self) -> None:
        """The values are no longer needed: delete their files too, as the kubelet deletes them with the pod."""
        self._values = {}

    def stop(self) -> None:
        """End it as the kubelet does: SIGTERM first, then SIGKILL."""
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

    # the container's files and folders

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


def now() -> datetime:
    """The time: here the only clock is this machine's."""
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
