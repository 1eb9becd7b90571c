"""Measures Runkeys on a node of its own: ``python -m bench``."""
