"""What the queue holds."""

from __future__ import annotations

from typing import NamedTuple


class RunKey(NamedTuple):
    """Names one WorkflowRun. Everything that happens in the cluster is reduced to such a key."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class BindingKey(NamedTuple):
    """Names one SecretBinding. Longer than a RunKey, so that the two are never equal."""

    namespace: str
    name: str
    kind: str = "SecretBinding"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class RevealKey(NamedTuple):
    """Names one SecretReveal."""

    namespace: str
    name: str
    kind: str = "SecretReveal"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class RequestKey(NamedTuple):
    """Names one PodCertificateRequest."""

    namespace: str
    name: str
    kind: str = "PodCertificateRequest"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Key = RunKey | BindingKey | RevealKey | RequestKey
