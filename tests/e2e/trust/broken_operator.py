"""The operator with a planning function that raises, as a defect would have it: for runs that a file names.

The text of the exception quotes a value, which nothing may repeat. Arguments: FILE TEXT, and those of the operator.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from runkeys.planning import task
from runkeys_operator.__main__ import program

broken, text, sys.argv = Path(sys.argv[1]), sys.argv[2], sys.argv[2:]
attempts_of = task.TaskPlanner.begun


def raises(planner: Any) -> Any:
    """Raise for the runs that the file names."""
    if planner.obs.run.metadata.name in broken.read_text().split():
        raise ValueError(f"cannot make sense of {text!r}")
    return attempts_of(planner)


task.TaskPlanner.begun = raises  # type: ignore[method-assign,assignment]
program()
