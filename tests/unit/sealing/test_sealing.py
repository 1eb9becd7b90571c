"""Seal, open, seal again: what comes back, what is hidden, what is said when it does not open."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runkeys import sealing
from runkeys.sealing import (
    MAX_VALUE,
    BindingEntry,
    ContextMismatchError,
    Keyring,
    MalformedError,
    NamespaceEntry,
    PrivateKey,
    SealError,
    TooLargeError,
    UnknownKeyError,
    key_id_of,
    reseal,
    seal,
    text,
)

OLD, NEW, FOREIGN = PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate()
KEYRING = Keyring(NEW, [OLD])
HERE = BindingEntry("team-a", "hello", "api-token")
ELSEWHERE = BindingEntry("team-a", "hello", "other")
KIB = 1024


@given(st.binary(max_size=600))
@example(b"")
@example(b"\0")
@example(b"\0" * 256)
@example(b"ends with zeros\0\0")
@example(bytes(4 * KIB + 1))
def test_any_bytes_come_back(value: bytes) -> None:
    text = seal(value, HERE, KEYRING.public)
    assert KEYRING.open(text, HERE) == value
    assert key_id_of(text) == NEW.public.key_id


@pytest.mark.parametrize(
    ("lengths", "padded"),
    [
        ([0, 1, 16, 255, 256], 256),
        ([257, 300, 512], 512),
        ([513, 768], 768),
        ([3841, 4 * KIB], 4 * KIB),
        ([4 * KIB + 1, 8 * KIB], 8 * KIB),
        ([8 * KIB + 1, 12 * KIB], 12 * KIB),
        ([MAX_VALUE - 4 * KIB + 1, MAX_VALUE], MAX_VALUE),
    ],
)
def test_lengths_of_one_step_are_not_told_apart(lengths: list[int], padded: int) -> None:
    texts = [seal(secrets.token_bytes(length), HERE, KEYRING.public) for length in lengths]
    encoded = {len(text.split(".")[2]) for text in texts}
    assert encoded == {-(-4 * (1120 + 4 + padded + 16) // 3)}
    assert [len(KEYRING.open(text, HERE)) for text in texts] == lengths


def test_the_largest_value_fits_and_one_byte_more_does_not() -> None:
    text = seal(bytes(MAX_VALUE), HERE, KEYRING.public)
    assert KEYRING.open(text, HERE) == bytes(MAX_VALUE)
    with pytest.raises(TooLargeError, match=f"{MAX_VALUE + 1} bytes"):
        seal(bytes(MAX_VALUE + 1), HERE, KEYRING.public)
    with pytest.raises(TooLargeError, match="characters"):
        KEYRING.open(text + "A", HERE)


def test_the_same_value_never_gives_the_same_text() -> None:
    texts = {seal(b"same", HERE, KEYRING.public) for _ in range(20)}
    assert len({text[60:] for text in texts}) == 20


def test_all_keys_open_and_the_newest_seals() -> None:
    assert KEYRING.open(seal(b"old", HERE, OLD.public), HERE) == b"old"
    assert KEYRING.public == NEW.public


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(UnknownKeyError, match=FOREIGN.public.key_id) as raised:
        KEYRING.open(seal(b"value", HERE, FOREIGN.public), HERE)
    assert raised.value.key_id == FOREIGN.public.key_id


def test_a_mismatch_names_the_place_that_was_asked_for() -> None:
    with pytest.raises(ContextMismatchError, match="entry other of SecretBinding hello in namespace team-a"):
        KEYRING.open(seal(b"value", HERE, NEW.public), ELSEWHERE)


def test_reseal_moves_a_value_to_the_newest_key() -> None:
    old = seal(b"value", HERE, OLD.public)
    new = reseal(old, HERE, KEYRING)
    assert key_id_of(new) == NEW.public.key_id
    assert Keyring(NEW).open(new, HERE) == b"value"
    assert reseal(new, HERE, KEYRING) == new, "what is new already changes no file"


def test_reseal_never_widens_a_scope() -> None:
    old = seal(b"value", HERE, OLD.public)
    with pytest.raises(ContextMismatchError):
        reseal(old, NamespaceEntry("team-a", "api-token"), KEYRING)
    with pytest.raises(ContextMismatchError):
        KEYRING.open(reseal(old, HERE, KEYRING), NamespaceEntry("team-a", "api-token"))


def test_reseal_says_what_it_cannot_open_even_if_it_is_new() -> None:
    text = seal(b"value", HERE, NEW.public)
    with pytest.raises(ContextMismatchError):
        reseal(text, ELSEWHERE, KEYRING)
    with pytest.raises(UnknownKeyError):
        reseal(seal(b"value", HERE, FOREIGN.public), HERE, KEYRING)


VALUE = secrets.token_urlsafe(48)
SEALED = seal(VALUE.encode(), HERE, NEW.public)
FAILURES: dict[str, Callable[[], object]] = {
    "a forgotten seal": lambda: KEYRING.open(VALUE, HERE),
    "a forgotten seal behind the prefix": lambda: KEYRING.open(f"rk1.{VALUE}", HERE),
    "a forgotten seal behind another prefix": lambda: KEYRING.open(f"rk2.{VALUE}", HERE),
    "a forgotten seal as base64url": lambda: KEYRING.open(f"rk1.{NEW.public.key_id}.{VALUE}", HERE),
    "a forgotten seal with a surrogate": lambda: KEYRING.open(f"{VALUE}\udc80", HERE),
    "a private key in place of a public one": lambda: sealing.PublicKey.parse(f"rkpub1.{VALUE}"),
    "damaged public bytes": lambda: sealing.PublicKey(VALUE.encode().ljust(1216, b"\xff")),
    "a seed with something after it": lambda: PrivateKey.from_seed(VALUE.encode()),
    "another place": lambda: KEYRING.open(SEALED, ELSEWHERE),
    "changed": lambda: KEYRING.open(SEALED[:-30] + "A" * 8 + SEALED[-22:], HERE),
    "cut off": lambda: KEYRING.open(SEALED[:-30], HERE),
    "white space": lambda: KEYRING.open(SEALED[:99] + " " + SEALED[99:], HERE),
    "unknown key": lambda: KEYRING.open(seal(VALUE.encode(), HERE, FOREIGN.public), HERE),
    "too large to seal": lambda: seal(VALUE.encode() * 10_000, HERE, NEW.public),
    "too large to open": lambda: KEYRING.open(VALUE * 20_000, HERE),
    "badly padded": lambda: KEYRING.open(by_others(len(VALUE) + 1, VALUE.encode()), HERE),
}


def by_others(length: int, rest: bytes) -> str:
    """Sealed with the right key for the right place, but padded as it should not be."""
    body = length.to_bytes(4, "big") + rest.ljust(256, b"!")
    sealed = text._SUITE.encrypt(body, NEW.public.hpke, HERE.encode())
    return f"rk1.{NEW.public.key_id}.{base64.urlsafe_b64encode(sealed).rstrip(b'=').decode()}"


@pytest.mark.parametrize("fails", FAILURES.values(), ids=FAILURES)
def test_no_error_holds_a_value_or_a_text(fails: Callable[[], object]) -> None:
    with pytest.raises(SealError) as raised:
        fails()
    error = raised.value
    assert error.__cause__ is None
    assert error.__context__ is None, "the error behind an error can hold what it failed on"
    held = f"{error} {error!r} {error.args} {vars(error)}"
    for secret in (VALUE, SEALED, NEW.seed.hex()):
        pieces = {secret[at : at + 8] for at in range(len(secret) - 8)}
        assert not {piece for piece in pieces if piece in held}, held
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("length", "rest"),
    [(3, b"abc" + bytes(252) + b"!"), (257, b"x" * 256), (2**32 - 1, b"x" * 256), (3, b"abc" + bytes(509))],
    ids=["not zero", "longer than it is", "longer than everything", "a step too many"],
)
def test_a_value_has_one_padding_only(length: int, rest: bytes) -> None:
    with pytest.raises(MalformedError, match="padded"):
        KEYRING.open(by_others(length, rest), HERE)
