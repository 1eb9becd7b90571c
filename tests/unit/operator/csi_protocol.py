"""The provider protocol of the Secrets Store CSI driver, by protobuf's own runtime and another gRPC, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream

_STRING, _INT32, _MESSAGE, _BYTES = 9, 5, 11, 12
_MESSAGES: dict[str, list[tuple[str, int, int, str, bool]]] = {
    # name, number, type, message, repeated: as in the driver's provider/v1alpha1/service.proto
    "VersionRequest": [("version", 1, _STRING, "", False)],
    "VersionResponse": [
        ("version", 1, _STRING, "", False),
        ("runtime_name", 2, _STRING, "", False),
        ("runtime_version", 3, _STRING, "", False),
    ],
    "MountRequest": [
        ("attributes", 1, _STRING, "", False),
        ("secrets", 2, _STRING, "", False),
        ("target_path", 3, _STRING, "", False),
        ("permission", 4, _STRING, "", False),
        ("current_object_version", 5, _MESSAGE, "ObjectVersion", True),
    ],
    "MountResponse": [
        ("object_version", 1, _MESSAGE, "ObjectVersion", True),
        ("error", 2, _MESSAGE, "Error", False),
        ("files", 3, _MESSAGE, "File", True),
    ],
    "File": [
        ("path", 1, _STRING, "", False),
        ("mode", 2, _INT32, "", False),
        ("contents", 3, _BYTES, "", False),
    ],
    "ObjectVersion": [("id", 1, _STRING, "", False), ("version", 2, _STRING, "", False)],
    "Error": [("code", 1, _STRING, "", False)],
}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="service.proto", package="v1alpha1", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of, repeated in fields:
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            added.type = kind  # type: ignore[assignment]
            if of:
                added.type_name = f".v1alpha1.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v1alpha1.{name}"))
        for name in _MESSAGES
    }


CLASSES = _classes()


def message(name: str, **fields: Any) -> Any:
    """A message by protobuf's own runtime."""
    return CLASSES[name](**fields)


class _Bytes(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:  # noqa: ARG002
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:  # noqa: ARG002
        return data


Answer = Callable[[str, bytes], Awaitable[bytes]]
"""The answer to a call: its method and its message. It may raise GRPCError."""


class _Provider:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __mapping__(self) -> dict[str, Handler]:
        def handler(method: str) -> Handler:
            async def serve(stream: Stream[bytes, bytes]) -> None:
                asked = await stream.recv_message()
                assert asked is not None
                await stream.send_message(await self._answer(method, asked))

            return Handler(serve, Cardinality.UNARY_UNARY, bytes, bytes)

        return {f"/v1alpha1.CSIDriverProvider/{name}": handler(name) for name in ("Version", "Mount")}


@asynccontextmanager
async def serving(socket: Path, answer: Answer) -> AsyncIterator[None]:
    """A provider at a socket."""
    server = Server([_Provider(answer)], codec=_Bytes())
    await server.start(path=str(socket))
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()
