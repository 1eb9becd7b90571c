"""Values that occur nowhere else, and every text in which one of them may come to light."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from ahocorasick_rs import BytesAhoCorasick, Implementation

from runkeys._text import encodings

_AWKWARD = "\"'\\/<>&%+=?#~^|{}[]:;,!$ \tàéöß€漢🔑"
"""Nothing here is the same in JSON, a URL and plain text, or it is no letter or digit; so escapes have to be known."""


@dataclass(frozen=True)
class Canary:
    """A value, and where the load itself put it.

    :ivar name: which part of the load it belongs to.
    :ivar source: a test wrote it into a Secret that a binding refers to.
    :ivar handed: a task asked for it and was to have it, so it was in a run's Secret.
    :ivar delivered: a task was to have it by sealed delivery, so it was in its pod and in no Secret.
    :ivar as_file: it was handed or delivered as a file and not as a variable.
    :ivar live: its run still goes on during the search.
    :ivar token: a token of a pod's service account, by which the operator logs in to a store for it.
    :ivar sent: a test sent it to the API server in the clear, in a request that had to be refused.
    """

    name: str
    text: str
    source: bool = False
    handed: bool = False
    delivered: bool = False
    as_file: bool = False
    live: bool = False
    token: bool = False
    sent: bool = False

    def __repr__(self) -> str:
        return f"Canary({self.name!r})"

    def halves(self) -> tuple[bytes, bytes]:
        """Both are searched for, so that a value that was cut off is found too."""
        middle = len(self.text) // 2
        return self.text[:middle].encode(), self.text[middle:].encode()


CUT = Canary("a part of some canary", "")
"""Stands for a canary of which too little is there to say which one it was."""


@dataclass(frozen=True)
class Hit:
    """A canary at an offset, in one of its forms."""

    canary: Canary
    form: str
    offset: int
    length: int


class Mint:
    """Makes canaries that share a stem, so that one search finds all of them."""

    def __init__(self) -> None:
        self.stem = f"canary{secrets.token_hex(6)}"
        self.made: list[Canary] = []

    def plain(self, name: str, **kind: bool) -> Canary:
        """Letters and digits: the same text in JSON, YAML and URLs."""
        text = "".join(self.stem + secrets.token_hex(6) for _ in range(2))
        return self._keep(Canary(name, text, **kind))

    def awkward(self, name: str, **kind: bool) -> Canary:
        """Only what has to be escaped somewhere: no letter or digit that a search could hold on to."""
        text = "".join(secrets.choice(_AWKWARD) for _ in range(40))
        return self._keep(Canary(name, text.strip() + "é\"/'", **kind))

    def found(self, name: str, text: str, **kind: bool) -> Canary:
        """What somebody else made."""
        return self._keep(Canary(name, text, **kind))

    def _keep(self, canary: Canary) -> Canary:
        self.made.append(canary)
        return canary


def forms(value: bytes) -> dict[str, bytes]:
    """The texts in which a value may appear, by what the encoding is called; each is there whatever surrounds it."""
    found = {name: form.encode() for name, form in encodings.text_forms(value.decode())}
    found |= dict(encodings.byte_forms(value))
    distinct: dict[bytes, str] = {}
    for name, form in found.items():
        distinct.setdefault(form, name)
    return {name: form for form, name in distinct.items()}


class Search:
    """Finds canaries in bytes, in all forms, and the SHA-256 of each in hexadecimal."""

    def __init__(self, mint: Mint) -> None:
        self._needles: dict[bytes, tuple[str, list[tuple[bytes, Canary]]]] = {}
        stem = forms(mint.stem.encode())
        for canary in mint.made:
            digest = hashlib.sha256(canary.text.encode()).hexdigest().encode()
            self._needles[digest] = ("sha256", [(digest, canary)])
            for half in canary.halves():
                for name, form in forms(half).items():
                    needle = stem[name] if half.startswith(mint.stem.encode()) else form
                    self._needles.setdefault(needle, (name, []))[1].append((form, canary))
        # There are hundreds of needles: all of them are looked for in one pass.
        self._order = list(self._needles)
        self._automaton = BytesAhoCorasick(self._order, implementation=Implementation.DFA)

    def hits(self, data: bytes) -> Iterator[Hit]:
        """Every place at which something of a canary is, in no order."""
        for index, at, _ in self._automaton.find_matches_as_indexes(data, overlapping=True):
            needle = self._order[index]
            form, candidates = self._needles[needle]
            whole = (canary for text, canary in candidates if data.startswith(text, at))
            yield Hit(next(whole, CUT), form, at, len(needle))

    def masked(self, data: bytes) -> str:
        """The bytes as text, with no more than a stem of any canary in them."""
        for _, candidates in self._needles.values():
            for form, _ in candidates:
                data = data.replace(form, b"***")
        return repr(data)[2:-1]
