"""An exception in words that hold no value: its type and where it was raised, without its text."""

from __future__ import annotations

import traceback

_FRAMES = 3


def what_happened(error: BaseException) -> str:
    """Return ``TypeError in runkeys.planning.graph.graph_refusals:27, called by …``, by modules and not by paths."""
    frames = list(traceback.walk_tb(error.__traceback__))[-_FRAMES:]
    places = [
        f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_name}:{line}"
        for frame, line in reversed(frames)
    ]
    return (
        f"{type(error).__qualname__} in {', called by '.join(places)}" if places else type(error).__qualname__
    )
