"""Sealing: values that are safe in Git and open in one place only. Needs no cluster.

Anyone who has the public key can seal a value. Only a keyring can open it, and only for the context that it was sealed
for. The suite is HPKE (RFC 9180) with a hybrid of ML-KEM-768 and X25519. ``docs/sealing.md`` describes the format byte
by byte.

For a text from outside, the functions of this module raise only `SealError`. No error contains a value, key material or
a whole text, not even in its ``__context__``: therefore errors are raised outside of ``except``.
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
"""Maximum size of a value in bytes."""

SEED_LENGTH = 32
"""Size of a private key's seed in bytes."""

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
    """A value cannot be sealed or opened, or a key cannot be read. The message says what was found and what to do."""


class MalformedError(SealError):
    """A text or bytes are not a valid sealed value, public key or seed."""


class UnknownKeyError(SealError):
    """A value was sealed with a key that is not in the keyring.

    :ivar key_id: ID of the key that the value is sealed with.
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
    """A value was sealed for another place, or its text was changed. The two cases cannot be distinguished."""


class TooLargeError(SealError):
    """A value or a text is too large to be sealed or opened."""


@dataclass(frozen=True)
class Context:
    """The one place where a sealed value opens. Its fields are compared byte by byte, as Kubernetes stores them.

    Use one of the subclasses. An empty field raises ValueError, because it names no place.
    """

    label: ClassVar[str]

    def __post_init__(self) -> None:
        if type(self) is Context:
            raise TypeError(
                "Context names no place; use BindingEntry, PersonalEntry, NamespaceEntry, RunInput or PodParameter"
            )
        for field in fields(self):
            part: str = getattr(self, field.name)
            if not part:
                raise ValueError(f"{type(self).__name__}.{field.name} is empty; name the place to seal for")
            if any("\ud800" <= character <= "\udfff" for character in part):
                raise ValueError(f"{type(self).__name__}.{field.name} is not text that UTF-8 can encode")

    def encode(self) -> bytes:
        """Return the context as bytes, which differ for each context. HPKE binds them as ``info``."""
        return _encode(self.label, *(getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True)
class BindingEntry(Context):
    """An entry of one shared binding. This is the default. The right ``use`` decides who may write this binding."""

    label: ClassVar[str] = "binding-entry"
    namespace: str
    binding: str
    entry: str

    def __str__(self) -> str:
        return f"entry {self.entry} of SecretBinding {self.binding} in namespace {self.namespace}"


@dataclass(frozen=True)
class NamespaceEntry(Context):
    """An entry with this name in any shared binding of a namespace, for bindings that tools rename."""

    label: ClassVar[str] = "namespace-entry"
    namespace: str
    entry: str

    def __str__(self) -> str:
        return f"entry {self.entry} of any shared SecretBinding in namespace {self.namespace}"


@dataclass(frozen=True)
class PersonalEntry(Context):
    """An entry of a user's personal binding, whatever the binding's name.

    Any user can take a binding's name, but nobody can take another user's place as owner. So a value that was sealed
    for a shared binding does not open in a personal binding, and a personal value does not open in another user's
    binding.
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
    """A field of the input of one user's runs in a namespace."""

    label: ClassVar[str] = "run-input"
    namespace: str
    requester: str
    field: str

    def __str__(self) -> str:
        return f"input {self.field} of runs of {self.requester} in namespace {self.namespace}"


@dataclass(frozen=True)
class PodParameter(Context):
    """A parameter of pods of one service account that ask for secrets themselves.

    Its value begins with the time until which a pod may bring it: :mod:`runkeys.sealing.parameter`.
    """

    label: ClassVar[str] = "pod-parameter"
    namespace: str
    service_account: str

    def __str__(self) -> str:
        return f"parameter of pods of service account {self.service_account} in namespace {self.namespace}"


@dataclass(frozen=True)
class RevealAnswer(Context):
    """The answer to one SecretReveal, sealed with the requester's own key."""

    label: ClassVar[str] = "reveal-answer"
    namespace: str
    uid: str

    def __str__(self) -> str:
        return f"answer to SecretReveal {self.uid} in namespace {self.namespace}"


