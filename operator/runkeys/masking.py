"""Masks secret values in text.

`Masker` masks texts. `install` masks the output and logs of this process, and `remember` adds a value. Output that a
child process prints itself, or that C code writes to the file descriptor, is not masked.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import io
import logging
import os
import sys
import threading
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, cast

from runkeys._text import encodings
from runkeys._text.parts import parts_of

MASK = "[redacted]"
SHORTEST = 3
"""Minimum length of a masked value in characters. Shorter texts occur everywhere, and masking them would spoil logs."""

SWITCH = "RUNKEYS_MASKING"
"""Name of the variable that disables masking with the value ``off``."""

_MANY = 300
"""Beginnings that are cheaper to look for one after the other than at each place of a text."""

_WRAPPED_AT = (64, 76)  # characters in a line of base64: PEM, and MIME and the command `base64`


class Masker:
    """Masks values, each line of values with several lines, parts of values, and all of these in other encodings.

    The encodings are those of `runkeys._text.encodings`. Base64 is also masked when it is wrapped into lines, and, for
    values of at least 8 bytes, when the value is part of longer encoded data. No form extends past the end of a line.
    Parts are the texts and numbers of a value that is JSON, the password of a URL, and what stands after ``name:`` or
    ``name=`` in a line, from 6 characters on.
    """

    def __init__(self, values: Iterable[bytes] = ()) -> None:
        self._values: set[bytes] = set()
        self._forms: set[bytes] = set()
        self._heads: dict[bytes, list[bytes]] = {}
        self._starts: set[bytes] = set()
        self._longest = 0
        for value in values:
            self.add(value)

    def add(self, value: bytes) -> None:
        """Mask one more value."""
        if value in self._values:
            return
        self._values.add(value)
        parts = parts_of(value.decode(errors="replace"))
        for text in (value, *(part.encode(errors="surrogatepass") for part in parts)):
            for form in _forms(text):
                self._add_form(form)

    def mask(self, text: str) -> str:
        """Return the text with each value replaced by ``[redacted]``."""
        if not self._forms:
            return text
        # Python reads bytes that are no UTF-8 as surrogates of one kind; those of other kinds are halves of characters.
        errors = "surrogateescape"
        try:
            encoded = text.encode(errors=errors)
        except UnicodeEncodeError:
            errors = "surrogatepass"
            encoded = text.encode(errors=errors)
        masked = self.mask_bytes(encoded)
        return text if masked is encoded else masked.decode(errors=errors)

    def mask_bytes(self, text: bytes) -> bytes:
        """Do the same for text in UTF-8."""
        kept: list[bytes] = []
        at = 0
        for begin, end in self._found(text):
            kept += (text[at:begin], MASK.encode())
            at = end
        return b"".join((*kept, text[at:])) if at else text

    def split(self, text: bytes) -> tuple[bytes, bytes]:
        """Split ``text`` into a masked part that can be shown, and an unmasked end that may be the start of a value."""
        cut = len(text) - self._held_back(text)
        if cut < len(text):
            # What is held back begins in the middle of a whole value: then that ends first.
            cut = next((end for begin, end in self._found(text) if begin < cut < end), cut)
        return self.mask_bytes(text[:cut]), text[cut:]

    def _found(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Where forms begin and end: from left to right, and of several that begin at one place the longest."""
        after = 0
        for at in self._places(text):
            if at < after:
                continue
            for form in self._heads.get(text[at : at + SHORTEST], ()):
                if text.startswith(form, at):
                    after = at + len(form)
                    yield at, after
                    break

    def _held_back(self, text: bytes) -> int:
        """Return how many bytes at the end of ``text`` are the start of a form, but not all of it."""
        line = text[max(text.rfind(b"\n") + 1, len(text) - self._longest + 1) :]
        for at in self._places(line):
            rest = line[at:]
            for form in self._heads.get(rest[:SHORTEST], ()):
                if len(form) > len(rest) and form.startswith(rest):
                    return len(rest)
        ends = (line[-length:] for length in range(SHORTEST - 1, 0, -1) if length <= len(line))
        return next((len(end) for end in ends if end in self._starts), 0)

    def _places(self, text: bytes) -> Sequence[int]:
        """Places at which a form may begin, in order. That there are none, as nearly always, is found fast."""
        if len(self._heads) > min(len(text), _MANY):
            heads, last = self._heads, len(text) - SHORTEST + 1
            return [at for at in range(last) if text[at : at + SHORTEST] in heads]
        return sorted(at for head in self._heads for at in _all(text, head))

    def _add_form(self, form: bytes) -> None:
        if form not in self._forms:
            self._forms.add(form)
            insort(self._heads.setdefault(form[:SHORTEST], []), form, key=lambda item: -len(item))
            self._starts.update(form[:length] for length in range(1, SHORTEST))
            self._longest = max(self._longest, len(form))


def _all(text: bytes, part: bytes) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)


def _forms(value: bytes) -> Iterator[bytes]:
    text = value.decode(errors="replace")
    lines = {line.strip() for line in text.splitlines()} | {text, text.strip()}
    for line in lines:
        if len(line) < SHORTEST:
            continue
        for _, form in encodings.text_forms(line):
            encoded = form.encode(errors="surrogatepass")
            if _fits(encoded):
                yield encoded
    if len(value) < SHORTEST:
        return
    yield from (form for _, form in encodings.byte_forms(value) if _fits(form))
    whole = base64.b64encode(value)
    yield from (whole, whole.rstrip(b"="))
    for width in _WRAPPED_AT:
        if len(whole) > width:
            yield from (whole[at : at + width] for at in range(0, len(whole), width) if len(whole) - at >= 8)


def _fits(form: bytes) -> bool:
    """Whether a form is long enough, and within a line."""
    return len(form) >= SHORTEST and b"\n" not in form and b"\r" not in form


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
