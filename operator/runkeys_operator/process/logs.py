"""Logs: one line a record, as `key=value` text or as JSON.

Only the fields named here are ever printed, and of an exception that is not Runkeys' own only
its type and where it was raised: its text may quote what it could not parse.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

from runkeys._text.words import visible
from runkeys_operator.errors import ApiError, BackgroundError, LeaseLostError, LoginError, StartError

FIELDS = ("run", "task", "attempt", "job", "pod", "reason", "seconds")
_OUR_ERRORS = (ApiError, BackgroundError, LeaseLostError, LoginError, StartError)


class FieldLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that adds fields to its records: `log.info("deleted", extra={"run": key})`."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge the bound fields with the call's own, which win."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def bind(self, **fields: object) -> FieldLogger:
        """The same logger with more fields."""
        return FieldLogger(self.logger, {**(self.extra or {}), **fields})


def get_logger(name: str, **fields: object) -> FieldLogger:
    """A logger for the module `name` whose records carry `fields`, each one of FIELDS."""
    return FieldLogger(logging.getLogger(name), fields)


def configure(level: str, style: Literal["text", "json"]) -> None:
    """Send everything from `level` up to stderr. Loggers of other libraries log from WARNING up, unless at debug."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    others = logging.DEBUG if level.lower() == "debug" else logging.WARNING
    for name in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(others)


def describe(error: BaseException) -> str:
    """One line about an exception that cannot hold a secret: the text of Runkeys' own, else the type and the place."""
    if isinstance(error, _OUR_ERRORS):
        return str(error)
    return f"{type(error).__qualname__} {_places(error.__traceback__)}".rstrip()


def _places(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)[-5:]
    calls = " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames))
    return f"in {calls}" if calls else ""


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    return {name: record.__dict__[name] for name in FIELDS if record.__dict__.get(name) is not None}


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    return f"{message}: {describe(error)}" if error else message


def _time(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


class TextFormatter(logging.Formatter):
    """`<time> INFO    reconcile.apply  message  run=team-a/vqe-42 task=main`."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as one line."""
        name = record.name.removeprefix("runkeys_operator.")
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        line = (
            f"{_time(record)} {record.levelname:7} {name}  {_message(record)}{' ' if fields else ''}{fields}"
        )
        return visible(line.replace("\n", "\\n"), keep="")


class JsonFormatter(logging.Formatter):
    """The same as one JSON object: time, level, logger, message and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as one line."""
        entry = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **_fields(record),
        }
        return json.dumps(entry, default=str)
