"""Sealing: a value that is safe in Git, and opens in one place only. Needs no cluster.

The text is explained in :mod:`runkeys.sealing.text`.
"""

from runkeys.sealing.text import (
    MAX_VALUE,
    SEED_LENGTH,
    BindingEntry,
    Context,
    ContextMismatchError,
    Keyring,
    MalformedError,
    NamespaceEntry,
    PersonalEntry,
    PrivateKey,
    PublicKey,
    RevealAnswer,
    RunInput,
    SealError,
    TooLargeError,
    UnknownKeyError,
    key_id_of,
    reseal,
    seal,
)

__all__ = [
    "MAX_VALUE",
    "SEED_LENGTH",
    "BindingEntry",
    "Context",
    "ContextMismatchError",
    "Keyring",
    "MalformedError",
    "NamespaceEntry",
    "PersonalEntry",
    "PrivateKey",
    "PublicKey",
    "RevealAnswer",
    "RunInput",
    "SealError",
    "TooLargeError",
    "UnknownKeyError",
    "key_id_of",
    "reseal",
    "seal",
]
