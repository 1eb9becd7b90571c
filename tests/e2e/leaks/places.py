"""Where values are searched for, and how to say what it was that held one."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from testing.cluster.audit import AuditEvent
from testing.cluster.client import PATIENCE
from testing.cluster.etcd import EtcdReader, Stored
from testing.cluster.node import NodeCluster

Where = Callable[[int], str]
"""Says what holds a given offset of a piece."""

REGISTRY = re.compile(rb"/registry/[-A-Za-z0-9._:/]+")
_BOLT_PAGE = 4096
_TELLS = 28
"""So many bytes of a canary tell it from the others."""
ETCD_GROUPS = ("configmaps", "events", "jobs", "leases", "pods", "runkeys.dev", "secrets")
"""Kinds of which something has to be there; whatever else etcd holds is searched too."""


@dataclass(frozen=True)
class Piece:
    """Something to search: a key at a revision, a file, a request, an answer.

    :ivar place: what is counted and planted together.
    """

    place: str
    where: str | Where
    data: bytes

    def at(self, offset: int) -> str:
        """What holds the offset."""
        return self.where if isinstance(self.where, str) else self.where(offset)


class Source(Protocol):
    """Reads one or several places.

    :ivar places: those that it always reads something of.
    """

    @property
    def places(self) -> tuple[str, ...]: ...

    def pieces(self) -> Iterator[Piece]: ...


@dataclass(frozen=True)
class EtcdKeys:
    """Every key at every revision since etcd began: nothing is ever compacted on a test node."""

    etcd: EtcdReader
    places: tuple[str, ...] = tuple(f"etcd: {group}" for group in ETCD_GROUPS)

    def pieces(self) -> Iterator[Piece]:
        for stored in self.etcd.history():
            if stored.value is not None:
                data = stored.key.encode() + b"\n" + stored.value
                group = stored.key.split("/")[2] if stored.key.startswith("/registry/") else "other"
                yield Piece(f"etcd: {group}", f"{stored.key}@{stored.revision}", data)


@dataclass(frozen=True)
class EtcdFiles:
    """The same on disk, whose pages may hold what no key leads to any more."""

    node: NodeCluster
    places: tuple[str, ...] = ("etcd's log on disk", "etcd's database on disk")

    def pieces(self) -> Iterator[Piece]:
        history = cache(lambda: [item for item in self.node.etcd.history() if item.value is not None])
        for path in files_below(inside(self.node, self.node.paths / "etcd" / "data" / "member")):
            data = path.read_bytes()
            if path.suffix == ".wal":
                yield Piece(self.places[0], _of_key(path.name, data, len(data), history), data)
            else:
                yield Piece(self.places[1], _of_key(path.name, data, _BOLT_PAGE, history), data)


def _of_key(name: str, data: bytes, page: int, history: Callable[[], list[Stored]]) -> Where:
    """A value follows its key, in etcd's log of changes as in a page of its database.

    A large value goes on in the next page, and the first one may hold something else by now. Then the key is the one
    whose content, at some revision, had the same bytes with the same surroundings.
    """

    def where(offset: int) -> str:
        begin = offset - offset % page
        if keys := REGISTRY.findall(data, begin, offset):
            return f"{name}: {keys[-1].decode()}"
        around = data[max(begin, offset - 64) : min(begin + page, offset + _TELLS)]
        same = {item.key for item in history() if around in (item.value or b"")}
        # if there are several, the one where it ought to be least
        key = min(same, key=lambda key: (key.startswith("/registry/secrets/"), key), default=None)
        return f"{name}: {key or f'page {begin // page}'}"

    return where


@dataclass(frozen=True)
class Files:
    """Log files, or folders with state; each has to hold something."""

    place: str
    roots: tuple[Path, ...]
    skipped: tuple[str, ...] = ()
    """Folder names that only show again what is stored elsewhere."""

    @property
    def places(self) -> tuple[str, ...]:
        return (self.place,)

    def pieces(self) -> Iterator[Piece]:
        for root in self.roots:
            for path in [root] if root.is_file() else files_below(root, self.skipped):
                name = str(path.relative_to(root.parent))
                yield Piece(self.place, f"{self.place}: {name}", read(path))


@dataclass(frozen=True)
class Log:
    """What a component printed; what holds a value is told by how its line begins."""

    component: str
    path: Path

    @property
    def places(self) -> tuple[str, ...]:
        return (f"log of {self.component}",)

    def pieces(self) -> Iterator[Piece]:
        data = self.path.read_bytes()

        def where(offset: int) -> str:
            begin = data.rfind(b"\n", 0, offset) + 1
            return data[begin : min(offset, begin + 120)].decode(errors="replace")

        yield Piece(self.places[0], where, data)


@dataclass(frozen=True)
class Audit:
    """The audit log; what holds a value is told by user, verb, object, answer and the part of the entry."""

    path: Path
    places: tuple[str, ...] = ("audit log",)

    def pieces(self) -> Iterator[Piece]:
        data = self.path.read_bytes()

        def where(offset: int) -> str:
            begin = data.rfind(b"\n", 0, offset) + 1
            end = data.find(b"\n", offset)
            line = data[begin : end if end >= 0 else len(data)]
            return f"{AuditEvent(json.loads(line))}: {part_of(line, offset - begin)}"

        yield Piece(self.places[0], cache(where), data)


def part_of(line: bytes, offset: int) -> str:
    """Which field of a JSON object holds the offset."""
    text = line.decode("latin-1")  # offsets stay what they are
    decoder = json.JSONDecoder()
    at = 1
    while at < len(text):
        name, at = decoder.raw_decode(text, at)
        _, at = decoder.raw_decode(text, at + 1)
        if offset < at:
            return str(name)
        at += 1
    raise ValueError("the offset is outside of the object")


@dataclass(frozen=True)
class Endpoints:
    """What is answered over HTTP, by URL."""

    get: dict[str, Callable[[], bytes]]
    places: tuple[str, ...] = ("endpoints",)

    def pieces(self) -> Iterator[Piece]:
        for name, get in self.get.items():
            yield Piece(self.places[0], name, get())


@dataclass(frozen=True)
class Texts:
    """What people were told: answers to refused requests, output of commands."""

    texts: Iterable[tuple[str, str]]
    places: tuple[str, ...] = ("answers to people",)

    def pieces(self) -> Iterator[Piece]:
        for who, text in self.texts:
            yield Piece(self.places[0], who, text.encode())


@dataclass(frozen=True)
class CommandLines:
    """Those of all processes of the node, which every process may read."""

    node: NodeCluster
    places: tuple[str, ...] = ("command lines",)

    def pieces(self) -> Iterator[Piece]:
        for path in sorted(Path(f"/proc/{self.node.record.pid}/root/proc").glob("[0-9]*/cmdline")):
            if line := read(path):
                yield Piece(self.places[0], line.split(b"\0")[0].decode(errors="replace"), line)


def fetched(url: str) -> Callable[[], bytes]:
    """Ask for a URL without credentials; an answer that says no is an answer."""

    def get() -> bytes:
        request = urllib.request.Request(url)  # noqa: S310 -- http, on this machine
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
                return str(answer.headers).encode() + bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return str(error.headers).encode() + error.read()

    return get


def inside(node: NodeCluster, path: Path) -> Path:
    """A path as the node's own processes see it: its stores are mounts of its own."""
    return Path(f"/proc/{node.record.pid}/root") / str(path).lstrip("/")


def files_below(root: Path, skipped: tuple[str, ...] = ()) -> list[Path]:
    """Every plain file below a folder, links not followed."""
    found: list[Path] = []
    folders = [root]
    while folders:
        try:
            entries = sorted(folders.pop().iterdir())
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.is_symlink():
                continue
            if entry.is_dir():
                if entry.name not in skipped:
                    folders.append(entry)
            elif entry.is_file():
                found.append(entry)
    return found


def read(path: Path) -> bytes:
    """A file's content; nothing if it has just gone."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
