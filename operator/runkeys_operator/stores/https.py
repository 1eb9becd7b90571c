"""Requests to stores: https only, verified, bounded in time and size, to the one host that the store names."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import aiohttp
from yarl import URL

from runkeys._text import documents
from runkeys_operator.stores.provider import Failure, StoreError

_TIMEOUT = aiohttp.ClientTimeout(total=10, sock_connect=3)
_LARGEST_ANSWER = 1 << 20
"""Bytes. All values of an attempt have half of that at most."""

_AWAY_SECONDS = 2.0
"""For so long nobody asks an address that did not answer: those who wait for it hold up everybody else."""


@dataclass(frozen=True)
class Reply:
    """An answer: its status, and its JSON object; empty if it has none."""

    status: int
    body: dict[str, Any]


class Https:
    """The connections to all stores."""

    def __init__(self) -> None:
        self._http: aiohttp.ClientSession | None = None
        self._away: dict[tuple[str, str | None], tuple[float, str]] = {}

    async def close(self) -> None:
        """Close them."""
        if self._http is not None:
            await self._http.close()

    async def ask(
        self,
        method: str,
        address: str,
        path: str,
        *,
        ca_bundle: str | None,
        headers: dict[str, str],
        body: dict[str, Any] | None = None,
        once: bool = False,
    ) -> Reply:
        """Send one request. Raises StoreError if there is no answer that can be read.

        :param once: it creates something, so that it must not be sent again by itself.
        """
        place = (address, ca_bundle)
        until, why = self._away.get(place, (0.0, ""))
        if time.monotonic() < until:
            raise StoreError(Failure.AWAY, why)
        self._away.pop(place, None)
        try:
            return await self._ask(method, address, path, ca_bundle, headers, body, once=once)
        except StoreError as error:
            if error.failure is Failure.AWAY:
                self._away[place] = time.monotonic() + _AWAY_SECONDS, str(error)
            raise

    async def _ask(
        self,
        method: str,
        address: str,
        path: str,
        ca_bundle: str | None,
        headers: dict[str, str],
        body: dict[str, Any] | None,
        *,
        once: bool,
    ) -> Reply:
        tls = _tls(ca_bundle)
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            async with self._session().request(
                method,
                URL(f"{address}/v1/{path}", encoded=True),
                data=data,
                headers={"Accept-Encoding": "identity", "X-Vault-Request": "true", **headers},
                ssl=tls,
                timeout=_TIMEOUT,
                allow_redirects=False,
                middlewares=(_never_again,) if once else (),
            ) as response:
                content = await _bounded(response)
        except (aiohttp.ClientError, OSError) as error:
            raise StoreError(Failure.AWAY, f"{address} {_why(error)}") from None
        if 300 <= response.status < 400:
            raise StoreError(
                Failure.AWAY,
                f"{address} answers with a redirect, which is not followed; give the address of the active server, or"
                " of a load balancer before it",
            )
        try:
            found = documents.read(content) if content else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise StoreError(
                Failure.AWAY,
                f"{address} answered {response.status} with something that is not a store's JSON",
            )
        return Reply(response.status, found)

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=64, limit_per_host=16, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "runkeys-operator", "Content-Type": "application/json"},
                auto_decompress=False,
                trust_env=False,
            )
        return self._http


class _BrokenError(aiohttp.ClientError):
    """The connection broke, and what was sent may have been done."""


async def _never_again(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a GET again by itself, as it does when a connection breaks."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # nothing was sent
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise _BrokenError from None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        found += chunk
        if len(found) > _LARGEST_ANSWER:
            response.close()
            raise StoreError(Failure.UNFIT, f"the store's answer has more than {_LARGEST_ANSWER} bytes")
    return bytes(found)


def _why(error: Exception) -> str:
    """What kept a request from an answer. The error's own text may quote what could not be parsed."""
    if isinstance(error, asyncio.TimeoutError):
        return "does not answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        found = getattr(error.certificate_error, "verify_message", "") or "it does not verify"
        return (
            f"has a certificate that is not accepted ({found}); give that of its authority in spec.vault.caBundle of"
            " the SecretStore, and its host name in spec.vault.address"
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "does not speak TLS as this operator does"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot be reached: {os.strerror(error.os_error.errno or 0)}"
    if isinstance(error, _BrokenError):
        return "ended the connection before it answered"
    return f"does not answer: {type(error).__name__}"


@lru_cache(maxsize=32)
def _tls(ca_bundle: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=ca_bundle)
    except (ssl.SSLError, ValueError):
        raise StoreError(
            Failure.AWAY, "spec.vault.caBundle holds no certificate that can be read; give PEM text"
        ) from None
