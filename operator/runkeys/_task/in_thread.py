"""Blocking calls for asynchronous code."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """Call a function in a thread and wait for it without blocking."""
    import asyncio  # a task that never waits need not load it

    return await asyncio.to_thread(function, *arguments, **named)
