"""One gRPC call on a connection of its own to a unix socket, bounded in time and size.

The calls are few, far apart and unary, so a connection is opened for each: there is none to be kept alive, and none
that has ended unseen. A general client would take an answer of any size that it announces.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from h2.connection import H2Connection

LARGEST_REQUEST = 60_000
"""Bytes. It is sent whole before the server says how much it takes, and 65,535 are what each one must take."""

LARGEST_ANSWER = 1 << 20
"""Bytes. All values of an attempt have half of that at most."""

_HEADERS = 65_536
_FRAME = 16_384
_STREAM = 1


class Unanswered(Exception):
    """No answer came. The text says why, in words for the end of a sentence."""


class TooLarge(Exception):
    """The request or the answer has more bytes than allowed."""


class Refused(Exception):
    """The server answered with a status that is not OK.

    :ivar status: its number. :ivar message: what the server said, which may hold anything and is shown nowhere.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"gRPC status {status}")
        self.status = status
        self.message = message


@dataclass
class _Answer:
    headers: dict[str, str] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)
    ended: bool = False


async def call(socket: Path, method: str, message: bytes, *, seconds: float) -> bytes:
    """Send a message to a method, such as ``/package.Service/Method``, and return the message of its answer.

    :raises Unanswered, TooLarge, Refused:
    """
    if len(message) > LARGEST_REQUEST:
        raise TooLarge(f"the request has more than {LARGEST_REQUEST} bytes")
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                answer = await _ask(reader, writer, method, message, seconds)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        raise Unanswered("does not answer in time") from None
    except FileNotFoundError:
        raise Unanswered("is not there") from None
    except OSError as error:
        raise Unanswered(f"cannot be reached: {error.strerror or type(error).__name__}") from None
    return _message(answer)


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, message: bytes, seconds: float
) -> _Answer:
    from h2.exceptions import ProtocolError

    connection = _connection()
    connection.send_headers(
        _STREAM,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", f"{int(seconds * 1000)}m"),
            ("user-agent", "runkeys-operator"),
        ],
    )
    data = b"\0" + len(message).to_bytes(4) + message
    for start in range(0, len(data), _FRAME):
        part = data[start : start + _FRAME]
        connection.send_data(_STREAM, part, end_stream=start + _FRAME >= len(data))
    answer = _Answer()
    try:
        while not answer.ended:
            writer.write(connection.data_to_send())
            await writer.drain()
            received = await reader.read(65_536)
            if not received:
                raise Unanswered("ended the connection")
            for event in connection.receive_data(received):
                _take(connection, event, answer)
    except ProtocolError:
        raise Unanswered("does not speak HTTP/2") from None
    return answer


def _connection() -> H2Connection:
    # Operators without providers need none of it in memory.
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.settings import SettingCodes, Settings

    found = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    wanted = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: _HEADERS}
    found.local_settings = Settings(client=True, initial_values=wanted)
    found.initiate_connection()
    return found


def _take(connection: H2Connection, event: Any, answer: _Answer) -> None:
    from h2 import events

    if isinstance(event, events.DataReceived):
        answer.content += event.data or b""
        if len(answer.content) > LARGEST_ANSWER:
            raise TooLarge(f"the answer has more than {LARGEST_ANSWER} bytes")
        connection.acknowledge_received_data(event.flow_controlled_length or 0, _STREAM)
    elif isinstance(event, events.ResponseReceived | events.TrailersReceived):
        answer.headers |= {_as_text(name): _as_text(value) for name, value in event.headers or ()}
    elif isinstance(event, events.StreamEnded):
        answer.ended = True
    elif isinstance(event, events.StreamReset | events.ConnectionTerminated) and not answer.ended:
        raise Unanswered("ended the call")


def _as_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _message(answer: _Answer) -> bytes:
    """The message of an answer whose status is OK."""
    headers: Mapping[str, str] = answer.headers
    if headers.get(":status") != "200" or "grpc-status" not in headers:
        raise Unanswered("does not speak gRPC")
    status = headers["grpc-status"]
    if status != "0":
        raise Refused(
            int(status) if status.isdecimal() and len(status) < 4 else 2,
            unquote(headers.get("grpc-message", "")),
        )
    content = bytes(answer.content)
    # The first byte says whether it is compressed, which was not asked for.
    if len(content) < 5 or content[0] != 0 or int.from_bytes(content[1:5]) != len(content) - 5:
        raise Unanswered("answers with something that is no single message")
    return content[5:]