class PublicKey:
    """The key that seals. It is safe to publish. Compare fingerprints: someone who replaces it can read later values.

    :ivar raw: the 1,216 bytes of the key: ML-KEM-768, then X25519.
    :ivar key_id: the first 16 hex digits of the fingerprint. They identify the key in sealed values.
    :ivar fingerprint: the whole hash of the key as hex digits in groups, for people and for the list of trusted keys.
    :ivar hpke: the key in the form that ``cryptography`` uses.
    """

    __slots__ = ("fingerprint", "hpke", "key_id", "raw")

    def __init__(self, raw: bytes) -> None:
        hpke = _public_hpke(raw)
        if hpke is None:
            raise MalformedError("this is not a public key of Runkeys, or it is damaged; get it again")
        self.raw = raw
        self.hpke = hpke
        digest = hashlib.sha256(_encode("public-key") + raw).digest()
        self.key_id = digest[:_KEY_ID_BYTES].hex()
        self.fingerprint = digest.hex("-", 2)

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Parse the text form. White space around it is ignored, because files end with a line break.

        :raises MalformedError: the text is not a public key.
        """
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
    """The key that opens. Only ``seed`` shows the seed.

    :ivar seed: the 32 bytes that the key is derived from. Nothing else has to be stored.
    :ivar public: the public key.
    :ivar hpke: the key in the form that ``cryptography`` uses.
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
        """Create a new key with random bytes of the operating system."""
        return cls(secrets.token_bytes(SEED_LENGTH))

    @classmethod
    def from_seed(cls, seed: bytes) -> PrivateKey:
        """Create the key of a stored seed. Raises MalformedError if the seed is not 32 bytes long."""
        return cls(seed)

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.key_id})"


class Keyring:
    """The private keys of a cluster. The newest key seals, and all keys open.

    :ivar newest: the newest key. Its public key is published.
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
        """The public key to seal with."""
        return self.newest.public

    @property
    def key_ids(self) -> tuple[str, ...]:
        """IDs of all keys, newest first."""
        return tuple(self._keys)

    def open(self, text: str, context: Context) -> bytes:
        """Return the value of a sealed text.

        :raises MalformedError: the text is not a sealed value, or it was not sealed in the right format.
        :raises TooLargeError: the text is longer than any sealed value.
        :raises UnknownKeyError: the value was sealed with a key that is not in this keyring.
        :raises ContextMismatchError: the value was sealed for another context, or the text was changed.
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
            raise MalformedError(f"the value opens, but is not padded correctly; {_AGAIN} with runkeys")
        return value

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"


def seal(value: bytes, context: Context, public_key: PublicKey) -> str:
    """Seal a value for one context and return the sealed text. Two calls never return the same text.

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
    """Seal the value of a sealed text again with the newest key, for the same context.

    The text is always opened first, with the errors of `Keyring.open`. A text that is already sealed with the newest
    key is returned unchanged, so that resealing again changes no file.
    """
    value = keyring.open(text, context)
    return text if key_id_of(text) == keyring.public.key_id else seal(value, context, keyring.public)


def key_id_of(text: str) -> str:
    """Return the ID of the key that a text is sealed with, without opening it. Raises MalformedError, TooLargeError."""
    return _parse(text)[0]


def _parse(text: str) -> tuple[str, bytes]:
    """Split a text into key ID and ciphertext. Errors never repeat any part of a text that has another form.

    It may be a password that was not sealed by mistake.
    """
    if len(text) > _MAX_TEXT:
        raise TooLargeError(
            f"{len(text)} characters are more than any sealed value has; {_AGAIN}, at most 512 KiB"
        )
    found = _SEALED_TEXT.fullmatch(text)
    if found is None:
        if re.match(r"rk[0-9]+\.", text) and not text.startswith("rk1."):
            raise MalformedError("this is sealed in a format of another version of Runkeys; upgrade Runkeys")
        raise MalformedError(
            "this is not a sealed value: a sealed value is one line, rk1. and a key id and a dot and then"
            f" letters, digits, - and _, without white space; {_AGAIN}, or paste all of it"
        )
    sealed = _from_base64url(found[2])
    if sealed is None or not _is_padded_length(len(sealed) - _OVERHEAD):
        raise MalformedError(f"the sealed value is incomplete or was changed; paste all of it, or {_AGAIN}")
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
    """Return the padded length for a value of ``length`` bytes, so that all lengths within a step look the same."""
    if length <= 256:
        return 256
    step = 256 if length <= 4096 else 4096
    return -(-length // step) * step


def _is_padded_length(length: int) -> bool:
    return 0 <= length <= MAX_VALUE and _padded_length(length) == length


def _pad(value: bytes) -> bytes:
    return len(value).to_bytes(_PREFIX, "big") + value.ljust(_padded_length(len(value)), b"\0")


def _unpad(padded: bytes) -> bytes | None:
    """Undo `_pad`. Return None for bytes that `_pad` cannot have returned, so that each value has only one padding."""
    value = padded[_PREFIX : _PREFIX + int.from_bytes(padded[:_PREFIX], "big")]
    return value if _pad(value) == padded else None


def _encode(*parts: str) -> bytes:
    """Join texts, each with its length before it, so that no two sequences give the same bytes."""
    encoded = (part.encode() for part in (_FORMAT, *parts))
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _from_base64url(text: str) -> bytes | None:
    """Decode letters, digits, - and _. Return None for a text that `_base64url` cannot return."""
    if len(text) % 4 == 1:
        return None
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return raw if _base64url(raw) == text else None
