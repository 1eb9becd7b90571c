"""Answers of Vault and OpenBao: the fields that entries of bindings name. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def fields_of(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields themselves: KV of version 2 has them one level deeper, beside what it says of the version."""
    inner, about = data.get("data"), data.get("metadata")
    versioned = isinstance(about, dict) and {"version", "created_time"} <= about.keys()
    return inner if data.keys() == {"data", "metadata"} and versioned and isinstance(inner, dict) else data


def bytes_of(value: Any) -> bytes:
    """The value of a field: a text as it is; anything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")
