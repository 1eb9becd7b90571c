"""What this process was given: folders, and secrets in variables and files.

A task of Runkeys knows which secrets it was given under which names: the operator, and a local run, put that into
two variables of its pod. Anywhere else a secret is found by the name of its variable alone.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from runkeys import masking
from runkeys.names import RUNTIME, RUNTIME_VARIABLE, SECRETS_VARIABLE, TASK_VARIABLE, secret_variable

# Those of the qhub runtime, so that one setting serves both.
_FOLDERS = {"input": "INPUT_DIRECTORY", "output": "OUTPUT_DIRECTORY", "datapool": "DATAPOOL_DIRECTORY"}
_read: dict[str, str] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Task:
    """Which task this is.

    :ivar secrets: by name what carries it: a variable, or ``file:`` and the name of a file.
    """

    name: str
    secrets: dict[str, str]


def task() -> Task | None:
    """The task that this process is, or None."""
    name = os.environ.get(TASK_VARIABLE)
    if not name:
        return None
    try:
        found = json.loads(os.environ.get(SECRETS_VARIABLE, "{}"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(  # noqa: TRY004 -- it is the text that is wrong
            f"the variable {SECRETS_VARIABLE} is no JSON object; leave it as Runkeys sets it"
        )
    return Task(name, {str(key): str(value) for key, value in found.items()})


def is_local() -> bool:
    """Whether this is a process on somebody's machine, and no pod."""
    return RUNTIME_VARIABLE in os.environ or "KUBERNETES_SERVICE_HOST" not in os.environ


def folder(kind: str) -> Path:
    """Where ``input``, ``output``, ``datapool`` or ``secrets`` are.

    Its own variable (INPUT_DIRECTORY, OUTPUT_DIRECTORY, DATAPOOL_DIRECTORY), else below RUNKEYS_RUNTIME_DIR, else below
    ``/var/runtime``. On a machine that has none of them, as services are tried out: ``./input`` for input and data
    pools, ``./output`` for output.
    """
    named = os.environ.get(_FOLDERS.get(kind, ""))
    if named:
        return Path(named)
    base = Path(os.environ.get(RUNTIME_VARIABLE) or RUNTIME)
    if RUNTIME_VARIABLE not in os.environ and not base.is_dir():
        return Path("input" if kind == "datapool" else kind)
    return base / kind


def variable(name: str) -> str | None:
    """The value of a variable with a secret; None if there is none. It is taken out of ``os.environ``.

    So no child process that is started later has it, unless it is handed on. Asking again gives it again. In a task, or
    any pod, it is masked in what this process prints from now on.
    """
    with _lock:
        value = os.environ.pop(name, None)
        if value is not None:
            _read[name] = value
            _mask(value)
        return _read.get(name)


def secret(name: str) -> str | None:
    """The value of a secret that this process was given, by its name; None if it was not."""
    known = task()
    declared = known.secrets if known is not None else {}
    secret_container = declared.get(name, secret_variable(name))
    if secret_container.startswith("file:"):
        return file(secret_container.removeprefix("file:"))
    return variable(secret_container)


def file(name: str) -> str | None:
    """The text of a file with a secret, byte by byte; None if there is none. Raises ValueError if it is no UTF-8."""
    path = folder("secrets") / name
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    _mask(raw)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    raise ValueError(f"{path} is no text in UTF-8: read the file itself, as bytes")


def _mask(value: str | bytes) -> None:
    masking.remember(value)
    # The log of a pod is read by others. On a laptop whoever prints a value wants to see it.
    if TASK_VARIABLE in os.environ or not is_local():
        masking.install()


def names() -> list[str]:
    """Names of the secrets that this process was given; none outside of a task."""
    known = task()
    return sorted(known.secrets) if known is not None else []
