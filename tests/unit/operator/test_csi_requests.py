"""Requests to providers of the CSI driver: what they are told, what becomes of their answers, what is never shown."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from runkeys.api.store import CsiStore
from runkeys_operator.stores import csi, grpc
from runkeys_operator.stores.csi import Csi, Providers
from runkeys_operator.stores.provider import Failure, Identity, NotRevocable, Session, StoreError
from tests.unit.operator.csi_protocol import CLASSES, Answer, message, serving

CANARY = "canary-5f7c1e0b9a3d4c62"
CLAIMS = {
    "aud": ["sts.amazonaws.com"],
    "iat": 1_800_000_000,
    "exp": 1_800_000_600,
    "kubernetes.io": {
        "namespace": "team-a",
        "pod": {"name": "task-1", "uid": "u-1"},
        "serviceaccount": {"name": "runner", "uid": "u-2"},
    },
}
TOKEN = ".".join(
    ("e30", base64.urlsafe_b64encode(json.dumps(CLAIMS).encode()).decode().rstrip("="), f"{CANARY}-signature")
)
OBJECTS = '- objectName: "{{ path }}"\n  objectAlias: "{{role}}"\n'


def spec(**changed: Any) -> CsiStore:
    return CsiStore.model_validate(
        {
            "provider": "aws",
            "audience": "sts.amazonaws.com",
            "parameters": {"region": "eu-central-1", "objects": OBJECTS},
            **changed,
        }
    )


def socket_in(folder: Path) -> Path:
    """Where a provider has to listen."""
    (folder / "aws").mkdir(exist_ok=True)
    return folder / "aws" / "aws.sock"


@asynccontextmanager
async def provider(folder: Path, answer: Answer) -> AsyncIterator[Csi]:
    async with serving(socket_in(folder), answer):
        yield Csi(Providers(folder), spec())


async def opened(store: Csi, role: str = "reader") -> Session:
    return await store.open(Identity(role, TOKEN))


def files(*contents: bytes) -> Answer:
    made = [CLASSES["File"](path=f"f{index}", contents=item) for index, item in enumerate(contents)]

    async def answer(method: str, _: bytes) -> bytes:
        assert method == "Mount"
        return bytes(message("MountResponse", files=made).SerializeToString())

    return answer


def fails(status: Status, said: str) -> Answer:
    async def answer(_: str, __: bytes) -> bytes:
        raise GRPCError(status, said)

    return answer


async def refused(work: Awaitable[object]) -> StoreError:
    with pytest.raises(StoreError) as raised:
        await work
    assert CANARY not in str(raised.value)
    assert CANARY not in repr(raised.value)
    return raised.value


async def test_a_provider_is_told_the_pod_by_what_its_token_says(tmp_path: Path) -> None:
    asked: list[Any] = []

    async def answer(_: str, data: bytes) -> bytes:
        asked.append(CLASSES["MountRequest"].FromString(data))
        return await files(b"value")("Mount", data)

    async with provider(tmp_path, answer) as store:
        session = await opened(store)
        assert await store.renew(session, 3600) == 600, "no longer than its token"
        found = await store.read(session, "prod/api")
        assert isinstance(await store.close(session), NotRevocable)
        assert "cannot be revoked" in (await store.revoke(session, "", None)).why
    assert found.content == b"value"
    assert found.lease is None
    (request,) = asked
    attributes = json.loads(request.attributes)
    tokens = json.loads(attributes.pop("csi.storage.k8s.io/serviceAccount.tokens"))
    assert tokens == {"sts.amazonaws.com": {"token": TOKEN, "expirationTimestamp": "2027-01-15T08:10:00Z"}}
    assert attributes == {
        "region": "eu-central-1",
        "objects": '- objectName: "prod/api"\n  objectAlias: "reader"\n',
        "csi.storage.k8s.io/pod.name": "task-1",
        "csi.storage.k8s.io/pod.namespace": "team-a",
        "csi.storage.k8s.io/pod.uid": "u-1",
        "csi.storage.k8s.io/serviceAccount.name": "runner",
        "csi.storage.k8s.io/ephemeral": "true",
    }
    assert request.secrets == "{}", "no credentials but the pod's token"
    assert json.loads(request.permission) == 0o400
    assert request.target_path == "/var/run/runkeys/no-volume"
    assert len(request.current_object_version) == 0
    assert CANARY not in f"{session!r} {found!r}"
    assert session.seconds == 600


async def test_the_content_is_a_value_and_its_keys_are_fields_if_it_is_json(tmp_path: Path) -> None:
    content = json.dumps({"token": CANARY, "port": 5432}).encode()
    async with provider(tmp_path, files(content)) as store:
        found = await store.read(await opened(store), "prod/api")
    assert found.fields == {"token": CANARY, "port": 5432}
    assert found.content == content
    for other in (b"text", b"[1]", b"\xff\xfe", b""):
        async with provider(tmp_path, files(other)) as store:
            found = await store.read(await opened(store), "prod/api")
        assert (found.fields, found.content) == ({}, other)


async def test_an_answer_has_one_file(tmp_path: Path) -> None:
    async with provider(tmp_path, files()) as store:
        error = await refused(store.read(await opened(store), "a"))
    assert (error.failure, "returned no file" in str(error)) == (Failure.UNFIT, True)
    async with provider(tmp_path, files(CANARY.encode(), b"b")) as store:
        error = await refused(store.read(await opened(store), "a"))
    assert (error.failure, "returned 2 files" in str(error)) == (Failure.UNFIT, True)


AWS = "eu-central-1: Failed fetching secret x: operation error Secrets Manager: GetSecretValue, StatusCode: 400, "


@pytest.mark.parametrize(
    ("status", "said", "failure"),
    [
        (Status.NOT_FOUND, CANARY, Failure.NOT_FOUND),
        (Status.PERMISSION_DENIED, CANARY, Failure.FORBIDDEN),
        (Status.UNAUTHENTICATED, CANARY, Failure.LOGIN),
        (Status.UNAVAILABLE, CANARY, Failure.AWAY),
        (Status.DEADLINE_EXCEEDED, CANARY, Failure.AWAY),
        (Status.UNKNOWN, CANARY, Failure.UNFIT),
        (Status.INTERNAL, f"ünknown {CANARY}%", Failure.UNFIT),
        # as providers hand it on
        (
            Status.UNKNOWN,
            f"{AWS}ResourceNotFoundException: Secrets Manager can't find it {CANARY}",
            Failure.NOT_FOUND,
        ),
        (
            Status.UNKNOWN,
            f"{AWS}AccessDeniedException: User: {CANARY} is not authorized to",
            Failure.FORBIDDEN,
        ),
        (
            Status.UNKNOWN,
            f"operation error STS: AssumeRoleWithWebIdentity, StatusCode: 403, AccessDenied: {CANARY}",
            Failure.LOGIN,
        ),
        (
            Status.UNKNOWN,
            f"RESPONSE 404: 404 Not Found ERROR CODE: SecretNotFound {CANARY}",
            Failure.NOT_FOUND,
        ),
        (
            Status.UNKNOWN,
            f"RESPONSE 403: 403 Forbidden ERROR CODE: ForbiddenByRbac {CANARY}",
            Failure.FORBIDDEN,
        ),
        (
            Status.UNKNOWN,
            f"invalid_client AADSTS700213: no matching federated identity {CANARY}",
            Failure.LOGIN,
        ),
        (Status.PERMISSION_DENIED, f"unable to obtain auth for mount: {CANARY}", Failure.LOGIN),
        (
            Status.UNKNOWN,
            f"failed to login: URL: PUT https://bao/v1/auth/jwt/login Code: 403. {CANARY} permission denied",
            Failure.LOGIN,
        ),
        (Status.UNKNOWN, f"URL: GET https://bao/v1/kv/data/a Code: 403. {CANARY}", Failure.FORBIDDEN),
        (Status.UNKNOWN, f'key "{CANARY}" does not exist at the secret path', Failure.NOT_FOUND),
    ],
)
async def test_what_a_provider_says_is_shown_nowhere(
    tmp_path: Path, status: Status, said: str, failure: Failure
) -> None:
    async with provider(tmp_path, fails(status, said)) as store:
        assert (await refused(store.read(await opened(store), "a"))).failure is failure


async def test_an_error_inside_of_the_answer_is_one(tmp_path: Path) -> None:
    async def answer(_: str, __: bytes) -> bytes:
        made = message("MountResponse", error=CLASSES["Error"](code="SecretNotFound"))
        return bytes(made.SerializeToString())

    async with provider(tmp_path, answer) as store:
        assert (await refused(store.read(await opened(store), "a"))).failure is Failure.NOT_FOUND


async def test_a_provider_is_ready_when_it_speaks_the_protocol(tmp_path: Path) -> None:
    async def version(method: str, data: bytes) -> bytes:
        assert (method, CLASSES["VersionRequest"].FromString(data).version) == ("Version", "v1alpha1")
        return bytes(message("VersionResponse", version=spoken, runtime_name=CANARY).SerializeToString())

    for spoken in ("v1alpha1", "v2", ""):
        async with provider(tmp_path, version) as store:
            if spoken == "v1alpha1":
                await store.check()
            else:
                error = await refused(store.check())
                assert "does not speak v1alpha1" in str(error)


async def test_one_that_is_not_there_is_away_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csi, "_AWAY_SECONDS", 0.0)
    store = Csi(Providers(tmp_path), spec())
    error = await refused(store.check())
    assert error.failure is Failure.AWAY
    assert f"provider aws at {tmp_path}/aws/aws.sock is not there; see container provider-aws" in str(error)
    socket_in(tmp_path).touch()
    assert "cannot be reached: Connection refused" in str(await refused(store.check()))
    socket_in(tmp_path).unlink()
    async with serving(socket_in(tmp_path), files(b"x")):
        assert (await store.read(await opened(store), "a")).content == b"x"


async def test_one_that_does_not_answer_is_left_and_nobody_waits_for_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csi, "_SECONDS", 0.2)
    asked = []

    async def never(method: str, _: bytes) -> bytes:
        asked.append(method)
        await asyncio.sleep(5)
        return b""

    async with provider(tmp_path, never) as store:
        for _ in range(3):
            error = await refused(store.read(await opened(store), "a"))
            assert error.failure is Failure.AWAY
            assert "does not answer in time" in str(error)
    assert asked == ["Mount"]


async def test_an_answer_is_read_up_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = CANARY.encode() * 20_000
    async with provider(tmp_path, files(large)) as store:
        assert (await store.read(await opened(store), "a")).content == large
        monkeypatch.setattr(grpc, "LARGEST_ANSWER", 100_000)
        error = await refused(store.read(await opened(store), "a"))
    assert error.failure is Failure.UNFIT
    assert "the answer has more than 100000 bytes" in str(error)


async def test_a_request_is_as_long_as_every_server_takes(tmp_path: Path) -> None:
    async with provider(tmp_path, files(b"x")) as store:
        store._spec = spec(parameters={f"p{index}": "{{ path }}" + "x" * 8000 for index in range(7)})
        assert (await store.read(await opened(store), "a")).content == b"x"
        store._spec = spec(parameters={f"p{index}": "{{ path }}" + "x" * 8000 for index in range(8)})
        assert "the request has more than 60000 bytes" in str(
            await refused(store.read(await opened(store), "a"))
        )


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64, b"\xff" * 4096])
async def test_what_speaks_something_else_is_away(tmp_path: Path, said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(said)
        writer.close()

    server = await asyncio.start_unix_server(answer, socket_in(tmp_path))
    async with server:
        store = Csi(Providers(tmp_path), spec())
        assert (await refused(store.read(await opened(store), "a"))).failure is Failure.AWAY


async def test_messages_that_are_none_are_refused(tmp_path: Path) -> None:
    async def answer(_: str, __: bytes) -> bytes:
        return b"\x1a\x7f" + CANARY.encode()

    async with provider(tmp_path, answer) as store:
        assert "answers with a field that is cut off" in str(
            await refused(store.read(await opened(store), "a"))
        )
        assert (await refused(store.check())).failure is Failure.AWAY


@pytest.mark.parametrize("token", [CANARY, f"a.{CANARY}.b", "a.W10.b"])
async def test_a_token_that_is_no_jwt_is_not_sent(tmp_path: Path, token: str) -> None:
    store = Csi(Providers(tmp_path), spec())
    with pytest.raises(StoreError, match="is no JWT"):
        await store.open(Identity("", token))
