"""Sealing: a value that is safe in Git, and opens in one place only. Needs no cluster.

Whoever has the public key can seal; only a keyring opens, and only for the context that was sealed for. The
suite is HPKE (RFC 9180) with a hybrid of ML-KEM-768 and X25519. ``docs/sealing.md`` has the format byte by byte.

Nothing in here raises anything but a `SealError` for a text that others wrote. No error holds a value, key
material or a whole text, not even in its ``__context__``: so errors are raised outside of ``except``.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

MAX_VALUE = 512 * 1024
"""Most bytes that a value may have."""

SEED_LENGTH = 32
"""Bytes of a private key."""

_FORMAT = "runkeys.dev/sealing/v1"
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_SEED = 64
_MLKEM_PUBLIC = 1184
_PUBLIC = _MLKEM_PUBLIC + 32
_ENCAPSULATED = 1120
_TAG = 16
_PREFIX = 4
_OVERHEAD = _ENCAPSULATED + _PREFIX + _TAG
_KEY_ID_BYTES = 8
_SEALED_TEXT = re.compile(r"rk1\.([0-9a-f]{16})\.([A-Za-z0-9_-]+)")
_PUBLIC_TEXT = re.compile(r"rkpub1\.([A-Za-z0-9_-]+)")
_MAX_TEXT = len("rk1.") + 2 * _KEY_ID_BYTES + len(".") + -(-4 * (_OVERHEAD + MAX_VALUE) // 3)
_AGAIN = "seal the value again"


class SealError(Exception):
    """Something cannot be sealed, opened or read as a key; the message says what was found and what to do."""


class MalformedError(SealError):
    """A text or bytes are not what they are taken for: a sealed value, a public key, a seed."""


class UnknownKeyError(SealError):
    """A value was sealed with a key that is not in the keyring.

    :ivar key_id: the key that it needs.
    """

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return (
            f"the value is sealed with key {self.key_id}, which is not here; restore that key from its backup, "
            f"or {_AGAIN} with the public key of this cluster"
        )


class ContextMismatchError(SealError):
    """A value was sealed for another place, or its text was changed: nothing tells the two apart."""


class TooLargeError(SealError):
    """A value or a text is larger than can be sealed or opened."""


@dataclass(frozen=True)
class Context:
    """The one place where a sealed value opens. Its fields are compared byte by byte, as Kubernetes has them.

    Use one of the subclasses. An empty field raises ValueError: it would be a place that nobody meant.
    """

    label: ClassVar[str]

    def __post_init__(self) -> None:
        if type(self) is Context:
            raise TypeError(
                "Context names no place; use BindingEntry, PersonalEntry, NamespaceEntry or RunInput"
            )
        for field in fields(self):
            part: str = getattr(self, field.name)
            if not part:
                raise ValueError(f"{type(self).__name__}.{field.name} is empty; name the place to seal for")
            if any("\ud800" <= character <= "\udfff" for character in part):
                raise ValueError(f"{type(self).__name__}.{field.name} is no text that UTF-8 can hold")

    def encode(self) -> bytes:
        """As bytes, different for each context: what HPKE binds as ``info``."""
        return _encode(self.label, *(getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True)
class BindingEntry(Context):
    """An entry of one shared binding: the default. Who may write under that name is up to the right ``use``."""

    label: ClassVar[str] = "binding-entry"
    namespace: str
    binding: str
    entry: str

    def __str__(self) -> str:
        return f"entry {self.entry} of SecretBinding {self.binding} in namespace {self.namespace}"


@dataclass(frozen=True)
class NamespaceEntry(Context):
    """An entry of that name in whichever shared binding of a namespace, for bindings whose names tools change."""

    label: ClassVar[str] = "namespace-entry"
    namespace: str
    entry: str

    def __str__(self) -> str:
        return f"entry {self.entry} of any shared SecretBinding in namespace {self.namespace}"


@dataclass(frozen=True)
class PersonalEntry(Context):
    """An entry of a user's personal binding, whatever that is called: anybody may take a name, nobody an owner's.

    So what was sealed for a shared binding opens in no personal one, and in nobody else's.
    """

    label: ClassVar[str] = "personal-entry"
    namespace: str
    owner: str
    entry: str

    def __str__(self) -> str:
        return (
            f"entry {self.entry} of the personal SecretBinding of {self.owner} in namespace {self.namespace}"
        )


@dataclass(frozen=True)
class RunInput(Context):
    """A field of the input of runs that one user starts in a namespace."""

    label: ClassVar[str] = "run-input"
    namespace: str
    requester: str
    field: str

    def __str__(self) -> str:
        return f"input {self.field} of runs of {self.requester} in namespace {self.namespace}"


@dataclass(frozen=True)
class RevealAnswer(Context):
    """The answer to one SecretReveal, sealed with the asker's own key."""

    label: ClassVar[str] = "reveal-answer"
    namespace: str
    uid: str

    def __str__(self) -> str:
        return f"answer to SecretReveal {self.uid} in namespace {self.namespace}"


