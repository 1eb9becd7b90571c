"""Requests to stores are bounded in time and size, go to the one host that the store names, and show nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
import trustme
from aiohttp import web

from runkeys.api.store import VaultStore
from runkeys_operator.stores import https
from runkeys_operator.stores.https import Https
from runkeys_operator.stores.provider import Failure, Identity, Pending, Session, StoreError
from runkeys_operator.stores.vault import Vault

CANARY = "canary-5f7c1e0b9a3d4c62"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
AUTHORITY = trustme.CA()
IDENTITY = Identity("runner", f"{CANARY}.jwt.signature-that-is-long-enough")
SESSION = Session("accessor", 60, f"s.{CANARY}")


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Vault]:
    """A server on loopback that answers everything so, as a store."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(tls)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    connections = Https()
    try:
        yield Vault(connections, spec(f"https://{host}:{port}"))
    finally:
        await connections.close()
        await runner.cleanup()


def spec(address: str) -> VaultStore:
    return VaultStore.model_validate(
        {
            "address": address,
            "caBundle": AUTHORITY.cert_pem.bytes().decode(),
            "auth": {"method": "jwt", "mount": "jwt", "audience": "bao"},
        }
    )


def says(status: int, body: object) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    return answer


async def refused(work: Awaitable[object]) -> StoreError:
    with pytest.raises(StoreError) as raised:
        await work
    assert CANARY not in str(raised.value)
    assert CANARY not in repr(raised.value)
    return raised.value


async def test_a_redirect_is_not_followed() -> None:
    followed = []

    async def answer(request: web.Request) -> web.StreamResponse:
        followed.append(request.path)
        raise web.HTTPTemporaryRedirect(f"https://127.0.0.1:1/{CANARY}")

    async with serving(answer) as store:
        error = await refused(store.read(SESSION, "kv/data/a"))
    assert error.failure is Failure.AWAY
    assert "answers with a redirect, which is not followed" in str(error)
    assert followed == ["/v1/kv/data/a"]


async def test_an_answer_is_read_up_to_its_limit() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                await response.write(CANARY.encode() * 4096)
        return response

    async with serving(endless) as store:
        error = await refused(store.read(SESSION, "kv/data/a"))
    assert error.failure is Failure.UNFIT
    assert "more than 1048576 bytes" in str(error)


async def test_a_store_that_does_not_answer_is_left_and_nobody_waits_for_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(https, "_TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    asked = []

    async def never(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        await asyncio.sleep(5)
        return web.Response()

    async with serving(never) as store:
        for _ in range(3):
            error = await refused(store.read(SESSION, "kv/data/a"))
            assert error.failure is Failure.AWAY
            assert "does not answer in time" in str(error)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (200, [CANARY], Failure.AWAY),
        (200, {"data": CANARY}, Failure.UNFIT),
        (200, {}, Failure.UNFIT),
        (400, {"errors": [CANARY]}, Failure.UNFIT),
        (403, {"errors": [CANARY]}, Failure.FORBIDDEN),
        (404, {"errors": [CANARY]}, Failure.NOT_FOUND),
        (429, {"errors": [CANARY]}, Failure.AWAY),
        (500, {"errors": [f"connection to postgresql://u:{CANARY}@db failed"]}, Failure.AWAY),
        (503, {"errors": [CANARY]}, Failure.AWAY),
    ],
)
async def test_what_a_store_says_of_a_read_is_shown_nowhere(
    status: int, body: object, failure: Failure
) -> None:
    async with serving(says(status, body)) as store:
        assert (await refused(store.read(SESSION, "kv/data/a"))).failure is failure


async def test_what_it_says_of_a_login_is_shown_without_what_could_be_a_token() -> None:
    told = f"no {IDENTITY.token} and no hvs.{CANARY}{CANARY}\n\x1b[31mred"
    async with serving(says(400, {"errors": [told]})) as store:
        error = await refused(store.open(IDENTITY))
    assert error.failure is Failure.LOGIN
    assert str(error) == "role runner of auth/jwt refused the login (400: no … and no … [31mred)"


@pytest.mark.parametrize(
    "auth",
    [
        {},
        {"client_token": CANARY},
        {"client_token": f"{CANARY}\n", "accessor": "a", "lease_duration": 1},
        {"client_token": "", "accessor": "a", "lease_duration": 1},
        {"client_token": CANARY, "accessor": "", "lease_duration": 1},
        CANARY,
    ],
)
async def test_a_login_without_a_token_that_can_be_revoked_is_refused(auth: object) -> None:
    async with serving(says(200, {"auth": auth})) as store:
        assert (await refused(store.open(IDENTITY))).failure in (Failure.UNFIT, Failure.LOGIN)


@pytest.mark.parametrize("status", [400, 403, 500])
async def test_a_revocation_that_is_not_confirmed_is_pending(status: int) -> None:
    async with serving(says(status, {"errors": [CANARY]})) as store:
        found = await store.close(SESSION)
    assert isinstance(found, Pending)
    assert str(status) in found.why
    assert CANARY not in found.why


async def test_a_secret_that_looks_like_version_2_of_kv_and_is_none() -> None:
    data = {"data": {"token": "x"}, "metadata": {"version": 1}}
    async with serving(says(200, {"data": data})) as store:
        assert (await store.read(SESSION, "old/a")).fields == data


def test_nothing_that_opens_something_is_printed() -> None:
    assert CANARY not in f"{IDENTITY!r} {SESSION!r}"
