"""A proxy between a client and the API server. It numbers every request and can inject any fault.

It listens on plain HTTP on this machine. Clients authenticate by bearer token, which the proxy passes on. ::

    with ApiProxy(cluster) as proxy:
        proxy.rule(matching("create", "secrets"), LoseAnswer(), times=1)
        …start something with proxy.url as its server…
        proxy.wait_for(matching("delete", "secrets"), timeout=10)
        assert [r.status for r in proxy.requests if r.resource == "secrets"] == [201, 409, 200]
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Protocol, Self
from weakref import WeakSet

import aiohttp
from aiohttp import web
from yarl import URL

from testing.cluster.client import PATIENCE
from testing.cluster.faults import (
    Action,
    Answer,
    Delay,
    Hold,
    LoseAnswer,
    Match,
    Repeat,
    Request,
    Reset,
    Rule,
    Stale,
)

Hook = Callable[[Request], Awaitable[Action | None]]

_LIMIT = 64 * 1024 * 1024
# Headers that belong to one connection only, or are computed anew for the next one.
_NOT_PASSED_ON = frozenset(
    ("host", "connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "te", "trailer")
)


class Target(Protocol):
    """What it forwards to."""

    @property
    def server(self) -> str:
        """Its URL."""

    @property
    def ca_file(self) -> Path | None:
        """The authority of its certificate; None: one that the machine trusts."""


class _Broken(Exception):
    """The client's connection has to be broken on purpose."""


