"""The committed vectors: what was sealed once has to open for good, and what was refused stays refused."""

from __future__ import annotations

import pytest

from runkeys import sealing
from tests.unit.sealing import vectors


def _name(vector: vectors.SealedVector) -> str:
    return vector.name


@pytest.mark.parametrize("vector", vectors.opened(), ids=_name)
def test_what_was_sealed_opens(vector: vectors.SealedVector) -> None:
    assert vector.context.encode() == vector.info
    assert vectors.keyring().open(vector.text, vector.context) == vector.value


@pytest.mark.parametrize("vector", vectors.refused(), ids=_name)
def test_what_is_wrong_is_refused_for_its_reason(vector: vectors.SealedVector) -> None:
    with pytest.raises(sealing.SealError) as raised:
        vectors.keyring().open(vector.text, vector.context)
    assert type(raised.value).__name__ == vector.error


def test_every_kind_and_every_key_has_vectors() -> None:
    assert {vector.context.label for vector in vectors.opened()} == set(vectors.KINDS)
    assert {sealing.key_id_of(vector.text) for vector in vectors.opened()} == set(vectors.keyring().key_ids)
    assert {vector.error for vector in vectors.refused()} == {
        "ContextMismatchError",
        "MalformedError",
        "UnknownKeyError",
    }
