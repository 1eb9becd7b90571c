"""Names of the Orquestra SDK: ``from runkeys.compat import orquestra as sdk``, then ``sdk.secrets.get(…)``.

``workspace_id`` is a namespace here. A secret belongs to one user in one namespace.
"""

from __future__ import annotations

from runkeys import secrets
from runkeys.secrets import (
    ConfigFileNotFoundError,
    ConfigNameNotFoundError,
    NotFoundError,
    UnauthorizedError,
    ValidationError,
)

__all__ = [
    "ConfigFileNotFoundError",
    "ConfigNameNotFoundError",
    "NotFoundError",
    "UnauthorizedError",
    "ValidationError",
    "secrets",
]
