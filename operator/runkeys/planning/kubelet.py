"""The fields of a container by which the kubelet would make its secrets public: it expands them, or copies data out.

This is the only list. Planning refuses these fields for containers with secrets. The policy on pods is generated from
it, for pods that other people's admission has changed. The leak scan tries each of them as a way out for a value.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runkeys.names import RUNTIME, SECRET_PREFIX

OURS = "runkeys-"
"""Prefix of the names of Runkeys' volumes and containers in a pod."""

SECRETS_VOLUME = f"{OURS}secrets"
"""Name of the volume with the secrets that are files."""

OUTPUT = f"{RUNTIME}/output/output.json"
TERMINATION_LOG = "/dev/termination-log"
"""The kubelet copies the content of this path to the pod's status when the container ends."""

_COMMAND_LINE = (
    "would put a secret on the command line, which others on the node can read;"
    " read the variable in the program"
)

EXPANDED: Mapping[str, str] = {
    "command[]": _COMMAND_LINE,
    "args[]": _COMMAND_LINE,
    "env[].value": "copies a secret into another variable; give the secret that name with env instead",
    "volumeMounts[].subPathExpr": "would make a secret the name of a folder; the name stays on the node, and it"
    " is shown in the pod's status and in Events if the folder cannot be created;"
    " use subPath",
}
"""Fields of a container in which the kubelet expands ``$(NAME)``, and why the variable must not be a secret.

In the commands of probes it expands only variables with a plain value in the pod's spec, in those of hooks none.
"""

_TEKTON = "/tekton/termination"
"""Where Tekton's entrypoint writes when a step began, and the results that it wrote for everybody."""

_LOG = (
    "the kubelet copies the end of the log into the pod's status, where everybody who may read pods sees it;"
    " remove it"
)
_FILE = (
    "the kubelet copies that file into the pod's status, where everybody who may read pods sees it; remove it,"
    f" so that {TERMINATION_LOG} is used, or use recordOutput for output that everybody may see"
)
_PROBE = (
    "the kubelet puts the output of a failing command into an Event, and the command has the secrets; use"
    " httpGet, grpc or tcpSocket"
)
_HOOK = (
    "the kubelet puts the output of a failing command into its log and the pod's status, and the command has"
    " the secrets; let the program do it, or use httpGet or sleep"
)


@dataclass(frozen=True)
class Copied:
    """A field by which the kubelet copies data out of a container.

    :ivar path: of the field in the container. :ivar message: of the refusal.
    :ivar harmless: the value that it may have; empty: it has to be absent. :ivar ours: the value that Runkeys sets.
    :ivar of_engine: the value that a workflow engine sets, for a file of its own.
    """

    path: str
    message: str
    harmless: str = ""
    ours: str = ""
    of_engine: str = ""

    @property
    def admitted(self) -> list[str]:
        """The values that the field may have in a pod."""
        return [value for value in (self.harmless, self.ours, self.of_engine) if value]


COPIED = (
    Copied("terminationMessagePolicy", _LOG, "File"),
    Copied("terminationMessagePath", _FILE, TERMINATION_LOG, OUTPUT, _TEKTON),
    *(Copied(f"{probe}.exec", _PROBE) for probe in ("livenessProbe", "readinessProbe", "startupProbe")),
    *(Copied(f"lifecycle.{hook}.exec", _HOOK) for hook in ("postStart", "preStop")),
)

_EXPANSION = re.compile(r"\$\(([^()]+)\)")


def expansions(container: Mapping[str, Any], names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield path and message of each field of a container that would show one of the variables ``names``."""
    for path, message in EXPANDED.items():
        for where, text in _found(container, path):
            if any(name in names for name in references(text)):
                yield where, message


def left_as_text(container: Mapping[str, Any], names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Fields in which ``$(NAME)`` of a secret stays as it is written, since the container has no such variable.

    :param names: variables with secrets of the task.
    """
    if container.get("envFrom"):
        return  # may set any variable
    own = {variable["name"] for variable in container.get("env") or []}
    for path in EXPANDED:
        for where, text in _found(container, path):
            for name in references(text):
                if name not in own and is_secret(name, names):
                    yield where, name


def is_secret(name: str, names: Collection[str]) -> bool:
    """Whether a variable is, or is meant to be, one with a secret. ``names`` are those of the task."""
    return name in names or name.startswith(SECRET_PREFIX)


def references(text: object) -> list[str]:
    """The names that a text refers to as ``$(NAME)``; ``$$(NAME)`` is an escaped text."""
    return _EXPANSION.findall(text.replace("$$", "")) if isinstance(text, str) else []


def copies(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield path and message of each field by which the kubelet would copy data out of a container."""
    for field in COPIED:
        for where, value in _found(container, field.path):
            if value is not None and value != field.harmless:
                yield where, field.message


def is_taken(path: object) -> bool:
    """Whether a mount at this path would cover files of Runkeys, or be copied into the pod's status."""
    # The kubelet resolves a relative path from the root, and the runtime normalises it.
    place = posixpath.normpath("/" + str(path).lstrip("/"))
    return place == TERMINATION_LOG or f"{place}/".startswith(f"{RUNTIME}/")


def _found(node: object, path: str, at: str = "") -> Iterator[tuple[str, object]]:
    """Yield each item at a path like ``env[].value``: where it is, and its value. Another shape yields nothing."""
    head, _, rest = path.partition(".")
    key, is_list = head.removesuffix("[]"), head.endswith("[]")
    if not isinstance(node, Mapping) or key not in node:
        return
    here, value = f"{at}{key}", node[key]
    places: list[tuple[str, object]] = [(here, value)]
    if is_list:
        items = value if isinstance(value, list) else []
        places = [(f"{here}[{index}]", item) for index, item in enumerate(items)]
    for where, item in places:
        if rest:
            yield from _found(item, rest, f"{where}.")
        else:
            yield where, item
