"""Reads everything that etcd stores and stored: every key at every revision since its start."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EVERYTHING = b"\x00"


@dataclass(frozen=True)
class Stored:
    """One key's content at one revision. ``value`` is None if that revision deleted the key."""

    key: str
    revision: int
    value: bytes | None


class EtcdReader(ABC):
    """Read-only access to etcd."""

    @abstractmethod
    def _range(self, start: bytes, end: bytes, keys_only: bool, revision: int) -> dict[str, Any]:
        """Return a range of keys at a revision (0: now), in the form of etcd's JSON gateway."""

    @abstractmethod
    def _history(self, since: int) -> Iterator[dict[str, Any]]:
        """Yield watch responses for the whole key space, beginning with revision ``since``."""

    def revision(self) -> int:
        """Return the newest revision. Each change creates the next one."""
        # Any answer has it. This is about one key, which does not exist.
        answer = self._range(b"/", b"", keys_only=True, revision=0)
        return int(answer["header"]["revision"])

    def keys(self, prefix: str) -> list[str]:
        """Return all keys with this prefix, such as ``/registry/secrets/``."""
        answer = self._range(*_prefix(prefix), keys_only=True, revision=0)
        return [_decode(kv["key"]).decode() for kv in answer.get("kvs", ())]

    def values(self, prefix: str, revision: int | None = None) -> dict[str, bytes]:
        """Return the contents by key, now or at an earlier revision."""
        answer = self._range(*_prefix(prefix), keys_only=False, revision=revision or 0)
        return {_decode(kv["key"]).decode(): _decode(kv.get("value", "")) for kv in answer.get("kvs", ())}

    def history(self, prefix: str = "", since: int = 1) -> Iterator[Stored]:
        """Yield each change of each key with this prefix, in order, from revision ``since`` to the present one."""
        last = self.revision()
        for response in self._history(since):
            for event in response.get("events", ()):
                kv = event["kv"]
                revision = int(kv["mod_revision"])
                key = _decode(kv["key"]).decode()
                if key.startswith(prefix) and revision <= last:
                    deleted = event.get("type") == "DELETE"
                    yield Stored(key, revision, None if deleted else _decode(kv.get("value", "")))
                # Each revision changes at least one key, so the whole key space always reaches the last one. An
                # answer holds whole revisions, so the rest of this answer is read before the end.
            if int(response["header"]["revision"]) >= last and _reached(response, last):
                return

    def find(self, *needles: bytes, prefix: str = "", since: int = 1) -> dict[str, list[int]]:
        """Return the revisions, by key, at which the key's content contained any of these bytes."""
        found: dict[str, list[int]] = {}
        for stored in self.history(prefix, since):
            if stored.value is not None and any(needle in stored.value for needle in needles):
                found.setdefault(stored.key, []).append(stored.revision)
        return found


class GatewayReader(EtcdReader):
    """Reads through etcd's own JSON gateway on a Unix socket."""

    def __init__(self, path: Path, timeout: float = 30) -> None:
        self.path = path
        self.timeout = timeout

    def _connect(self) -> http.client.HTTPConnection:
        return _Connection(self.path, self.timeout)

    def _range(self, start: bytes, end: bytes, keys_only: bool, revision: int) -> dict[str, Any]:
        request = {
            "key": _encode(start),
            "range_end": _encode(end),
            "keys_only": keys_only,
            "revision": str(revision),
        }
        with closing(self._connect()) as connection:
            connection.request("POST", "/v3/kv/range", json.dumps(request).encode())
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
            if response.status != 200:
                raise OSError(f"etcd answered {response.status}: {answer}")
            return answer

    def _history(self, since: int) -> Iterator[dict[str, Any]]:
        everything = {"key": _encode(_EVERYTHING), "range_end": _encode(_EVERYTHING)}
        create = {"create_request": {**everything, "start_revision": str(since)}}
        with closing(self._connect()) as connection:
            connection.request("POST", "/v3/watch", json.dumps(create).encode())
            response = connection.getresponse()
            while line := response.readline():
                answer = json.loads(line)
                if "result" not in answer:
                    raise OSError(f"etcd ended the watch: {answer}")
                if compacted := int(answer["result"].get("compact_revision", 0)):
                    raise OSError(f"etcd has forgotten everything before revision {compacted}")
                yield answer["result"]


class TlsGatewayReader(GatewayReader):
    """The same over TLS, at a port of this machine, with the certificates in a folder."""

    def __init__(self, port: int, certificates: Path, timeout: float = 30) -> None:
        super().__init__(certificates, timeout)
        self.port = port

    def _connect(self) -> http.client.HTTPConnection:
        context = ssl.create_default_context(cafile=str(self.path / "ca.crt"))
        context.load_cert_chain(self.path / "server.crt", self.path / "server.key")
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=self.timeout, context=context)


class _Connection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def _reached(response: dict[str, Any], last: int) -> bool:
    return any(int(event["kv"]["mod_revision"]) >= last for event in response.get("events", ()))


def _prefix(prefix: str) -> tuple[bytes, bytes]:
    """Return the first key with a prefix, and the first key after all of them."""
    start = (prefix or "/").encode()
    return start, start[:-1] + bytes([start[-1] + 1])


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text)
