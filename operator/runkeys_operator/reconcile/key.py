"""What the queue holds."""

from __future__ import annotations

from typing import NamedTuple


class RunKey(NamedTuple):
    """Names one WorkflowRun. Everything that happens in the cluster is reduced to such a key."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
