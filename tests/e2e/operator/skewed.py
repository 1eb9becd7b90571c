"""The operator on a machine whose clock is wrong by so many seconds; run by test_clocks.

Arguments: SECONDS, and those of the operator.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from datetime import datetime, timedelta, tzinfo

import runkeys_operator


class Wrong(datetime):
    """The class by which the operator's modules ask what time it is."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + AHEAD


if __name__ == "__main__":
    AHEAD = timedelta(seconds=float(sys.argv.pop(1)))
    for found in pkgutil.walk_packages(runkeys_operator.__path__, "runkeys_operator."):
        module = importlib.import_module(found.name)
        # session.py tells kopf until when a session is good, by the clock of this process, which is kopf's too.
        if (
            getattr(module, "datetime", None) is datetime
            and found.name != "runkeys_operator.kopf_runtime.session"
        ):
            module.datetime = Wrong  # type: ignore[attr-defined]
    from runkeys_operator.__main__ import program

    program()
