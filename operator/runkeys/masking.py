"""Takes values out of text that is shown. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "[redacted]"
SHORTEST = 3
"""Characters; what is shorter occurs everywhere, and a log without it could not be read."""


class Masker:
    """Masks values as they are, each line of those with several, and their base64 and URL-encoded forms."""

    def __init__(self, values: Iterable[bytes]) -> None:
        found = {form for value in values for form in _forms(value)}
        longest_first = sorted(found, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if found else None

    def mask(self, text: str) -> str:
        """The text with each value replaced."""
        return self._pattern.sub(MASK, text) if self._pattern is not None else text


def _forms(value: bytes) -> Iterable[str]:
    text = value.decode(errors="replace")
    lines = {line.strip() for line in text.splitlines()} | {text, text.strip()}
    for line in lines:
        if len(line) >= SHORTEST:
            yield line
            yield quote(line, safe="")
            yield quote_plus(line)
    # In the middle of something else the first and last characters of base64 depend on what is around.
    if len(value) >= 8:
        for skip in range(3):
            begin = -(-4 * skip // 3)
            whole = len(value) - (len(value) + skip) % 3
            yield base64.b64encode(b"\0" * skip + value[:whole]).decode()[begin:]
            yield base64.urlsafe_b64encode(b"\0" * skip + value[:whole]).decode()[begin:]
