"""Runs on this machine, without a cluster: see :mod:`runkeys.local.run`."""

from runkeys.local.run import (
    LocalRun as LocalRun,
)
