"""The keys in the queue. Every event in the cluster is reduced to a key."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


class Kind(StrEnum):
    """Kinds of objects that are reconciled one by one. Metrics have them as a label."""

    RUN = "run"
    BINDING = "binding"
    REVEAL = "reveal"
    REQUEST = "request"
    """A PodCertificateRequest."""
    STORE = "store"


class Key(NamedTuple):
    """Names one object. ``namespace`` is empty for a kind that has none."""

    kind: Kind
    namespace: str
    name: str

    @classmethod
    def of(cls, kind: Kind, metadata: Mapping[str, Any]) -> Key:
        """The key of an object with this metadata."""
        return cls(kind, metadata["namespace"], metadata["name"])

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
