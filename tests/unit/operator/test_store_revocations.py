"""What a store says of a revocation is not believed: it is asked until it does not have the lease."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from runkeys_operator.stores import vault
from runkeys_operator.stores.provider import Failure, Pending, Revoked, Session
from tests.unit.operator.test_store_requests import CANARY, SESSION, refused, says, serving

BY = Session("revoker", 60, f"s.{CANARY}-revoker")
REVOKE, LOOKUP, ACCESSOR = (
    "/v1/auth/token/revoke-accessor",
    "/v1/sys/leases/lookup",
    "/v1/auth/token/lookup-accessor",
)
GONE = (400, {"errors": ["invalid lease"]})
THERE = (200, {"data": {"id": "db/creds/a/1"}})
NO_ACCESSOR = (400, {"errors": ["1 error occurred:\n\t* invalid accessor\n\n"]})


def answers(
    **by_path: list[tuple[int, object]],
) -> tuple[Callable[[web.Request], Awaitable[web.Response]], list[str]]:
    """A store that gives these answers, the last one again and again; and the paths that it was asked for."""
    asked: list[str] = []
    paths = {"revoke": REVOKE, "lookup": LOOKUP, "accessor": ACCESSOR}
    left = {paths[key]: list(found) for key, found in by_path.items()}

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        assert request.headers["X-Vault-Token"] == BY.token, "as the operator, and not as the pod"
        found = left[request.path]
        status, body = found.pop(0) if len(found) > 1 else found[0]
        return web.json_response(body, status=status)

    return answer, asked


async def test_it_is_gone_when_the_store_does_not_know_it_any_more() -> None:
    answer, asked = answers(revoke=[(204, {})], lookup=[THERE, THERE, GONE])
    async with serving(answer) as store:
        assert await store.revoke(BY, "accessor", ["db/creds/a/1"]) == Revoked()
    assert asked == [REVOKE, LOOKUP, LOOKUP, LOOKUP]


async def test_each_of_several_is_looked_up() -> None:
    answer, asked = answers(revoke=[(204, {})], lookup=[GONE])
    async with serving(answer) as store:
        assert await store.revoke(BY, "accessor", ["db/creds/a/1", "db/creds/b/2"]) == Revoked()
    assert asked == [REVOKE, LOOKUP, LOOKUP]


async def test_of_what_nobody_was_given_the_login_is_looked_up() -> None:
    answer, asked = answers(revoke=[(204, {})], accessor=[NO_ACCESSOR])
    async with serving(answer) as store:
        assert await store.revoke(BY, "accessor", None) == Revoked()
    assert asked == [REVOKE, ACCESSOR]


async def test_a_store_that_accepts_and_keeps_it_is_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "_PATIENCE", 0.05)
    answer, asked = answers(revoke=[(204, {})], lookup=[THERE])
    async with serving(answer) as store:
        found = await store.revoke(BY, "accessor", ["db/creds/a/1"])
    assert isinstance(found, Pending)
    assert "accepted the revocation and still has it" in found.why
    assert len(asked) > 2


@pytest.mark.parametrize(
    "answer", [(404, {"errors": []}), (400, {"errors": ["missing lease_id"]}), (202, {})]
)
async def test_no_other_answer_is_taken_for_gone(answer: tuple[int, object]) -> None:
    found, _ = answers(revoke=[(204, {})], lookup=[answer])
    async with serving(found) as store:
        assert isinstance(await store.revoke(BY, "accessor", ["db/creds/a/1"]), Pending)


@pytest.mark.parametrize("where", ["revoke", "lookup", "accessor"])
async def test_a_right_that_is_missing_is_said(where: str) -> None:
    forbidden = (403, {"errors": [f"permission denied {CANARY}"]})
    found: dict[str, list[tuple[int, object]]] = {
        "revoke": [(204, {})],
        "lookup": [GONE],
        "accessor": [NO_ACCESSOR],
        where: [forbidden],
    }
    answer, _ = answers(**found)
    leases = None if where == "accessor" else ["db/creds/a/1"]
    async with serving(answer) as store:
        error = await refused(store.revoke(BY, "accessor", leases))
    assert error.failure is Failure.FORBIDDEN
    assert "needs update on auth/token/revoke-accessor, auth/token/lookup-accessor" in str(error)


async def test_a_sealed_store_is_away() -> None:
    async with serving(says(503, {"errors": ["Vault is sealed"]})) as store:
        error = await refused(store.revoke(BY, "accessor", ["db/creds/a/1"]))
    assert error.failure is Failure.AWAY


@pytest.mark.parametrize(
    ("status", "body", "granted"),
    [
        (200, {"auth": {"lease_duration": 300}}, 300),
        (200, {"auth": {"lease_duration": 100}}, 100),
        (400, {"errors": ["lease is not renewable"]}, SESSION.seconds),
    ],
)
async def test_a_login_lives_for_as_long_as_the_store_says(status: int, body: object, granted: int) -> None:
    async with serving(says(status, body)) as store:
        assert await store.renew(SESSION, 300) == granted


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (403, {"errors": [CANARY]}, Failure.LOGIN),
        (500, {"errors": [CANARY]}, Failure.AWAY),
        (200, {"auth": CANARY}, Failure.UNFIT),
    ],
)
async def test_a_renewal_that_fails(status: int, body: object, failure: Failure) -> None:
    async with serving(says(status, body)) as store:
        assert (await refused(store.renew(SESSION, 300))).failure is failure


async def test_a_read_that_creates_something_is_sent_once_although_its_connection_breaks() -> None:
    asked = []

    async def breaks(request: web.Request) -> web.Response:
        asked.append(request.path)
        if len(asked) > 1 and request.transport is not None:
            request.transport.abort()
        return web.json_response({"data": {"token": "x"}})

    async with serving(breaks) as store:
        await store.read(SESSION, "kv/a")
        await refused(store.read(SESSION, "db/creds/a", leased=True))
    assert asked == ["/v1/kv/a", "/v1/db/creds/a"]
