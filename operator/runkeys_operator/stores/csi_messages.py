"""Messages of the Secrets Store CSI driver's provider protocol, ``v1alpha1.CSIDriverProvider``, as protobuf. Pure.

Written out by hand: there are two calls, whose messages hold texts, bytes and a number. A protobuf runtime would be
several times larger than everything that this operator knows of stores. The tests compare with its encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

VERSION = "v1alpha1"
"""Of the protocol; providers answer with it."""

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_VARINT = 10


class MessageError(ValueError):
    """What came is no such message. The text holds nothing of it."""


@dataclass(frozen=True)
class File:
    """A file of an answer: its path in the volume that there is not, and its content."""

    path: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class MountAnswer:
    """What a provider read.

    :ivar error: code of a failure; empty if there is none.
    """

    files: tuple[File, ...]
    error: str = ""


@dataclass(frozen=True)
class VersionAnswer:
    """Which protocol a provider speaks, its name and its own version."""

    version: str = ""
    name: str = ""
    release: str = ""


def version_request() -> bytes:
    """``VersionRequest``."""
    return _text(1, VERSION)


def mount_request(attributes: str, *, secrets: str, target: str, permission: str) -> bytes:
    """``MountRequest``. All are JSON texts but ``target``, which is a path."""
    return _text(1, attributes) + _text(2, secrets) + _text(3, target) + _text(4, permission)


def version_answer(data: bytes) -> VersionAnswer:
    """``VersionResponse``. Raises MessageError."""
    found = {number: value for number, value in _fields(data) if number in (1, 2, 3)}
    return VersionAnswer(*(_as_text(found.get(number, b"")) for number in (1, 2, 3)))


def mount_answer(data: bytes) -> MountAnswer:
    """``MountResponse``, without the versions of objects. Raises MessageError."""
    files: list[File] = []
    error = ""
    for number, value in _fields(data):
        if number == 2:
            error = next((_as_text(code) for inner, code in _fields(_as_bytes(value)) if inner == 1), error)
        elif number == 3:
            files.append(_file(_as_bytes(value)))
    return MountAnswer(tuple(files), error)


def _file(data: bytes) -> File:
    path, content = "", b""
    for number, value in _fields(data):
        if number == 1:
            path = _as_text(value)
        elif number == 3:
            content = _as_bytes(value)
    return File(path, content)


def _text(number: int, text: str) -> bytes:
    """A field that is a text. One that is empty is left out, which means the same."""
    data = text.encode()
    return _varint(number << 3 | _LENGTH) + _varint(len(data)) + data if data else b""


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field, in order. Those of fixed length, which no message here has, are skipped."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if kind == _LENGTH:
            length, at = _read_varint(data, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise MessageError("a field of a kind that does not exist")
        end = at + length
        if end > len(data):
            raise MessageError("a field that is cut off")
        if kind == _LENGTH:
            yield number, data[at:end]
        at = end


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST_VARINT):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise MessageError("a number that does not end")


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise MessageError("a number where bytes belong")
    return value


def _as_text(value: int | bytes) -> str:
    try:
        return _as_bytes(value).decode()
    except UnicodeDecodeError:
        raise MessageError("a text that is not UTF-8") from None
