"""Names of the Orquestra SDK: ``from runkeys.compat import orquestra as sdk``, then ``sdk.secrets.get(…)``.

``workspace_id`` is a namespace here. A secret belongs to one user in one namespace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

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
    "task",
]

F = TypeVar("F", bound=Callable[..., Any])


@overload
def task(function: F, /) -> F: ...
@overload
def task(**options: Any) -> Callable[[F], F]: ...
def task(function: Any = None, /, **options: Any) -> Any:  # noqa: ARG001
    """Mark a function as a task. The function stays as it is: a call runs it at once, in this process.

    :param options: such as ``resources`` or ``source_import``. They are left out: a WorkflowRun says them.
    """
    return (lambda wrapped: wrapped) if function is None else function
