"""What the leak scan searches for is there in every encoding, whatever stands around it."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.e2e.leaks.canaries import CUT, Canary, Mint, Search, forms

MINT = Mint()
PLAIN, OTHER, AWKWARD = MINT.plain("plain"), MINT.plain("other"), MINT.awkward("awkward")
SEARCH = Search(MINT)

TWICE = "json in base64"
ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "raw": str.encode,
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()),
    "hex": lambda text: text.encode().hex().encode(),
    "HEX": lambda text: text.encode().hex().upper().encode(),
    "json": lambda text: json.dumps({"a": [text]}).encode(),
    "json-utf8": lambda text: json.dumps({"a": [text]}, ensure_ascii=False).encode(),
    TWICE: lambda text: base64.b64encode(json.dumps({"a": text}).encode()),
    "url": lambda text: quote(text, safe="").encode(),
    "url-path": lambda text: quote(text).encode(),
    "url-query": lambda text: urlencode({"q": text}).encode(),
    "url-plus": lambda text: quote_plus(text).encode(),
    "repr": lambda text: repr(text).encode(),
    "repr of bytes": lambda text: repr(text.encode()).encode(),
}


def found(data: bytes) -> set[Canary]:
    return {hit.canary for hit in SEARCH.hits(data)}


@pytest.mark.parametrize(
    ("encoding", "canary"),
    # of two encodings, one in the other, the inner one has to change nothing
    [
        (name, canary)
        for name in ENCODINGS
        for canary in (PLAIN, AWKWARD)
        if (name, canary) != (TWICE, AWKWARD)
    ],
    ids=lambda item: getattr(item, "name", item),
)
@given(before=st.text(max_size=20), after=st.text(max_size=20))
def test_a_canary_is_found_in_every_encoding(encoding: str, canary: Canary, before: str, after: str) -> None:
    surroundings = (before + after).replace("'", "").replace('"', "")  # repr chooses its quotes by them
    assert canary in found(ENCODINGS[encoding](surroundings[:9] + canary.text + surroundings[9:]))


@given(st.text(max_size=30), st.booleans())
def test_half_of_a_canary_is_found(text: str, first: bool) -> None:
    for canary in (PLAIN, AWKWARD):
        half = canary.halves()[0 if first else 1].decode()
        assert canary in found((text + half).encode())
        assert canary in found(base64.b64encode((text + half).encode()))


@given(st.binary(max_size=200))
def test_nothing_is_found_where_nothing_is(data: bytes) -> None:
    assert found(data) == set()


def test_each_canary_is_told_from_the_others() -> None:
    assert found(PLAIN.text.encode()) == {PLAIN}
    assert found(OTHER.text.encode()) == {OTHER}
    assert found(AWKWARD.text.encode()) == {AWKWARD}
    assert found(MINT.stem.encode()) == {CUT}


def test_a_hash_is_found() -> None:
    for canary in (PLAIN, AWKWARD):
        assert found(hashlib.sha256(canary.text.encode()).hexdigest().encode()) == {canary}


def test_every_occurrence_is_found() -> None:
    data = f"{PLAIN.text} {PLAIN.text}".encode()
    first, second = PLAIN.halves()
    at = {hit.offset for hit in SEARCH.hits(data) if hit.form == "raw"}
    assert at == {0, len(first), len(data) - len(first) - len(second), len(data) - len(second)}


def test_go_escapes_are_known() -> None:
    assert forms("a<b>&é".encode())["json-go"] == rb"a\u003cb\u003e\u0026" + "é".encode()


def test_a_plain_canary_is_the_same_in_shell_and_yaml() -> None:
    assert PLAIN.text in shlex.quote(PLAIN.text)
    assert PLAIN.text in yaml.safe_dump({"a": PLAIN.text})


def test_a_canary_does_not_show_its_text() -> None:
    assert PLAIN.text not in repr(PLAIN)
