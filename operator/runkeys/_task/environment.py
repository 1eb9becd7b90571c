"""The environment of a task's process: folders, and secrets in variables and files.

In a task, two variables hold the task's name and the names and places of its secrets. The operator, or a local run,
sets them. In any other process, a secret is found only by the name of its variable.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from runkeys import masking
from runkeys.names import (
    FOLDER_VARIABLES,
    RUNTIME,
    RUNTIME_VARIABLE,
    SECRETS_VARIABLE,
    TASK_VARIABLE,
    secret_variable,
)

_read: dict[str, str] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Task:
    """The task of this process.

    :ivar secrets: place of each secret by its name: a variable, or ``file:`` and the name of a file.
    """

    name: str
    secrets: dict[str, str]


def task() -> Task | None:
    """Return the task of this process, or None if it is not a task."""
    name = os.environ.get(TASK_VARIABLE)
    if not name:
        return None
    try:
        found = json.loads(os.environ.get(SECRETS_VARIABLE, "{}"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(  # noqa: TRY004 -- it is the text that is wrong
            f"the variable {SECRETS_VARIABLE} is not a JSON object; Runkeys sets it, so do not change it"
        )
    return Task(name, {str(key): str(value) for key, value in found.items()})


def is_local() -> bool:
    """Return whether this process runs on a user's machine and not in a pod."""
    return RUNTIME_VARIABLE in os.environ or "KUBERNETES_SERVICE_HOST" not in os.environ


def folder(kind: str) -> Path:
    """Return the folder of ``input``, ``output``, ``datapool`` or ``secrets``.

    The folder's own variable (INPUT_DIRECTORY, OUTPUT_DIRECTORY, DATAPOOL_DIRECTORY) gives its path. Without it, the
    folder is below RUNKEYS_RUNTIME_DIR, else below ``/var/runtime``. If none of these exists, as on a machine where a
    service is tried out, the current folder is used: ``./input`` for input and data pools, ``./output`` for output,
    ``./secrets`` for secrets.
    """
    named = os.environ.get(FOLDER_VARIABLES.get(kind, ""))
    if named:
        return Path(named)
    base = Path(os.environ.get(RUNTIME_VARIABLE) or RUNTIME)
    if RUNTIME_VARIABLE not in os.environ and not base.is_dir():
        return Path("input" if kind == "datapool" else kind)
    return base / kind


def variable(name: str) -> str | None:
    """Return the value of a variable with a secret, or None. The variable is removed from ``os.environ``.

    So child processes that are started later do not have it, unless it is passed to them. Further calls return the
    value again. In a task, or in any pod, this process masks the value in its output from now on.
    """
    with _lock:
        value = os.environ.pop(name, None)
        if value is not None:
            _read[name] = value
            _mask(value)
        return _read.get(name)


def secret(name: str) -> str | None:
    """Return the value of a secret of this process by name, or None if it does not have the secret."""
    known = task()
    declared = known.secrets if known is not None else {}
    secret_container = declared.get(name, secret_variable(name))
    if secret_container.startswith("file:"):
        return file(secret_container.removeprefix("file:"))
    return variable(secret_container)


def has_secret(name: str) -> bool:
    """Return whether this process has a secret with this name. Its value is not read."""
    known = task()
    place = (known.secrets if known is not None else {}).get(name, secret_variable(name))
    if place.startswith("file:"):
        return (folder("secrets") / place.removeprefix("file:")).is_file()
    return place in os.environ or place in _read


def file(name: str) -> str | None:
    """Return the unchanged text of a file with a secret, or None. Raises ValueError if it is not UTF-8."""
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
    raise ValueError(f"{path} is not UTF-8 text: read the file itself, as bytes")


def _mask(value: str | bytes) -> None:
    masking.remember(value)
    # Other users read a pod's log. On a laptop, a user who prints a value wants to see it.
    if TASK_VARIABLE in os.environ or not is_local():
        masking.install()


def names() -> list[str]:
    """Return the names of this process's secrets. Outside of a task the list is empty."""
    known = task()
    return sorted(known.secrets) if known is not None else []
