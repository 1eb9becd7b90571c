"""What an operator's process does in tests: it is forked from one that has imported the operator's code.

The tests start an operator more than a thousand times, and imports would take most of what a start costs. That it
starts as a program too, ``python -m runkeys_operator``, is shown by all tests of its image.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from runkeys_operator.__main__ import program


def run(script: Path | None, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    """Run the operator in this process, which has no other use, as ``python -m runkeys_operator ARGUMENTS >> log``.

    :param script: run this file instead, which may change the operator before it runs it.
    """
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir("/")
    sys.argv = [str(script or "runkeys_operator"), *arguments]
    if script is None:
        program()
    else:
        runpy.run_path(str(script), run_name="__main__")
