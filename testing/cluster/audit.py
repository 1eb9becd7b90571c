"""Reads the API server's audit log: who sent which request, when, and with which result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from runkeys._text import documents

_CHUNK = 64 * 1024


def policy(level: str = "default") -> dict[str, Any]:
    """Return an audit policy.

    :param level: ``default``: bodies of our own kinds, Jobs and certificates, metadata of the rest. Another audit
        level: that level for everything. A path that ends in ``.yaml``: the policy in that file.
    """
    if level.endswith(".yaml"):
        given: dict[str, Any] = yaml.safe_load(Path(level).read_text())
        return given
    ours = {
        "level": "RequestResponse",
        "resources": [{"group": group} for group in ("runkeys.dev", "batch", "certificates.k8s.io")],
        "omitManagedFields": True,
    }
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [ours, {"level": "Metadata"}] if level == "default" else [{"level": level}],
    }


@dataclass(frozen=True)
class AuditEvent:
    """One answered request, as the API server logged it."""

    raw: dict[str, Any]

    @property
    def verb(self) -> str:
        return str(self.raw["verb"])

    @property
    def user(self) -> str:
        """The user who sent the request, or the impersonated user."""
        return str(self.raw.get("impersonatedUser", self.raw["user"]).get("username", ""))

    @property
    def credential(self) -> str:
        """The user's token: ``JTI=…``; empty if it is not a service account's token."""
        found = self.raw["user"].get("extra", {}).get("authentication.kubernetes.io/credential-id", [""])
        return str(found[0])

    @property
    def resource(self) -> str:
        """The plural, with the subresource if any, such as ``pods/log``; empty for a path without a resource."""
        ref = self.raw.get("objectRef", {})
        return "/".join(part for part in (ref.get("resource", ""), ref.get("subresource", "")) if part)

    @property
    def namespace(self) -> str:
        return str(self.raw.get("objectRef", {}).get("namespace", ""))

    @property
    def name(self) -> str:
        """The object's name; for a creation from the answer's body, if that was logged, else empty."""
        named = self.raw.get("objectRef", {}).get("name")
        return str(named or self.raw.get("responseObject", {}).get("metadata", {}).get("name", ""))

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return int(self.raw.get("responseStatus", {}).get("code", 0))

    @property
    def received(self) -> datetime:
        return _time(self.raw["requestReceivedTimestamp"])

    @property
    def answered(self) -> datetime:
        return _time(self.raw["stageTimestamp"])

    def __str__(self) -> str:
        return f"{self.user} {self.verb} {self.namespace}/{self.resource}/{self.name} {self.status}"


class AuditLog:
    """The audit log's file. Each answered request is in it before its answer is sent."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mark(self) -> int:
        """Return a position in the log, in bytes. ``events(since=mark)`` yields the requests after it."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            # The last entry may be half written. It counts as one after the mark.
            while end > 0:
                start = max(0, end - _CHUNK)
                log.seek(start)
                newline = log.read(end - start).rfind(b"\n")
                if newline >= 0:
                    return start + newline + 1
                end = start
        return 0

    def events(
        self,
        since: int = 0,
        *,
        verb: str | tuple[str, ...] = (),
        resource: str | tuple[str, ...] = (),
        namespace: str = "",
        name: str = "",
        user: str = "",
        where: Callable[[AuditEvent], bool] | None = None,
    ) -> Iterator[AuditEvent]:
        """Yield the answered requests in the order of their answers, see ``in_order``. All given filters must match."""
        verbs, resources = _tuple(verb), _tuple(resource)
        # The log of a whole test run is long, so lines that cannot match are not parsed.
        named = namespace.encode()
        for line in self._raw_lines(since):
            if named not in line:
                continue
            raw = documents.read(line)
            event = AuditEvent(raw)
            wanted = (
                raw["stage"] in ("ResponseComplete", "Panic")
                and (not verbs or event.verb in verbs)
                and (not resources or event.resource in resources)
                and (not namespace or event.namespace == namespace)
                and (not name or event.name == name)
                and (not user or event.user == user)
            )
            if wanted and (where is None or where(event)):
                yield event

    def find(self, needle: bytes, since: int = 0) -> list[AuditEvent]:
        """Return every entry, of any stage, whose text contains these bytes."""
        return [AuditEvent(documents.read(line)) for line in self._raw_lines(since) if needle in line]

    def _raw_lines(self, since: int) -> Iterator[bytes]:
        if not self.path.exists():
            return
        with self.path.open("rb") as log:
            log.seek(since)
            for line in log:
                # The last line may still be being written.
                if line.endswith(b"\n"):
                    yield line


def in_order(events: Iterable[AuditEvent]) -> list[AuditEvent]:
    """Return requests of several programs in the order in which they came.

    Whoever acts on what another has done asks after that. Answers, and with them the log, may come in another order:
    a Job is there for its controller before whoever creates it has the answer.
    """
    return sorted(events, key=lambda event: event.received)


def _tuple(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
