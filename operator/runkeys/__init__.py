"""Secrets for the pods of a workflow run, for exactly as long as they need them."""

from runkeys._version import __version__

__all__ = ["__version__"]
