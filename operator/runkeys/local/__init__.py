"""Runs on this machine, without a cluster."""

from runkeys.local.run import LocalRun, as_stored

__all__ = ["LocalRun", "as_stored"]
