"""kopf, without the client libraries that it imports if they are installed.

It needs them only to recognise objects of their classes, and the operator has none. Without
them the operator saves 20 MB and nearly half of its time to start.
Code that needs one later (see credentials) can still import it.
"""

from __future__ import annotations

import sys

_modules: dict[str, object] = sys.modules  # type: ignore[assignment] # None is how a module is barred
_barred = [name for name in ("kubernetes", "kubernetes_asyncio", "pykube") if name not in sys.modules]

_modules.update(dict.fromkeys(_barred))
try:
    import kopf
finally:
    for _name in _barred:
        del _modules[_name]

__all__ = ["kopf"]