class ApiProxy:
    """The proxy. It runs in a thread of its own, and every public method may be called from any other thread."""

    tls: ssl.SSLContext | None = None
    """What it shows to its clients; None: it listens on plain HTTP."""

    before_forward: Hook | None = None
    """Called with each request before anything else. The action that it returns is applied to the request."""
    after_answer: Hook | None = None
    """Called with each answered request before the answer is passed back. Reset or LoseAnswer lose the answer.

    A watch counts as answered when it begins."""

    def __init__(self, target: Target) -> None:
        self._target = target.server.rstrip("/")
        self._ca = target.ca_file
        self._changed = threading.Condition()
        self._requests: list[Request] = []
        self._rules: list[Rule] = []
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="api-proxy", daemon=True)
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._streams: dict[Request, asyncio.Transport] = {}
        self._callers: WeakSet[asyncio.Transport] = WeakSet()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._read: dict[str, tuple[int, bytes, list[tuple[str, str]]]] = {}
        self.url = ""
        self.ahead = timedelta()
        """By how much the ``Date`` of answers is ahead of the real time."""

    # From the test's thread

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(PATIENCE):
            raise TimeoutError(f"the proxy did not start within {PATIENCE:g} s")
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        for rule in self._rules:
            if isinstance(rule.action, Hold):
                rule.action.release()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise TimeoutError(f"the proxy did not end within {PATIENCE:g} s")
        if self._failure is not None:
            raise self._failure

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order of their arrival."""
        with self._changed:
            return list(self._requests)

    def rule(self, match: Match, action: Action, *, times: int | None = 1, skip: int = 0) -> Rule:
        """Apply an action to matching requests: after the first ``skip``, to ``times`` of them (None: to all).

        Of several matching rules the oldest applies.
        """
        rule = Rule(match, action, times, skip)
        with self._changed:
            self._rules.append(rule)
        return rule

    def hold(self, match: Match, *, times: int | None = 1, skip: int = 0) -> Hold:
        """Hold matching requests until ``release`` of the returned object is called."""
        held = Hold()
        self.rule(match, held, times=times, skip=skip)
        return held

    def clear_rules(self) -> None:
        """Remove all rules, and forward all held requests."""
        with self._changed:
            rules, self._rules = self._rules, []
        for rule in rules:
            if isinstance(rule.action, Hold):
                rule.action.release()

    def cut(self, match: Match) -> None:
        """Break the connections of matching watches that are open now. Later watches pass."""
        self._loop.call_soon_threadsafe(self._cut, match)

    def wait_for(self, match: Match, timeout: float = PATIENCE, count: int = 1) -> list[Request]:
        """Wait until ``count`` matching requests were answered or dropped, and return them.

        A watch is done when it ends.

        :raises TimeoutError: after ``timeout`` seconds, with all requests that arrived.
        """

        def done() -> list[Request]:
            return [request for request in self._requests if request.ended is not None and match(request)]

        with self._changed:
            if self._changed.wait_for(lambda: len(done()) >= count, timeout):
                return done()
            seen = "\n".join(str(request) for request in self._requests)
        raise TimeoutError(
            f"{count} such requests did not come within {timeout:g} s. Requests so far:\n{seen}"
        )

    # In the proxy's own thread

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                runner.run(self._serve())
        except BaseException as failure:  # noqa: BLE001  the test's thread raises it
            self._failure = failure
        finally:
            self._started.set()

    async def _serve(self) -> None:
        trusted = ssl.create_default_context(cafile=None if self._ca is None else str(self._ca))

        def session(*, keep: bool) -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(
                ssl=trusted, limit=0, force_close=not keep, socket_factory=self._new_socket
            )
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
            return aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)

        # Each write has a connection of its own: if a kept one breaks, aiohttp repeats some requests by itself.
        try:
            async with session(keep=True) as self._reads, session(keep=False) as self._writes:
                await self._answer()
        finally:
            await self._hang_up()

    async def _answer(self) -> None:
        """Serve clients until the proxy has to stop."""
        application = web.Application(client_max_size=_LIMIT)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.tls)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"{'http' if self.tls is None else 'https'}://{host}:{port}"
            self._started.set()
            await self._stop.wait()
        finally:
            for task in self._background:
                task.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)
            await runner.cleanup()
            # A caller that has stopped reading would delay the close.
            for caller in self._callers:
                caller.abort()

    def _new_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol = address[:3]
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made

    async def _hang_up(self) -> None:
        """Wait until every connection to the API server is closed.

        aiohttp forgets a connection that it has begun to close. Closing lasts until the API server answers the end of
        TLS. The proxy does not wait for that answer, since nobody here needs it.
        """
        until = time.monotonic() + 5
        while left := [made for made in self._sockets if made.fileno() != -1]:
            if time.monotonic() > until:
                raise TimeoutError(f"{len(left)} of the proxy's connections did not close within 5 s")
            for made in left:
                with suppress(OSError):  # perhaps no longer connected
                    made.shutdown(socket.SHUT_RDWR)
            await asyncio.sleep(0.005)

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        if incoming.transport is not None:
            self._callers.add(incoming.transport)
        request = self._number(incoming, await incoming.read())
        try:
            if request.is_watch or request.query.get("follow") == "true":
                return await self._stream(incoming, request)
            # A request that has arrived is forwarded even if its sender dies, as on a real network.
            task = asyncio.create_task(self._exchange(incoming, request))
            self._background.add(task)
            task.add_done_callback(self._exchanged)
            response = await asyncio.shield(task)
            request.answered = True
            return response
        except _Broken:
            if incoming.transport is not None:
                incoming.transport.abort()
            return web.Response()
        except aiohttp.ClientError as error:
            return _refusal(Answer(502, "ServiceUnavailable", f"no API server: {error}"))
        finally:
            self._ended(request)

    def _exchanged(self, task: asyncio.Task[web.Response]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone, and then nobody else retrieves it

    def _number(self, incoming: web.Request, body: bytes) -> Request:
        with self._changed:
            number = len(self._requests) + 1
            query = dict(incoming.query)
            request = Request(number, incoming.method, incoming.path, query, body, time.monotonic())
            self._requests.append(request)
        return request

    def _ended(self, request: Request) -> None:
        with self._changed:
            request.ended = time.monotonic()
            self._changed.notify_all()

    def _cut(self, match: Match) -> None:
        for request, transport in self._streams.items():
            if match(request):
                transport.abort()

    async def _faults(self, request: Request) -> Action | None:
        """Ask the hook and the rules, carry out delays, and return the remaining action."""
        asked = None if self.before_forward is None else await self.before_forward(request)
        with self._changed:
            taken = [action for rule in self._rules if (action := rule.take(request)) is not None]
        left: Action | None = None
        for action in [*([asked] if asked else []), *taken]:
            if isinstance(action, Delay):
                await asyncio.sleep(action.seconds)
            elif isinstance(action, Hold):
                await action.held()
            elif isinstance(action, Reset):
                raise _Broken
            else:
                left = left or action
        return left

    async def _exchange(self, incoming: web.Request, request: Request) -> web.Response:
        action = await self._faults(request)
        if isinstance(action, Answer):
            request.status = action.status
            return _refusal(action)
        if isinstance(action, Stale):
            request.status, body, headers = self._read[incoming.raw_path]
            return web.Response(status=request.status, body=body, headers=headers)
        answers = []
        for _ in range(action.times if isinstance(action, Repeat) else 1):
            request.forwarded += 1
            async with self._forward(incoming, request) as answer:
                body, headers = await answer.read(), self._dated(answer)
                answers.append(web.Response(status=answer.status, body=body, headers=headers))
                if request.verb == "get" and "/secrets/" not in request.path:
                    self._read[incoming.raw_path] = (answer.status, body, headers)
            request.status = answers[-1].status
        afterwards = None if self.after_answer is None else await self.after_answer(request)
        if isinstance(action, LoseAnswer) or isinstance(afterwards, Reset | LoseAnswer):
            raise _Broken
        return answers[0 if isinstance(action, Repeat) and action.answer == "first" else -1]

    async def _stream(self, incoming: web.Request, request: Request) -> web.StreamResponse:
        """Pass on a watch piece by piece, until one of the sides ends it."""
        action = await self._faults(request)
        if isinstance(action, Answer):
            request.status = action.status
            return _refusal(action)
        request.forwarded += 1
        async with self._forward(incoming, request) as answer:
            request.status = answer.status
            afterwards = None if self.after_answer is None else await self.after_answer(request)
            if isinstance(action, LoseAnswer) or isinstance(afterwards, Reset | LoseAnswer):
                raise _Broken
            response = web.StreamResponse(status=answer.status, headers=self._dated(answer))
            await response.prepare(incoming)
            request.answered = True
            if incoming.transport is not None:
                self._streams[request] = incoming.transport
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            finally:
                self._streams.pop(request, None)
            await response.write_eof()
            return response

    def _dated(self, answer: aiohttp.ClientResponse) -> list[tuple[str, str]]:
        headers = [(key, value) for key, value in _passed_on(answer.headers) if key.lower() != "date"]
        return [*headers, ("Date", format_datetime(datetime.now(UTC) + self.ahead, usegmt=True))]

    def _forward(self, incoming: web.Request, request: Request) -> aiohttp.client._RequestContextManager:
        url = URL(self._target + incoming.raw_path, encoded=True)
        headers = _passed_on(incoming.headers)
        session = self._reads if request.method == "GET" and not request.is_watch else self._writes
        return session.request(
            request.method, url, headers=headers, data=request.body or None, allow_redirects=False
        )


def _passed_on(headers: Any) -> list[tuple[str, str]]:
    return [(key, value) for key, value in headers.items() if key.lower() not in _NOT_PASSED_ON]


def _refusal(answer: Answer) -> web.Response:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": answer.message,
        "reason": answer.reason,
        "code": answer.status,
    }
    headers = {} if answer.retry_after is None else {"Retry-After": str(answer.retry_after)}
    return web.json_response(status, status=answer.status, headers=headers)