class PublicKey:
    """What seals. Safe to publish, but whoever can swap it reads what is sealed after: compare fingerprints.

    :ivar raw: its 1,216 bytes: ML-KEM-768, then X25519.
    :ivar key_id: 16 hex digits that name it in sealed values.
    :ivar fingerprint: all of what ``key_id`` is the beginning of, in groups, for people and for pinning.
    :ivar hpke: the key as ``cryptography`` takes it.
    """

    __slots__ = ("fingerprint", "hpke", "key_id", "raw")

    def __init__(self, raw: bytes) -> None:
        hpke = _public_hpke(raw)
        if hpke is None:
            raise MalformedError("this is no public key of Runkeys, or it is damaged; get it again")
        self.raw = raw
        self.hpke = hpke
        digest = hashlib.sha256(_encode("public-key") + raw).digest()
        self.key_id = digest[:_KEY_ID_BYTES].hex()
        self.fingerprint = digest.hex("-", 2)

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read the text form; white space around it is left out, as files end with a line break."""
        found = _PUBLIC_TEXT.fullmatch(text.strip())
        raw = None if found is None else _from_base64url(found[1])
        if raw is None:
            raise MalformedError(
                "a public key is one line, rkpub1. and then letters, digits, - and _; get the key again, whole"
            )
        return cls(raw)

    @property
    def text(self) -> str:
        """The text form, ``rkpub1.<base64url>``: 1,629 characters, one line."""
        return f"rkpub1.{_base64url(self.raw)}"

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, PublicKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"PublicKey({self.key_id})"


class PrivateKey:
    """What opens. Nothing shows its seed but ``seed`` itself.

    :ivar seed: the 32 bytes that the whole key is made from, and all that has to be kept of it.
    :ivar public: its public half.
    :ivar hpke: the key as ``cryptography`` takes it.
    """

    __slots__ = ("hpke", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_LENGTH:
            raise MalformedError(
                f"a private key is a seed of {SEED_LENGTH} bytes, not {len(seed)}; restore it from its backup"
            )
        expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED + 32)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED:])
        self.seed = seed
        self.hpke = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public = PublicKey(
            mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        )

    @classmethod
    def generate(cls) -> PrivateKey:
        """Make a new key from the randomness of the operating system."""
        return cls(secrets.token_bytes(SEED_LENGTH))

    @classmethod
    def from_seed(cls, seed: bytes) -> PrivateKey:
        """Make the key of a seed that was kept. Raises MalformedError if it is not 32 bytes long."""
        return cls(seed)

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.key_id})"


class Keyring:
    """The private keys of a cluster: the newest seals, all open.

    :ivar newest: the key whose public half is to be published.
    """

    __slots__ = ("_keys", "newest")

    def __init__(self, newest: PrivateKey, older: Iterable[PrivateKey] = ()) -> None:
        self.newest = newest
        self._keys: dict[str, PrivateKey] = {}
        for key in (newest, *older):
            if key.public.key_id in self._keys:
                raise ValueError(f"key {key.public.key_id} is in the keyring twice; leave one out")
            self._keys[key.public.key_id] = key

    @property
    def public(self) -> PublicKey:
        """What to seal with."""
        return self.newest.public

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Of all keys, the newest first."""
        return tuple(self._keys)

    def open(self, text: str, context: Context) -> bytes:
        """Return the value of a sealed text.

        :raises MalformedError: it is no sealed value, or was sealed by something that does not keep the format.
        :raises TooLargeError: it is longer than any sealed value.
        :raises UnknownKeyError: none of these keys has sealed it.
        :raises ContextMismatchError: it was sealed for another context, or was changed.
        """
        key_id, sealed = _parse(text)
        key = self._keys.get(key_id)
        if key is None:
            raise UnknownKeyError(key_id)
        padded = _decrypt(key, sealed, context)
        if padded is None:
            raise ContextMismatchError(
                f"the value does not open as {context}: it was sealed for another place, or was changed since; "
                f"{_AGAIN} for this place"
            )
        value = _unpad(padded)
        if value is None:
            raise MalformedError(f"the value opens, but is not padded as it has to be; {_AGAIN} with runkeys")
        return value

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"


