"""Secrets for the pods of a workflow run, for exactly as long as they need them.

::

    from runkeys import secrets

    token = secrets.get("ibm_token")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from runkeys._version import __version__

if TYPE_CHECKING:
    from runkeys import kv, secrets
    from runkeys._task.secret_value import SecretValue
    from runkeys.client import Client
    from runkeys.datapool import DataPool
    from runkeys.runtime import HandlerError

__all__ = ["Client", "DataPool", "HandlerError", "SecretValue", "__version__", "kv", "secrets"]

# Imported on first use, so that a task only pays for what it uses.
_HOMES = {
    "Client": "client",
    "DataPool": "datapool",
    "HandlerError": "runtime",
    "SecretValue": "_task.secret_value",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"runkeys.{_HOMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"runkeys.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
