"""What others write may be anything: it never keeps the operator from seeing and serving the rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runkeys_operator.checks.policies import PolicyCheck
from runkeys_operator.controllers.key import Key, Kind
from runkeys_operator.controllers.manager import Manager
from runkeys_operator.controllers.runs import resync
from runkeys_operator.controllers.runs.cache import OwnedObjects
from runkeys_operator.controllers.runs.resync import Resync
from runkeys_operator.controllers.workqueue import ReconcileQueue
from runkeys_operator.errors import ApiError, Unreachable
from runkeys_operator.kube import RUNS, Kube
from runkeys_operator.kube.credentials import Access
from runkeys_operator.kube.login import Login
from runkeys_operator.kube.watch import Watch
from runkeys_operator.values.keys import Keys

DEEP = 9_000
"""Levels: the API server takes up to 10,000."""


def metadata(name: str, version: int = 7) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "team-a",
        "uid": f"{name}-uid",
        "generation": 1,
        "resourceVersion": str(version),
    }


def item(name: str, version: int = 7) -> bytes:
    return json.dumps({"metadata": metadata(name, version)}).encode()


def nested(levels: int, *, within: bytes = b"1", by: tuple[bytes, bytes] = (b'{"a":', b"}")) -> bytes:
    return by[0] * levels + within + by[1] * levels


def deep_item(name: str) -> bytes:
    """A run whose input, and with it the list of its fields' managers, is nested as deep as the server takes it."""
    head = json.dumps({"metadata": metadata(name)})[:-2]
    return (
        head.encode() + b',"managedFields":[' + nested(DEEP) + b']},"spec":{"input":' + nested(DEEP) + b"}}"
    )


def event(found: bytes, kind: str = "MODIFIED") -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + found + b"}"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
parts = st.sampled_from(["name", "namespace", "uid", "resourceVersion", "generation", "labels"])
wrong_items = st.builds(
    lambda part, value: json.dumps({"metadata": {**metadata("wrong"), part: value}}).encode(),
    parts,
    json_values,
)
hostile_items = (
    st.binary(max_size=60).map(lambda text: text.replace(b"\n", b" "))
    | json_values.map(lambda value: json.dumps(value).encode())
    | wrong_items
    | st.just(deep_item("deep"))
    | st.just(nested(DEEP, by=(b"[", b"]")))
    | st.just(b"[" * DEEP)
    | st.just(b'{"metadata":{"resourceVersion":' + b"9" * 5000 + b"}}")
)
"""What might stand where an object is expected."""


class Answers:
    """A server that answers each request with the next of ``bodies``, and then with nothing more."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.status = "200 OK"
        self.asked: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode().partition(" HTTP/")[0])
            if self.bodies:
                head = f"HTTP/1.1 {self.status}\r\nConnection: close\r\n\r\n".encode()
                writer.write(head + self.bodies.pop(0))
            await writer.drain()
        writer.close()


@asynccontextmanager
async def connected(answers: Answers) -> AsyncIterator[Kube]:
    server = await asyncio.start_server(answers, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    login = Login(lambda: Access(f"http://{host}:{port}"))
    async with server:
        try:
            yield Kube(login)
        finally:
            await login.close()


@asynccontextmanager
async def answering(*bodies: bytes, status: str = "200 OK") -> AsyncIterator[Kube]:
    answers = Answers()
    answers.bodies, answers.status = list(bodies), status
    async with connected(answers) as kube:
        yield kube


def page(items: Iterable[bytes]) -> bytes:
    return b'{"metadata":{"resourceVersion":"5"},"items":[' + b",".join(items) + b"]}"


async def seen(listed: bytes, *lines: bytes) -> list[str]:
    """Names of the runs that a watch shows, until it would have to ask a third time."""
    names: list[str] = []

    def saw(event: dict[str, Any]) -> None:
        metadata = event["object"]["metadata"]
        names.append(Key.of(Kind.RUN, metadata).name)

    async with answering(listed, b"".join(line + b"\n" for line in lines)) as kube:
        watch = asyncio.create_task(Watch(kube, RUNS, None, saw).run())
        while "last" not in names:
            await asyncio.sleep(0)
            assert not watch.done(), watch.exception()
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
    return names


def run(main: Callable[[], Any]) -> Any:
    return asyncio.run(main())


@settings(deadline=None, max_examples=60)
@given(st.lists(hostile_items, min_size=1, max_size=4))
def test_a_watch_goes_on_past_any_object(hostile: list[bytes]) -> None:
    lines = [event(found) for found in hostile]
    names = run(lambda: seen(page([item("listed")]), *lines, event(item("last"))))
    assert (names[0], names[-1]) == ("listed", "last")


def test_a_watch_goes_on_past_lines_that_are_no_events() -> None:
    lines = (b"null", b"[]", b'{"type":"ADDED"}', b'{"object":{}}', b'{"type":1,"object":{}}', b"{", b'"')
    assert run(lambda: seen(page([item("listed")]), *lines, event(item("last")))) == ["listed", "last"]


def test_a_list_with_a_deep_object_shows_all_of_them() -> None:
    listed = page([item("before"), deep_item("deep"), item("after")])
    assert run(lambda: seen(listed, event(deep_item("deep")), event(item("last")))) == [
        "before",
        "deep",
        "after",
        "deep",
        "last",
    ]


def test_a_watch_of_which_nothing_can_be_read_is_no_watch_of_an_api_server() -> None:
    async def watch() -> None:
        async with answering(b"<html>\n</html>\n") as kube:
            async for _ in kube.watch(RUNS, None, since="1", opened=lambda: None):
                pytest.fail("it showed something")

    with pytest.raises(Unreachable, match="not from an API server"):
        run(watch)


def valid_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except RecursionError:
        return text.count(b"[") == text.count(b"]")
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module")
def watches_are_prompt() -> Iterator[None]:
    """Nothing is shown by any watch here, so that a sweep need not wait for one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resync, "_WATCH_LAG_SECONDS", 0)
        yield


