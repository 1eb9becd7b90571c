"""Masks secret values in text.

`Masker` masks texts. `install` masks the output and logs of this process, and `remember` adds a value. Output that a
child process prints itself, or that C code writes to the file descriptor, is not masked.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable
from typing import Any, BinaryIO, cast
from urllib.parse import quote, quote_plus

MASK = "[redacted]"
SHORTEST = 3
"""Minimum length of a masked value in characters. Shorter texts occur everywhere, and masking them would spoil logs."""

SWITCH = "RUNKEYS_MASKING"
"""Name of the variable that disables masking with the value ``off``."""

_WRAPPED_AT = (64, 76)  # characters in a line of base64: PEM, and MIME and the command `base64`


class Masker:
    """Masks values, each line of values with several lines, and the values' encoded forms.

    These forms are base64, URL encoding, hexadecimal digits, and the escapes of JSON and of ``repr``. Base64 is also
    masked when it is wrapped into lines, and, for values of at least 8 bytes, when the value is part of longer encoded
    data. No form extends past the end of a line.
    """

    def __init__(self, values: Iterable[bytes] = ()) -> None:
        self._values: set[bytes] = set()
        self._forms: set[bytes] = set()
        self._pattern: re.Pattern[bytes] | None = None
        for value in values:
            self._add(value)
        self._compile()

    def add(self, value: bytes) -> None:
        """Mask one more value."""
        if value not in self._values:
            self._add(value)
            self._compile()

    def mask(self, text: str) -> str:
        """Return the text with each value replaced by ``[redacted]``."""
        if self._pattern is None:
            return text
        encoded = text.encode(errors="surrogatepass")
        masked = self.mask_bytes(encoded)
        return text if masked is encoded else masked.decode(errors="surrogatepass")

    def mask_bytes(self, text: bytes) -> bytes:
        """Do the same for text in UTF-8."""
        # Searching for one form after the other is many times faster than for all in one pattern.
        if self._pattern is None or not any(form in text for form in self._forms):
            return text
        return self._pattern.sub(MASK.encode(), text)

    def split(self, text: bytes) -> tuple[bytes, bytes]:
        """Split ``text`` into a masked part that can be shown, and an unmasked end that may be the start of a value."""
        cut = len(text) - self._held_back(text)
        if self._pattern is not None and cut < len(text):
            # What is held back begins in the middle of a whole value: then that ends first.
            cut = next(
                (found.end() for found in self._pattern.finditer(text) if found.start() < cut < found.end()),
                cut,
            )
        return self.mask_bytes(text[:cut]), text[cut:]

    def _held_back(self, text: bytes) -> int:
        line = text[text.rfind(b"\n") + 1 :]
        if not line:
            return 0
        return max((_overlap(line, form) for form in self._forms), default=0)

    def _add(self, value: bytes) -> None:
        self._values.add(value)
        self._forms.update(form.encode(errors="surrogatepass") for form in _forms(value))

    def _compile(self) -> None:
        longest_first = sorted(self._forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile(b"|".join(map(re.escape, longest_first))) if longest_first else None


def _overlap(line: bytes, form: bytes) -> int:
    """Return how many bytes at the end of ``line`` are the start of ``form``, but not all of it."""
    head = form[:8]
    at = line.find(head, max(0, len(line) - len(form) + 1))
    while at >= 0:
        if form.startswith(line[at:]):
            return len(line) - at
        at = line.find(head, at + 1)
    shorter = range(min(len(head), len(line) + 1, len(form)) - 1, 0, -1)
    return next((length for length in shorter if line.endswith(head[:length])), 0)


def _forms(value: bytes) -> Iterable[str]:
    text = value.decode(errors="replace")
    lines = {line.strip() for line in text.splitlines()} | {text, text.strip()}
    for line in lines:
        if len(line) < SHORTEST:
            continue
        escaped = (quote(line, safe=""), quote_plus(line), json.dumps(line)[1:-1], repr(line)[1:-1])
        for form in (line, *escaped, json.dumps(line, ensure_ascii=False)[1:-1]):
            if "\n" not in form and "\r" not in form:
                yield form
    if len(value) < SHORTEST:
        return
    yield from (value.hex(), value.hex().upper())
    whole = base64.b64encode(value).decode()
    yield from (whole, whole.rstrip("="))
    for width in _WRAPPED_AT:
        if len(whole) > width:
            yield from (whole[at : at + width] for at in range(0, len(whole), width) if len(whole) - at >= 8)
    # In the middle of something else the first and last characters of base64 depend on what is around.
    if len(value) >= 8:
        for skip in range(3):
            begin = -(-4 * skip // 3)
            end = len(value) - (len(value) + skip) % 3
            yield base64.b64encode(b"\0" * skip + value[:end]).decode()[begin:]
            yield base64.urlsafe_b64encode(b"\0" * skip + value[:end]).decode()[begin:]


# what this process prints

_masker = Masker()
_installed: list[_Masked] = []


def remember(value: str | bytes) -> None:
    """Mask ``value`` in everything that this process prints and logs from now on, if `install` was called."""
    _masker.add(value.encode(errors="surrogatepass") if isinstance(value, str) else value)


def masked(text: str) -> str:
    """Return the text with all remembered values masked."""
    return _masker.mask(text)


def install() -> None:
    """Mask values in ``sys.stdout``, ``sys.stderr`` and all loggers. Further calls have no effect.

    Does nothing if the variable RUNKEYS_MASKING is ``off``. If the end of the output may be the start of a value, it is
    held back until more output comes, the line ends or the process ends. ``flush`` does not release it. Streams without
    a ``buffer``, such as those of notebooks, are not changed.
    """
    if _installed or os.environ.get(SWITCH, "").lower() == "off":
        return
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        buffer = getattr(stream, "buffer", None)
        if buffer is None:
            continue
        stream.flush()
        raw = _Masked(buffer, stream)
        _installed.append(raw)
        replaced = _Text(raw, stream)
        setattr(sys, name, replaced)
        _move_handlers(stream, replaced)
    logging.setLogRecordFactory(_masking(logging.getLogRecordFactory()))
    atexit.register(_let_go)
    os.register_at_fork(after_in_child=_forget_held)


class _Masked(io.BufferedIOBase):
    """A byte stream that masks its output."""

    def __init__(self, target: BinaryIO, owner: Any) -> None:
        self._target = target
        self._owner = owner  # else it would be collected, and close what it wrote to
        self._held = b""
        self._holds = True
        self._lock = threading.RLock()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._target.isatty()

    def fileno(self) -> int:
        return self._target.fileno()

    def write(self, data: Any) -> int:
        given = bytes(data)
        with self._lock:
            if self._holds:
                out, self._held = _masker.split(self._held + given)
            else:
                out = _masker.mask_bytes(given)
            self._target.write(out)
        return len(given)

    def flush(self) -> None:
        if not self._target.closed:
            self._target.flush()

    def let_go(self) -> None:
        """Write what is held back, because no more output will come."""
        with self._lock:
            self._holds = False
            out, self._held = self._held, b""
            if out and not self._target.closed:
                self._target.write(_masker.mask_bytes(out))
                self.flush()

    def forget(self) -> None:
        """Drop what is held back. Called in a child process, since the parent prints it."""
        self._held, self._lock = b"", threading.RLock()


class _Text(io.TextIOWrapper):
    """A text stream with the name of the stream that it replaces."""

    def __init__(self, raw: _Masked, stream: Any) -> None:
        super().__init__(
            cast("BinaryIO", raw),
            encoding="utf-8",
            errors=getattr(stream, "errors", None) or "backslashreplace",
            newline="",
            line_buffering=bool(getattr(stream, "line_buffering", True)),
            write_through=True,
        )
        self._name = getattr(stream, "name", "")

    @property
    def name(self) -> str:
        """Name of the stream, such as ``<stdout>``."""
        return str(self._name)


def _move_handlers(old: Any, new: Any) -> None:
    """Let log handlers that use the old stream use the new one."""
    known = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in known:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)


def _masking(make: Any) -> Any:
    """Return a factory of log records whose messages and tracebacks are masked, wherever handlers send them."""

    def record_of(*arguments: Any, **named: Any) -> logging.LogRecord:
        record: logging.LogRecord = make(*arguments, **named)
        with contextlib.suppress(
            Exception
        ):  # a message that does not fit its arguments is the handler's to report
            message = record.getMessage()
            without = masked(message)
            if without != message:
                record.msg, record.args = without, ()
        if record.exc_info and record.exc_info[0] is not None:
            text = logging.Formatter().formatException(record.exc_info)
            without = masked(text)
            if without != text:
                record.exc_text = without
        return record

    return record_of


def _let_go() -> None:
    for stream in _installed:
        stream.let_go()


def _forget_held() -> None:
    for stream in _installed:
        stream.forget()
