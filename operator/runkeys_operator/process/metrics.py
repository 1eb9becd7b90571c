"""What the operator counts and measures, for Prometheus. Served at `/metrics`, see health.py.

Labels are bounded: kinds, verbs, codes, names of our own exceptions and of release policies; never a namespace, a name
or any text from outside, and so never a value of a secret. docs/metrics.md explains each for people.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from runkeys._version import __version__
from runkeys_operator.errors import ApiError

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
Info("runkeys_build", "Version of the operator.", registry=REGISTRY).info({"version": __version__})

_REACTION = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_EXPOSURE = (0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)
_MOST_REMEMBERED = 4096

ready = Gauge("runkeys_ready", "1 while this process is ready to do its work.", registry=REGISTRY)
leader = Gauge("runkeys_leader", "1 while this process holds the lease, or needs none.", registry=REGISTRY)
policies_in_force = Gauge(
    "runkeys_policies_in_force",
    "1 if the admission policies were those of this version when this process last looked.",
    registry=REGISTRY,
)
live_secrets = Gauge(
    "runkeys_live_secrets", "Secrets of runs that may exist now, as the runs' status says.", registry=REGISTRY
)
overdue_secrets = Gauge(
    "runkeys_overdue_secrets",
    "Secrets that were deleted and are still there, because a finalizer of somebody's holds them.",
    registry=REGISTRY,
)
exposure_seconds = Histogram(
    "runkeys_secret_exposure_seconds",
    "How long a Secret was there, from its request to its confirmed deletion.",
    ["release_policy"],
    buckets=_EXPOSURE,
    registry=REGISTRY,
)
bound_to_secret_seconds = Histogram(
    "runkeys_pod_bound_to_secret_seconds",
    "From hearing that a pod has a node to having made its Secret.",
    buckets=_REACTION,
    registry=REGISTRY,
)
end_to_gone_seconds = Histogram(
    "runkeys_pod_end_to_secret_gone_seconds",
    "From hearing that the containers of a pod have ended to its Secret being gone, where it was still there then.",
    buckets=_REACTION,
    registry=REGISTRY,
)
late_secrets = Counter(
    "runkeys_late_secrets",
    "Secrets that were made when the kubelet had already found them missing, so that the pod waits some seconds.",
    registry=REGISTRY,
)
runs_finished = Counter(
    "runkeys_runs_finished", "Runs that have ended, by phase.", ["phase"], registry=REGISTRY
)
queue_depth = Gauge(
    "runkeys_queue_depth", "Runs and bindings that are due and wait for a worker.", registry=REGISTRY
)
queue_working = Gauge(
    "runkeys_queue_working", "Runs and bindings that are being worked on.", registry=REGISTRY
)
queue_failing = Gauge("runkeys_queue_failing", "Runs and bindings whose last pass failed.", registry=REGISTRY)
reconcile_seconds = Histogram(
    "runkeys_reconcile_seconds",
    "Duration of one pass.",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60),
    registry=REGISTRY,
)
reconcile_errors = Counter(
    "runkeys_reconcile_errors",
    "Passes that failed, by the kind of failure; Conflict is part of normal work.",
    ["kind", "reason"],
    registry=REGISTRY,
)
sweep_errors = Counter(
    "runkeys_sweep_errors", "Looks at everything that is open which failed.", registry=REGISTRY
)
api_requests = Counter(
    "runkeys_api_requests",
    "Requests to the API server; code is `error` where no answer came.",
    ["verb", "resource", "code"],
    registry=REGISTRY,
)
api_seconds = Histogram(
    "runkeys_api_request_seconds",
    "Until the head of the answer came; watches apart.",
    ["verb"],
    buckets=_REACTION,
    registry=REGISTRY,
)
clock_offset = Gauge(
    "runkeys_clock_offset_seconds",
    "By how much the API server's clock is ahead of this process's; 0 where they are less than two seconds apart.",
    registry=REGISTRY,
)
sealing_keys = Gauge("runkeys_sealing_keys", "How many sealing keys there are.", registry=REGISTRY)
newest_key = Gauge(
    "runkeys_sealing_key_newest_timestamp_seconds",
    "When the key that seals was made, in Unix time; 0: not known to this process.",
    registry=REGISTRY,
)
oldest_key = Gauge(
    "runkeys_sealing_key_oldest_timestamp_seconds",
    "When the oldest key that still opens was made, in Unix time; 0: not known to this process.",
    registry=REGISTRY,
)


def page(accept: str) -> tuple[bytes, str]:
    """All of it, and its content type, in the form that `accept` prefers."""
    encode, content_type = choose_encoder(accept)
    return encode(REGISTRY), content_type


def count_failure(kind: str, error: BaseException) -> None:
    """A pass over an object of this kind failed; of its reasons there are a few."""
    reason = type(error).__name__ if isinstance(error, ApiError) else "Defect"
    reconcile_errors.labels(kind, reason).inc()


class Sums:
    """A gauge that is the sum of one number for each of many things; those that are 0 are forgotten."""

    def __init__(self, gauge: Gauge) -> None:
        self._numbers: dict[Hashable, int] = {}
        gauge.set_function(lambda: float(sum(self._numbers.values())))

    def set(self, of: Hashable, number: int) -> None:
        """Replace the number of one of them."""
        if number:
            self._numbers[of] = number
        else:
            self._numbers.pop(of, None)


class Since:
    """Remembers when something was first heard of, for a few thousand things at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: OrderedDict[str, float] = OrderedDict()

    def note(self, what: str) -> None:
        """It is heard of; only the first time counts."""
        self._first.setdefault(what, self._clock())
        if len(self._first) > _MOST_REMEMBERED:
            self._first.popitem(last=False)

    def observe(self, what: str, into: Histogram) -> None:
        """Put the seconds since then into a histogram and forget it; nothing if it was not heard of."""
        first = self._first.pop(what, None)
        if first is not None:
            into.observe(self._clock() - first)

    def forget(self, what: str) -> None:
        """It will not be asked for."""
        self._first.pop(what, None)


live = Sums(live_secrets)
"""By run."""
overdue = Sums(overdue_secrets)
"""By run too."""
bound = Since()
"""Pods that have a node, by uid of their Job."""
ended = Since()
"""Pods that have ended, by uid of their Job."""
