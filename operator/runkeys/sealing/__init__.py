"""Sealing: values that are safe in Git and open in one place only. Needs no cluster.

:mod:`runkeys.sealing.text` describes sealed texts.
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
    PodParameter,
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
    "PodParameter",
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
