"""Whatever text is given: it opens to what was sealed, or it is a SealError. Never anything else."""

from __future__ import annotations

import base64
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from runkeys.sealing import BindingEntry, Keyring, PrivateKey, SealError, key_id_of, reseal, seal

KEYRING = Keyring(PrivateKey.generate(), [PrivateKey.generate()])
HERE = BindingEntry("team-a", "hello", "api-token")
VALUE = b"what was sealed"
TEXT = seal(VALUE, HERE, KEYRING.public)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def opened(text: str) -> bytes | None:
    """The value; None for a SealError. Anything else goes through and fails the test."""
    try:
        return KEYRING.open(text, HERE)
    except SealError:
        return None


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


_any_text = st.one_of(
    st.text(),
    st.text(st.characters()),  # with lone surrogates
    st.builds("rk1.{}.{}".format, st.sampled_from(KEYRING.key_ids), st.text(ALPHABET) | st.text()),
    st.lists(st.sampled_from(["rk", "1", "2", ".", "0" * 16, "\n", "A", "=", "é"])).map("".join),
)
# Of the right form and a length that a sealed value can have, with a key that is there.
_any_bytes = st.builds(
    lambda key_id, raw, length: f"rk1.{key_id}.{base64url(raw.ljust(length, raw[:1]))}",
    st.sampled_from(KEYRING.key_ids),
    st.binary(min_size=1, max_size=1500),
    st.sampled_from([1140 + 256, 1140 + 512, 1140 + 8192]),
)


@given(_any_text | _any_bytes)
def test_any_text_is_refused_in_an_orderly_way(text: str) -> None:
    assert opened(text) is None
    for ask in (key_id_of, lambda text: reseal(text, HERE, KEYRING)):
        with suppress(SealError):
            ask(text)


@given(st.data())
def test_a_text_that_is_cut_doubled_or_mixed_opens_to_nothing(data: st.DataObject) -> None:
    other = seal(b"another", HERE, KEYRING.public)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(TEXT)), st.integers(0, len(TEXT)))))
    pieces = [TEXT[:start], TEXT[start:stop], TEXT[stop:], other[:start], other[start:stop], other[stop:]]
    text = "".join(data.draw(st.lists(st.sampled_from(pieces), max_size=4)))
    assert opened(text) == {TEXT: VALUE, other: b"another"}.get(text)


@given(st.integers(0, len(TEXT) - 1), st.characters() | st.sampled_from(ALPHABET))
def test_no_single_changed_character_opens(at: int, character: str) -> None:
    text = TEXT[:at] + character + TEXT[at + 1 :]
    assert opened(text) == (VALUE if text == TEXT else None)


def test_no_place_takes_another_character() -> None:
    for at, character in enumerate(TEXT):
        # The neighbour differs in the last bit only: in the last character that is one which carries nothing.
        neighbour = ALPHABET[ALPHABET.index(character) ^ 1] if character in ALPHABET else ","
        assert opened(TEXT[:at] + neighbour + TEXT[at + 1 :]) is None, at
