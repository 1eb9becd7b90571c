"""Merge patches of a run: its status, and its spec without the sealed input."""

from __future__ import annotations

import json
from typing import Any

from runkeys._text import documents
from runkeys.api import WorkflowRunStatus


def without_sealed_input(applied: str) -> str | None:
    """The annotation without the sealed input; None if it need not be changed."""
    if "sealedInput" not in applied:
        return None
    try:
        document = documents.read(applied)
        del document["spec"]["sealedInput"]
        return json.dumps(document, separators=(",", ":")) + "\n"
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""  # it holds the word, and cannot be read: nothing of it may stay


def merge_patch(old: WorkflowRunStatus, new: WorkflowRunStatus) -> dict[str, Any]:
    """``new`` as a merge patch on ``old``: removed keys must be named to be deleted."""
    wire: dict[str, Any] = new.to_wire()
    return {**{name: None for name in old.to_wire() if name not in wire}, **wire}
