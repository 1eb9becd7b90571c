"""The session that kopf watches with, and when it is replaced.

It is kopf's own: kopf closes its session when the server refuses it, and a request that is on its way in a session
that is closed hears nothing any more until its time is up. That must not happen to the deletion of a Secret.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from aiohttp import hdrs

from runkeys._text import documents
from runkeys_operator.errors import LoginError
from runkeys_operator.kopf_runtime.kopf_module import kopf
from runkeys_operator.kube import METADATA_LIST, METADATA_ONLY
from runkeys_operator.kube.credentials import Access
from runkeys_operator.kube.login import open_session
from runkeys_operator.process.logs import get_logger

log = get_logger(__name__)

_MOST_LOGINS, _WITHIN_SECONDS = 5, 60.0


class Sessions:
    """kopf's login handler. It comes again when the server refused the last session."""

    def __init__(self, load: Callable[[], Access], watch_opened: Callable[[str], None]) -> None:
        """``watch_opened`` is given the path of each watch that the server has begun to answer."""
        self._load = load
        self._watch_opened = watch_opened
        self._opened_at: deque[float] = deque(maxlen=_MOST_LOGINS)

    async def log_in(self, **_: Any) -> kopf.AiohttpSession | None:
        """A new session, which kopf closes; None, on which kopf ends, if new sessions do not help.

        It never raises: kopf would go on waiting for credentials.
        """
        try:
            return await self._open()
        except LoginError as error:
            log.critical("%s", error)
            return None

    async def _open(self) -> kopf.AiohttpSession | None:
        # kopf makes no pause between a refusal and its next try.
        clock, before = asyncio.get_running_loop().time, self._opened_at
        if len(before) == _MOST_LOGINS and clock() - before[0] < _WITHIN_SECONDS:
            log.critical("the API server keeps refusing the operator's credentials")
            return None
        if before and clock() - before[-1] < 1:
            await asyncio.sleep(1)
        before.append(clock())
        opened = open_session(
            self._load(), _metadata_only, _WatchNotice(self._watch_opened), response_class=_Readable
        )
        return kopf.AiohttpSession(
            server=opened.server,
            aiohttp_session=opened.http,
            # Only the server's word makes kopf log in anew, but it has none when its certificate changed.
            expiration=datetime.now(UTC) + timedelta(hours=1),
        )


async def _metadata_only(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Has kopf's lists and watches bring the metadata of objects only, which kopf has no setting for.

    People may write as much as they like into an object, and a page of kopf's holds 500. Its lists of kinds, groups
    and versions are no objects, and stay as they are.
    """
    query = request.url.query
    if query.get("watch") == "true":
        request.headers[hdrs.ACCEPT] = f"{METADATA_ONLY},application/json"
    elif "limit" in query:
        request.headers[hdrs.ACCEPT] = f"{METADATA_LIST},application/json"
    return await handler(request)


@contextmanager
def _lost_if_closed() -> Iterator[None]:
    """Makes of a session that is closed while an answer is read a connection that is lost, which kopf bears.

    kopf closes the session of all its watches when the server refuses one of them. aiohttp then has a RuntimeError for
    who reads on, on which kopf would end.
    """
    try:
        yield
    except RuntimeError as error:
        raise aiohttp.ClientPayloadError(f"the session was closed: {error}") from error


class _Readable(aiohttp.ClientResponse):
    """An answer as kopf can read it.

    An object may be nested so deeply that Python's parser gives up, in its metadata too: managedFields follow the
    spec. And an empty list of metadata has null for its items. It can go when kopf bears both.
    """

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        await super().start(connection)
        if self.url.query.get("watch") == "true":
            self.content = _Lines(self.content)  # type: ignore[assignment]
        return self

    async def json(self, **_: Any) -> Any:
        with _lost_if_closed():
            data = await self.read()
        found = documents.read(data)
        if isinstance(found, dict) and found.get("items", ()) is None:
            found["items"] = []
        return found


class _Lines:
    """The stream of a watch, line by line, without what is nested too deep."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        rest = b""
        with _lost_if_closed():
            async for data in self._content.iter_chunked(size):
                *lines, rest = (rest + data).split(b"\n")
                if lines:
                    yield b"".join(documents.without_depths(line) + b"\n" for line in lines)
        yield documents.without_depths(rest)


class _WatchNotice:
    """Reports which watches are open. kopf does not, and until they are, new objects go unnoticed."""

    def __init__(self, opened: Callable[[str], None]) -> None:
        self._opened = opened

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        if response.status == 200 and request.url.query.get("watch") == "true":
            self._opened(request.url.path)
        return response
