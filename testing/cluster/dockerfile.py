"""Reads operator/Dockerfile, so that the image of the tests, made without Docker, is made from the same lines."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class DockerfileError(ValueError):
    """The Dockerfile has a line that this module does not know. The message says which one."""


@dataclass(frozen=True)
class Recipe:
    """What operator/Dockerfile makes of the checkout.

    :ivar copies: from a file or folder of the checkout to its path in the image.
    :ivar lock: the lock file of the dependencies, a path in the checkout.
    :ivar dependencies: their folder in the image.
    """

    environment: dict[str, str]
    entrypoint: tuple[str, ...]
    user: str
    directory: str
    labels: dict[str, str]
    ports: tuple[str, ...]
    copies: dict[str, str]
    lock: str
    dependencies: str

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a Dockerfile of two stages: one that builds a folder, and one that copies it.

        :raises DockerfileError: it is no such file.
        """
        stages = list(_stages(path.read_text()))
        if len(stages) != 2:
            raise DockerfileError(f"{path} has {len(stages)} stages, expected 2")
        build, final = stages
        copied = _copies(build) | _copies(final)
        lock, dependencies = _installed(build)
        built = [words for words in _all(final, "COPY") if words[0].startswith("--from=")]
        if len(built) != 1 or built[0][1] != built[0][2]:
            raise DockerfileError(f"{path} does not copy one folder from its first stage to the same path")
        folder = f"{built[0][2]}/"
        return cls(
            environment=_pairs(final, "ENV"),
            entrypoint=tuple(json.loads(_one(final, "ENTRYPOINT"))),
            user=_one(final, "USER"),
            directory=_one(final, "WORKDIR"),
            labels=_pairs(final, "LABEL"),
            ports=tuple(word for words in _all(final, "EXPOSE") for word in words),
            copies={source: target for source, target in copied.items() if target.startswith(folder)},
            lock=_source(copied, lock, path),
            dependencies=dependencies,
        )


_KNOWN = {"FROM", "ARG", "COPY", "RUN", "ENV", "LABEL", "WORKDIR", "USER", "EXPOSE", "ENTRYPOINT"}
Stage = list[tuple[str, str]]


def _stages(text: str) -> Iterator[Stage]:
    """Yield the instructions of each stage, without its FROM."""
    stage: Stage | None = None
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        instruction, _, rest = line.partition(" ")
        if instruction not in _KNOWN:
            raise DockerfileError(f"unknown instruction: {line}")
        if instruction == "FROM":
            if stage is not None:
                yield stage
            stage = []
        elif stage is not None:
            stage.append((instruction, rest.strip()))
    if stage is not None:
        yield stage


def _all(stage: Stage, instruction: str) -> list[list[str]]:
    return [shlex.split(rest) for name, rest in stage if name == instruction]


def _one(stage: Stage, instruction: str) -> str:
    found = [rest for name, rest in stage if name == instruction]
    if len(found) != 1:
        raise DockerfileError(f"{len(found)} lines {instruction} in the last stage, expected 1")
    return found[0]


def _pairs(stage: Stage, instruction: str) -> dict[str, str]:
    words = [word for line in _all(stage, instruction) for word in line]
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _copies(stage: Stage) -> dict[str, str]:
    """Return what is copied from the checkout, one source a line and to its full path."""
    found = {}
    for words in _all(stage, "COPY"):
        if words[0].startswith("--from="):
            continue
        if len(words) != 2 or words[1].endswith("/"):
            raise DockerfileError(f"COPY {' '.join(words)}: write one source and its whole path in the image")
        found[words[0]] = words[1]
    return found


def _installed(stage: Stage) -> tuple[str, str]:
    """Return the requirements file and the target of the one pip command."""
    [run] = [rest for name, rest in stage if name == "RUN" and "pip install" in rest] or [""]
    options = dict(re.findall(r"--(requirement|target)=(\S+)", run))
    if options.keys() != {"requirement", "target"} or "--require-hashes" not in run:
        raise DockerfileError("no pip install with --require-hashes, --requirement=… and --target=…")
    return options["requirement"], options["target"]


def _source(copies: dict[str, str], target: str, path: Path) -> str:
    for source, copied in copies.items():
        if copied == target:
            return source
    raise DockerfileError(f"{path} installs {target} and does not copy it")
