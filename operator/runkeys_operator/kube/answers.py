"""Parses the API server's answers, and errors for requests without one."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import aiohttp

from runkeys._text import documents
from runkeys_operator.errors import Unreachable, from_response

Json = dict[str, Any]
Objects = list[Json]

NO_API_SERVER = "the answer is not from an API server"


class Page(NamedTuple):
    """A part of a list, and the version from which a watch shows what follows the list."""

    items: Objects
    version: str


def read_page(answer: Json, request: str) -> tuple[Page, str]:
    """The page, and the token by which the next one is asked for; empty after the last."""
    metadata, items = answer.get("metadata"), answer.pop("items", None) or []
    if isinstance(metadata, dict) and isinstance(items, list):
        version, token = metadata.get("resourceVersion"), metadata.get("continue") or ""
        if isinstance(version, str) and isinstance(token, str):
            return Page(items, version), token
    raise Unreachable(NO_API_SERVER, request=request)


def read_event(line: bytes, request: str) -> Json | None:
    """The event in a line of a watch; None if it cannot be read."""
    try:
        event = documents.read(line)
    except ValueError:
        return None
    found = event.get("object") if isinstance(event, dict) else None
    if not isinstance(found, dict) or not isinstance(event.get("type"), str):
        return None
    if event["type"] == "ERROR":
        code = found.get("code")
        status = code if isinstance(code, int) and code >= 300 else 500
        raise from_response(status, {}, json.dumps(found).encode(), request=request, secret=False)
    metadata = found.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return event if isinstance(version, str) else None


def unreachable(error: Exception, request: str) -> Unreachable:
    """The error for a request that got no answer."""
    if isinstance(error, TimeoutError):
        return Unreachable("no answer in time", request=request)
    untrusted = isinstance(error, aiohttp.ClientConnectorCertificateError)
    # The operating system's errors say what is wrong; aiohttp's may quote what they could not parse.
    message = str(error) if isinstance(error, OSError) or untrusted else ""
    return Unreachable(message or type(error).__name__, request=request, untrusted=untrusted)
