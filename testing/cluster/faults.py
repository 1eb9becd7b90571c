"""The faults that the numbering proxy can inject, and the requests they match."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from testing.cluster.client import PATIENCE

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get"}
_OBJECT = re.compile(
    r"/(?:api/[^/]+|apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<subresource>[^/]+))?"
)


@dataclass(eq=False)
class Request:
    """One request as the proxy saw it. Times are from ``time.monotonic``."""

    number: int
    """Counts from 1."""
    method: str
    path: str
    query: dict[str, str]
    body: bytes = field(repr=False)
    arrived: float
    status: int | None = None
    """The status of the API server's answer (for ``Answer`` the injected one); None: no answer, or not forwarded."""
    forwarded: int = 0
    """How often it was forwarded."""
    ended: float | None = None
    answered: bool = False
    """Whether an answer was passed back. False also for an answer that was lost on purpose."""

    @property
    def resource(self) -> str:
        """The plural, with the subresource if any, such as ``workflowruns/status``; empty for other paths."""
        found = _OBJECT.fullmatch(self.path)
        return "/".join(p for p in (found["resource"], found["subresource"]) if p) if found else ""

    @property
    def namespace(self) -> str:
        found = _OBJECT.fullmatch(self.path)
        return (found["namespace"] if found else None) or ""

    @property
    def name(self) -> str:
        """The object's name; empty for a creation or a list."""
        found = _OBJECT.fullmatch(self.path)
        return (found["name"] if found else None) or ""

    @property
    def verb(self) -> str:
        """The verb as in RBAC: get, list, watch, create, update, patch, delete or deletecollection."""
        if self.method == "DELETE":
            return "delete" if self.name else "deletecollection"
        if self.method == "GET" and self.is_watch:
            return "watch"
        if self.method == "GET" and self.resource and not self.name:
            return "list"
        return _VERBS.get(self.method, self.method.lower())

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") in ("true", "1")

    @property
    def mutates(self) -> bool:
        """Whether the request may change the cluster. Reviews do not."""
        return self.method != "GET" and not self.resource.endswith("reviews") and "dryRun" not in self.query

    def __str__(self) -> str:
        return f"{self.number} {self.verb} {self.path} {self.status or '-'}"


Match = Callable[[Request], bool]


def matching(verb: str = "", resource: str = "", namespace: str = "", name: str = "") -> Match:
    """Return a match by verb, resource, namespace and name. An empty string matches everything."""
    return lambda request: (
        (not verb or request.verb == verb)
        and (not resource or request.resource == resource)
        and (not namespace or request.namespace == namespace)
        and (not name or request.name == name)
    )


@dataclass(frozen=True)
class Delay:
    """Forward the request after this many seconds."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """Break the connection. Nothing is forwarded."""


@dataclass(frozen=True)
class LoseAnswer:
    """Forward the request, and break the connection once the API server has answered."""


@dataclass(frozen=True)
class Answer:
    """Answer in place of the API server. Nothing is forwarded."""

    status: int
    reason: str = "InternalError"
    message: str = "answered by the test's proxy"
    retry_after: int | None = None


@dataclass(frozen=True)
class Repeat:
    """Forward the request several times, one after the other, and pass back the first or the last answer."""

    times: int = 2
    answer: Literal["first", "last"] = "last"


class Hold:
    """Hold the request until ``release``. It is then forwarded, even if its sender has died meanwhile."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self._released = threading.Event()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._lock = threading.Lock()

    def wait_arrived(self, timeout: float = PATIENCE) -> None:
        """Wait until a request is being held.

        :raises TimeoutError: after ``timeout`` seconds.
        """
        if not self.arrived.wait(timeout):
            raise TimeoutError(f"no request to hold came within {timeout:g} s")

    def release(self) -> None:
        """Forward all held requests, and let later ones pass."""
        with self._lock:
            self._released.set()
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)
            self._waiting.clear()

    async def held(self) -> None:
        event = asyncio.Event()
        with self._lock:
            self.arrived.set()
            if self._released.is_set():
                return
            self._waiting.append((asyncio.get_running_loop(), event))
        await event.wait()


@dataclass(frozen=True)
class Stale:
    """Repeat the last answer to the same read, like a cache that nobody updates."""


Action = Delay | Reset | LoseAnswer | Answer | Repeat | Hold | Stale


class Rule:
    """An action on matching requests: it skips the first ``skip``, then applies to ``times`` of them (None: to all)."""

    def __init__(self, match: Match, action: Action, times: int | None, skip: int) -> None:
        self.match = match
        self.action = action
        self._left = times
        self._skip = skip
        self.hits: list[Request] = []

    def take(self, request: Request) -> Action | None:
        """Return the action if it applies to this request, else None."""
        if self._left == 0 or not self.match(request):
            return None
        if self._skip:
            self._skip -= 1
            return None
        if self._left is not None:
            self._left -= 1
        self.hits.append(request)
        return self.action