@pytest.mark.usefixtures("watches_are_prompt")
@settings(deadline=None, max_examples=60)
@given(st.lists(hostile_items.filter(valid_json), min_size=1, max_size=4))
def test_a_sweep_finds_the_runs_beside_any_object(hostile: list[bytes]) -> None:
    async def look() -> set[Key]:
        nothing = page([])
        listed = page([item("before"), *hostile, item("after")])
        async with answering(page(hostile), page(hostile), listed, nothing) as kube:
            sweeper = Resync(kube, OwnedObjects(), ())
            return (await sweeper.resync({})).read

    assert {Key(Kind.RUN, "team-a", "before"), Key(Kind.RUN, "team-a", "after")} <= run(look)


bodies = st.binary(max_size=60) | st.builds(
    lambda kind, part, value: json.dumps(
        {"kind": kind, "metadata": {"resourceVersion": "1"}, "items": [], "code": 500, part: value}
    ).encode(),
    st.sampled_from(["Status", "List"]),
    st.sampled_from(["metadata", "items", "details", "reason", "message", "code"]),
    json_values | st.fixed_dictionaries({"causes": json_values, "retryAfterSeconds": json_values}),
)
"""What might stand where a list or a refusal is expected."""


@settings(deadline=None, max_examples=100)
@given(bodies, st.sampled_from(["200 OK", "403 Forbidden", "500 Error"]))
def test_an_answer_that_is_none_is_a_failed_request(body: bytes, status: str) -> None:
    async def ask() -> None:
        async with answering(body, status=status) as kube:
            await kube.list(RUNS, None)

    with suppress(ApiError):
        run(ask)


@settings(deadline=None, max_examples=60)
@given(
    json_values
    | st.fixed_dictionaries({"code": json_values, "details": json_values, "kind": st.just("Status")})
)
def test_an_error_in_a_watch_is_an_error_of_the_api(found: Any) -> None:
    async def watch() -> None:
        async with answering(event(json.dumps(found).encode(), "ERROR") + b"\n") as kube:
            async for _ in kube.watch(RUNS, None, since="1", opened=lambda: None):
                pytest.fail("it showed something")

    with pytest.raises(ApiError):
        run(watch)


def test_a_page_that_is_no_json_is_a_failed_request() -> None:
    async def ask() -> None:
        async with answering(b"[" * DEEP) as kube:
            await kube.list(RUNS, None)

    with pytest.raises(ApiError, match="not from an API server"):
        run(ask)


async def test_that_a_run_cannot_be_read_is_said_once() -> None:
    """To say it changes the run, which the watch shows, upon which it is read again."""
    key = Key(Kind.RUN, "team-a", "later")
    raw = {"metadata": metadata("later"), "spec": {"tasks": [], "ofALaterVersion": 1}}
    condition = {"type": "Stalled", "status": "True", "reason": "Invalid", "observedGeneration": 1}
    message = "this version of Runkeys cannot read it: spec.tasks: List should have at least 1 item after"
    message += " validation, not 0; spec.ofALaterVersion: Extra inputs are not permitted"
    told = {**condition, "message": message, "lastTransitionTime": "2026-01-05T12:00:00Z"}
    status = {"observedGeneration": 1, "conditions": [told]}
    answers = Answers()
    answers.bodies = [json.dumps(item).encode() for item in (raw, {}, {**raw, "status": status})]
    async with connected(answers) as kube:
        manager = Manager(kube, ReconcileQueue[Key](), (), Keys(kube, None), PolicyCheck(kube, (), None))
        assert await manager.reconcile(key) is None
        assert await manager.reconcile(key) is None
    assert [request.partition(" ")[0] for request in answers.asked] == ["GET", "PATCH", "GET"]
