"""Stores of secrets outside the cluster: their logins, reads and revocations. Only ``values/`` calls it."""
