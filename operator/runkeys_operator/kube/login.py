"""The session in which the operator talks to the API server, and how it gets a new one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import NamedTuple

import aiohttp
from aiohttp import hdrs
from yarl import URL

from runkeys_operator.errors import LoginError
from runkeys_operator.kube.credentials import Access

# A projected token is rotated after 80 % of its lifetime, and the old one stays valid: a minute is enough.
_TOKEN_AGE = 60.0
_RENEW_AGAIN_AFTER = 30.0  # longer than any request takes


BEFORE_SENDING: ContextVar[Callable[[], object] | None] = ContextVar("before_sending")
"""Called when a request has its connection, and raises what keeps it from being sent."""


class Connection(NamedTuple):
    """A connection to the API server: its base address and a session that authenticates itself."""

    server: str
    http: aiohttp.ClientSession


class Login:
    """Creates sessions for the operator's own calls (kopf has its own), and replaces those that the server refused."""

    def __init__(self, load: Callable[[], Access]) -> None:
        self._load = load
        self._current: Connection | None = None
        self._retired: Connection | None = None
        self._renewed_at = float("-inf")

    def current(self) -> Connection:
        """The session for the operator's own calls. Raises LoginError if the credentials cannot be read."""
        if self._current is None:
            self._current = open_session(self._load())
        return self._current

    async def renew(self, stale: Connection) -> bool:
        """Replace `stale`, whose credentials or trust failed. False: not again so soon.

        It stays open for the requests that are under way in it.
        """
        if self._current is not stale:
            return True
        now = asyncio.get_running_loop().time()
        if now - self._renewed_at < _RENEW_AGAIN_AFTER:
            return False
        self._renewed_at, self._current = now, None
        retired, self._retired = self._retired, stale
        if retired is not None:
            await retired.http.close()
        return True

    async def close(self) -> None:
        """Close the sessions for the operator's own calls."""
        for connection in (self._current, self._retired):
            if connection is not None:
                await connection.http.close()


def open_session(
    access: Access,
    *middlewares: aiohttp.ClientMiddlewareType,
    response_class: type[aiohttp.ClientResponse] = aiohttp.ClientResponse,
) -> Connection:
    """A new session for these credentials. ``middlewares`` come before the one that puts the token on a request."""
    server = access.server.rstrip("/")
    http = aiohttp.ClientSession(
        # No limit: every watch holds a connection for itself, four for each namespace.
        connector=aiohttp.TCPConnector(limit=0, ssl=access.tls or True, keepalive_timeout=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={hdrs.USER_AGENT: "runkeys-operator"},
        middlewares=[*middlewares, *([_BearerToken(server, access.token)] if access.token else [])],
        proxy=access.proxy,
        request_class=_AskedAgain,
        response_class=response_class,
    )
    return Connection(server, http)


class _AskedAgain(aiohttp.ClientRequest):
    """Asks whether it may begin once more when it has its connection.

    Otherwise a process that was frozen while it waited would send the request when it wakes up, even if another one
    leads by then.
    """

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        may_begin = BEFORE_SENDING.get(None)
        if may_begin is not None:
            may_begin()
        return await super().send(conn)


class _BearerToken:
    """Adds the token to each request; reads it again once a minute, and when the server refuses it."""

    def __init__(self, server: str, read: Callable[[], Awaitable[str]]) -> None:
        self._origin = URL(server).origin()
        self._read = read
        self._token = ""
        self._good_until = float("-inf")
        self._reading = asyncio.Lock()

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if request.url.origin() != self._origin:
            return await handler(request)  # redirected elsewhere: the token is not for that host
        token = await self._fresh()
        request.headers[hdrs.AUTHORIZATION] = f"Bearer {token}"
        response = await handler(request)
        if response.status == 401:
            self._good_until = float("-inf")
            if (newer := await self._fresh()) != token:
                response.release()
                request.headers[hdrs.AUTHORIZATION] = f"Bearer {newer}"
                response = await handler(request)
        return response

    async def _fresh(self) -> str:
        now = asyncio.get_running_loop().time
        if now() >= self._good_until:
            async with self._reading:
                if now() >= self._good_until:
                    try:
                        self._token = await self._read()
                    except LoginError:
                        if not self._token:
                            raise
                        # It may be readable again in a moment; meanwhile the server judges the old one.
                    self._good_until = now() + _TOKEN_AGE
        return self._token
