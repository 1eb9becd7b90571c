"""Runs, bindings and logs from Python: see :mod:`runkeys.client.http`."""

from runkeys.client.http import (
    MERGE_PATCH as MERGE_PATCH,
)
from runkeys.client.http import (
    Client as Client,
)
from runkeys.client.http import (
    released as released,
)
