"""Times in Kubernetes' format: RFC 3339, in UTC. Both functions need a time with a zone."""

from __future__ import annotations

from datetime import UTC, datetime


def to_seconds(moment: datetime) -> str:
    """Return the time to the second, as in ``metadata.creationTimestamp``: ``2026-01-02T03:04:05Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_microseconds(moment: datetime) -> str:
    """Return the time to the microsecond, as in a Lease: ``2026-01-02T03:04:05.000006Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
