"""The sessions in which the operator talks to the API server.

There is one for our own calls and another for kopf's watches. kopf closes its own
when the server refuses it, and a request that is on its way in a session that is closed
hears nothing any more until its time is up: that must not happen to the deletion of a Secret.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import hdrs
from yarl import URL

from runkeys_operator.errors import LoginError
from runkeys_operator.kube import BEFORE_SENDING, METADATA_LIST, METADATA_ONLY, Connection
from runkeys_operator.kube.credentials import Access

# A projected token is rotated when 80 % of its life is over, and the old one stays valid: a minute is plenty.
_TOKEN_AGE = 60.0
_RENEW_AGAIN_AFTER = 30.0  # longer than any request takes
_FOR_KOPF_AT_MOST, _WITHIN = 5, 60.0


class Login:
    """Makes sessions. The `SessionProvider` of `Kube`, and what kopf's login handler asks."""

    def __init__(self, load: Callable[[], Access]) -> None:
        self._load = load
        self._current: Connection | None = None
        self._retired: Connection | None = None
        self._renewed_at = float("-inf")
        self._for_kopf_at: deque[float] = deque(maxlen=_FOR_KOPF_AT_MOST)

    def current(self) -> Connection:
        """The session for our own calls. Raises LoginError if the credentials cannot be read."""
        if self._current is None:
            self._current = _open(self._load())
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

    async def for_kopf(self, watch_opened: Callable[[str], None]) -> Connection | None:
        """A new session that is kopf's to close. It comes again when the server refused the last one.

        `watch_opened` is told the path of each watch that the server has begun to answer.

        kopf has no pause between a refusal and its next try, so this paces it, and returns None
        (on which kopf gives up) when new sessions do not help.
        """
        clock = asyncio.get_running_loop().time
        before = self._for_kopf_at
        if len(before) == _FOR_KOPF_AT_MOST and clock() - before[0] < _WITHIN:
            return None
        if before and clock() - before[-1] < 1:
            await asyncio.sleep(1)
        before.append(clock())
        return _open(
            self._load(), _metadata_only, _WatchNotice(watch_opened), response_class=_NeverWithoutItems
        )

    async def close(self) -> None:
        """Close the sessions for our own calls."""
        for connection in (self._current, self._retired):
            if connection is not None:
                await connection.http.close()


def _open(
    access: Access,
    *middlewares: aiohttp.ClientMiddlewareType,
    response_class: type[aiohttp.ClientResponse] = aiohttp.ClientResponse,
) -> Connection:
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

    A process that was frozen while it waited for one would else send it when it wakes up, whoever leads by then.
    """

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        may_begin = BEFORE_SENDING.get(None)
        if may_begin is not None:
            may_begin()
        return await super().send(conn)


async def _metadata_only(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Has kopf's lists and watches bring the metadata of objects only, which kopf has no setting for.

    People may write as much as they like into a binding, and a page of kopf's holds 500. Its lists of kinds, groups
    and versions are no objects, and stay as they are.
    """
    query = request.url.query
    if query.get("watch") == "true":
        request.headers[hdrs.ACCEPT] = f"{METADATA_ONLY},application/json"
    elif "limit" in query:
        request.headers[hdrs.ACCEPT] = f"{METADATA_LIST},application/json"
    return await handler(request)


class _NeverWithoutItems(aiohttp.ClientResponse):
    """A list of metadata that is empty has null for its items, over which kopf stumbles."""

    async def json(self, **options: Any) -> Any:
        found = await super().json(**options)
        if isinstance(found, dict) and found.get("items", ()) is None:
            found["items"] = []
        return found


class _WatchNotice:
    """Says which watches are open. kopf does not, and before they are nobody hears of what is new."""

    def __init__(self, opened: Callable[[str], None]) -> None:
        self._opened = opened

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        if response.status == 200 and request.url.query.get("watch") == "true":
            self._opened(request.url.path)
        return response


class _BearerToken:
    """Puts the token on each request: read again once a minute, and when the server refuses it."""

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
            return await handler(request)  # redirected elsewhere: the token is not for them
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
