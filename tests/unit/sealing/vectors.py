"""What ``vectors.json`` says, and contexts by their label: for the tests here and those against Go."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from runkeys.sealing import (
    BindingEntry,
    Context,
    Keyring,
    NamespaceEntry,
    PersonalEntry,
    PodParameter,
    PrivateKey,
    RunInput,
)

FILE = Path(__file__).parent / "vectors.json"
KINDS: dict[str, type[Context]] = {
    kind.label: kind for kind in (BindingEntry, NamespaceEntry, PersonalEntry, RunInput, PodParameter)
}


@dataclass(frozen=True)
class KeyVector:
    seed: bytes
    public: str
    key_id: str
    fingerprint: str


@dataclass(frozen=True)
class SealedVector:
    """:ivar value: None if the text is to be refused, for what ``error`` names."""

    name: str
    context: Context
    info: bytes
    text: str
    value: bytes | None
    error: str


def key_vectors() -> list[KeyVector]:
    return [KeyVector(**{**key, "seed": bytes.fromhex(key["seed"])}) for key in _content()["keys"]]


def keyring() -> Keyring:
    newest, *older = (PrivateKey.from_seed(key.seed) for key in key_vectors())
    return Keyring(newest, older)


def opened() -> list[SealedVector]:
    return [_sealed(entry) for entry in _content()["opened"]]


def refused() -> list[SealedVector]:
    return [_sealed(entry) for entry in _content()["refused"]]


def parts(context: Context) -> list[str]:
    return list(astuple(context))


def _content() -> Any:
    return json.loads(FILE.read_text())


def _sealed(entry: dict[str, Any]) -> SealedVector:
    return SealedVector(
        name=entry["name"],
        context=KINDS[entry["context"]["kind"]](*entry["context"]["parts"]),
        info=bytes.fromhex(entry["info"]),
        text=entry["text"],
        value=bytes.fromhex(entry["value"]) if "value" in entry else None,
        error=entry.get("error", ""),
    )
