"""Keys: made from a seed, read as text, and silent about what is in them."""

from __future__ import annotations

import copy
import hashlib
import itertools
import pickle
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys.sealing import Keyring, MalformedError, PrivateKey, PublicKey, SealError
from tests.unit.sealing import vectors

KEY = PrivateKey.from_seed(bytes(range(32)))
TEXT = KEY.public.text


def test_a_seed_gives_the_same_key_again() -> None:
    key = PrivateKey.generate()
    assert PrivateKey.from_seed(key.seed).public == key.public
    assert PrivateKey.generate().public != key.public


@pytest.mark.parametrize("vector", vectors.key_vectors(), ids=lambda vector: vector.key_id)
def test_vectors_of_keys(vector: vectors.KeyVector) -> None:
    public = PrivateKey.from_seed(vector.seed).public
    assert public.text == vector.public
    assert public.key_id == vector.key_id
    assert public.fingerprint == vector.fingerprint


def test_key_id_and_fingerprint_are_a_hash_with_a_label() -> None:
    label = b"\0\0\0\x16runkeys.dev/sealing/v1\0\0\0\x0apublic-key"
    digest = hashlib.sha256(label + KEY.public.raw).hexdigest()
    assert KEY.public.fingerprint.replace("-", "") == digest
    assert KEY.public.key_id == digest[:16]


@pytest.mark.parametrize("around", ["{}", "{}\n", "\n  {}\r\n"])
def test_a_public_key_is_read_from_a_file(around: str) -> None:
    public = PublicKey.parse(around.format(TEXT))
    assert public == KEY.public
    assert hash(public) == hash(KEY.public)
    assert public.text == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rkpub1.",
        TEXT[:-1],
        TEXT + "A",
        TEXT + "=",
        TEXT.replace("rkpub1", "rkpub2"),
        TEXT.replace("rkpub1", "RKPUB1"),
        TEXT.replace("rkpub1", "rk1"),
        f"{TEXT[:100]}\n{TEXT[100:]}",
        f"rkpub1.{'A' * 1621}",
        f"rkpub1.{'_' * 1621}w",
        TEXT + "\n" + TEXT,
        "\ud800",
    ],
    ids=itertools.count(),
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        PublicKey.parse(text)


# Points of X25519 that give the same secret with every key: 0, 1, p - 1, p, and one of order 8.
@pytest.mark.parametrize(
    "point",
    [
        "00" * 32,
        "01" + "00" * 31,
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    ],
)
def test_a_public_key_that_seals_for_everybody_is_refused(point: str) -> None:
    with pytest.raises(MalformedError):
        PublicKey(KEY.public.raw[:-32] + bytes.fromhex(point))


@given(st.text() | st.text(st.characters()) | st.text().map(lambda text: f"rkpub1.{text}"))
def test_any_text_is_a_public_key_or_a_seal_error(text: str) -> None:
    with suppress(SealError):
        PublicKey.parse(text)


@given(st.data())
def test_a_changed_public_key_is_refused_or_has_another_fingerprint(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(TEXT) - 1))
    text = TEXT[:at] + data.draw(st.characters()) + TEXT[at + 1 :]
    try:
        public = PublicKey.parse(text)
    except SealError:
        return
    assert (public.fingerprint == KEY.public.fingerprint) == (text.strip() == TEXT)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(MalformedError):
        PrivateKey.from_seed(bytes(length))


@pytest.mark.parametrize(
    "show", [repr, str, "{0}".format, "{0!r:>200}".format], ids=["repr", "str", "format", "wide"]
)
@pytest.mark.parametrize("thing", [KEY, Keyring(KEY), Keyring(PrivateKey.generate(), [KEY])])
def test_nothing_shows_a_seed(show: Callable[[object], str], thing: object) -> None:
    shown = show(thing)
    assert KEY.public.key_id in shown
    assert KEY.seed.hex() not in shown.lower()
    assert repr(KEY.seed) not in shown
    assert len(shown.strip()) < 60


@pytest.mark.parametrize("thing", [KEY, Keyring(KEY)], ids=["key", "keyring"])
@pytest.mark.parametrize("way_out", [pickle.dumps, copy.deepcopy, vars])
def test_nothing_takes_a_private_key_along(way_out: Callable[[object], object], thing: object) -> None:
    with pytest.raises(TypeError):
        way_out(thing)


def test_the_newest_key_is_named_and_comes_first() -> None:
    older = [PrivateKey.generate(), PrivateKey.generate()]
    keyring = Keyring(KEY, older)
    assert keyring.public == KEY.public
    assert keyring.key_ids == (KEY.public.key_id, older[0].public.key_id, older[1].public.key_id)


def test_no_key_is_in_a_keyring_twice() -> None:
    with pytest.raises(ValueError, match=KEY.public.key_id):
        Keyring(KEY, [PrivateKey.from_seed(KEY.seed)])
