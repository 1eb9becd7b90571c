"""Shared by tests, bench and scripts: real clusters, operators in them, and a namespace to try things in."""
