"""kopf, without the client libraries that it imports if they are installed.

It needs them only to recognise objects of their classes, and the operator has none. Without
them the operator saves 20 MB and nearly half of its time to start.
Code that needs one later (see credentials) can still import it.
"""

from __future__ import annotations

import asyncio
import sys

_modules: dict[str, object] = sys.modules  # type: ignore[assignment] # None is how a module is barred
_barred = [name for name in ("kubernetes", "kubernetes_asyncio", "pykube") if name not in sys.modules]

_modules.update(dict.fromkeys(_barred))
try:
    import kopf
    from kopf._cogs.clients import scanning
finally:
    for _name in _barred:
        del _modules[_name]


def stop_asking_for_kinds() -> None:
    """End what kopf asks the API server when it starts.

    If it has to stop meanwhile, kopf does not end these requests, retries them without a session, and waits for them.
    """
    for task in asyncio.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        if code is not None and code.co_filename == scanning.__file__:
            task.cancel()


__all__ = ["kopf", "stop_asking_for_kinds"]
