"""kopf, without the `kubernetes` library that it imports where that happens to be installed.

It wants that library only to recognise objects of its classes, which nobody here has. Not
importing it saves 19 MB and a third of the time that the operator takes to start. Whoever
needs it later (see credentials) can still import it.
"""

from __future__ import annotations

import sys

_modules: dict[str, object] = sys.modules  # type: ignore[assignment] # None is how a module is barred

if "kubernetes" in sys.modules:
    import kopf
else:
    _modules["kubernetes"] = None
    try:
        import kopf
    finally:
        del _modules["kubernetes"]

__all__ = ["kopf"]
