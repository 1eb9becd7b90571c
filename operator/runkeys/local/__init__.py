"""Runs on this machine, without a cluster."""

from runkeys.local.run import LocalRun

__all__ = ["LocalRun"]
