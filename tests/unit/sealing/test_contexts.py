"""Contexts: different places give different bytes, and a value opens in one of them only."""

from __future__ import annotations

import itertools
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys.sealing import (
    BindingEntry,
    Context,
    ContextMismatchError,
    Keyring,
    NamespaceEntry,
    PersonalEntry,
    PodParameter,
    PrivateKey,
    RevealAnswer,
    RunInput,
    seal,
)
from tests.unit.sealing.vectors import KINDS, parts

# Few characters, among them those that a separator would be, so that joined parts would often be equal.
_part = st.text("ab/.\0\n", min_size=1, max_size=4) | st.text(min_size=1, max_size=300)
_contexts = st.one_of(
    st.builds(BindingEntry, _part, _part, _part),
    st.builds(NamespaceEntry, _part, _part),
    st.builds(PersonalEntry, _part, _part, _part),
    st.builds(RunInput, _part, _part, _part),
    st.builds(RevealAnswer, _part, _part),
    st.builds(PodParameter, _part, _part),
)

ALIKE: list[Context] = [
    BindingEntry("a", "b", "c"),
    BindingEntry("a", "bc", "c"),
    BindingEntry("ab", "c", "c"),
    BindingEntry("a", "c", "b"),
    BindingEntry("a", "b", "C"),
    BindingEntry("a", "b", "c "),
    BindingEntry("a", "b/c", "c"),
    BindingEntry("a/b", "c", "c"),
    BindingEntry("a", "\u00e9", "c"),
    BindingEntry("a", "e\u0301", "c"),
    NamespaceEntry("a", "b"),
    NamespaceEntry("a", "c"),
    NamespaceEntry("b", "c"),
    NamespaceEntry("a", "bc"),
    RevealAnswer("a", "b"),
    RevealAnswer("a", "c"),
    PodParameter("a", "b"),
    PodParameter("a", "c"),
    PersonalEntry("a", "b", "c"),
    PersonalEntry("a", "c", "b"),
    RunInput("a", "b", "c"),
    RunInput("a", "c", "b"),
    RunInput("a", "b", "c\0"),
]


def read(encoded: bytes) -> list[str]:
    """Undo ``encode``: that this can be written shows that no two contexts give the same bytes."""
    texts = []
    while encoded:
        length = int.from_bytes(encoded[:4], "big")
        assert len(encoded) >= 4 + length
        texts.append(encoded[4 : 4 + length].decode())
        encoded = encoded[4 + length :]
    return texts


@given(_contexts)
def test_the_bytes_of_a_context_can_be_read_back(context: Context) -> None:
    assert read(context.encode()) == ["runkeys.dev/sealing/v1", context.label, *parts(context)]


@given(_contexts, _contexts)
def test_different_contexts_give_different_bytes(one: Context, other: Context) -> None:
    assert (one.encode() == other.encode()) == (one == other)


def test_each_kind_has_a_label_of_its_own() -> None:
    assert len(KINDS) == 5


def test_a_value_opens_in_its_own_context_only() -> None:
    keyring = Keyring(PrivateKey.generate())
    for sealed_for in ALIKE:
        text = seal(b"value", sealed_for, keyring.public)
        assert keyring.open(text, sealed_for) == b"value"
    for sealed_for, opened_as in itertools.permutations(ALIKE, 2):
        text = seal(b"value", sealed_for, keyring.public)
        with pytest.raises(ContextMismatchError):
            keyring.open(text, opened_as)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    "part", ["", "\ud800", "a\udfff"], ids=["empty", "surrogate", "surrogate at its end"]
)
def test_no_part_is_empty_or_no_text(kind: type[Context], part: str) -> None:
    good = ["a"] * len(fields(kind))
    kind(*good)
    for index in range(len(good)):
        with pytest.raises(ValueError, match=rf"{kind.__name__}\."):
            kind(*[*good[:index], part, *good[index + 1 :]])


def test_a_context_without_a_kind_is_none() -> None:
    with pytest.raises(TypeError):
        Context()