def seal(value: bytes, context: Context, public_key: PublicKey) -> str:
    """Seal a value for one context. Two calls never give the same text.

    :raises TooLargeError: the value is longer than 512 KiB.
    """
    if len(value) > MAX_VALUE:
        raise TooLargeError(
            f"the value is {len(value)} bytes long, but at most {MAX_VALUE} can be sealed; "
            "keep it elsewhere, encrypted with a key that you seal"
        )
    sealed = _SUITE.encrypt(_pad(value), public_key.hpke, context.encode())
    return f"rk1.{public_key.key_id}.{_base64url(sealed)}"


def reseal(text: str, context: Context, keyring: Keyring) -> str:
    """Seal with the newest key what an older one has sealed, for the same context and no other.

    It is opened in any case, with the errors of `Keyring.open`. What the newest key has sealed comes back as it
    is, so that doing it again changes no file.
    """
    value = keyring.open(text, context)
    return text if key_id_of(text) == keyring.public.key_id else seal(value, context, keyring.public)


def key_id_of(text: str) -> str:
    """Say which key a text is sealed with, without opening it. Raises MalformedError, TooLargeError."""
    return _parse(text)[0]


def _parse(text: str) -> tuple[str, bytes]:
    """Split a text into key id and ciphertext. Never says anything of a text that is of another form.

    That may be a password which somebody forgot to seal.
    """
    if len(text) > _MAX_TEXT:
        raise TooLargeError(
            f"{len(text)} characters are more than any sealed value has; {_AGAIN}, at most 512 KiB"
        )
    found = _SEALED_TEXT.fullmatch(text)
    if found is None:
        if re.match(r"rk[0-9]+\.", text) and not text.startswith("rk1."):
            raise MalformedError(
                "this is sealed in a format of another version of Runkeys; bring Runkeys up to date"
            )
        raise MalformedError(
            "this is no sealed value: that is one line, rk1. and a key id and a dot and then letters, digits, "
            f"- and _, without white space; {_AGAIN}, or paste all of it"
        )
    sealed = _from_base64url(found[2])
    if sealed is None or not _is_padded_length(len(sealed) - _OVERHEAD):
        raise MalformedError(
            f"the sealed value is not whole, or not as it was made; paste all of it, or {_AGAIN}"
        )
    return found[1], sealed


def _decrypt(key: PrivateKey, sealed: bytes, context: Context) -> bytes | None:
    try:
        return _SUITE.decrypt(sealed, key.hpke, context.encode())
    except InvalidTag:
        return None


def _public_hpke(raw: bytes) -> MLKEM768X25519PublicKey | None:
    if len(raw) != _PUBLIC:
        return None
    try:
        mlkem = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC])
        x25519 = X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC:])
        # The few points that give the same secret with every key are only refused when they are used.
        X25519PrivateKey.generate().exchange(x25519)
    except ValueError:
        return None
    return MLKEM768X25519PublicKey(mlkem, x25519)


def _padded_length(length: int) -> int:
    """Bytes that a value of ``length`` bytes is padded to, so that lengths of one step look the same."""
    if length <= 256:
        return 256
    step = 256 if length <= 4096 else 4096
    return -(-length // step) * step


def _is_padded_length(length: int) -> bool:
    return 0 <= length <= MAX_VALUE and _padded_length(length) == length


def _pad(value: bytes) -> bytes:
    return len(value).to_bytes(_PREFIX, "big") + value.ljust(_padded_length(len(value)), b"\0")


def _unpad(padded: bytes) -> bytes | None:
    """Undo `_pad`; None for what it cannot have made, so that a value has one padding only."""
    value = padded[_PREFIX : _PREFIX + int.from_bytes(padded[:_PREFIX], "big")]
    return value if _pad(value) == padded else None


def _encode(*parts: str) -> bytes:
    """Join texts so that no two sequences give the same bytes: each with its length before it."""
    encoded = (part.encode() for part in (_FORMAT, *parts))
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _from_base64url(text: str) -> bytes | None:
    """Decode letters, digits, - and _; None for what `_base64url` cannot have made: one text for the same bytes."""
    if len(text) % 4 == 1:
        return None
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return raw if _base64url(raw) == text else None
