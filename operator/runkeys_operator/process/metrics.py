"""The operator's Prometheus metrics. Served at `/metrics`, see health.py.

Label values are bounded: kinds, verbs, codes, names of our own exceptions and of release policies. They never contain a
namespace, a name or any text from outside, and so never a secret's value. docs/metrics.md explains each metric.
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

ready = Gauge("runkeys_ready", "1 while this process is ready.", registry=REGISTRY)
leader = Gauge("runkeys_leader", "1 while this process holds the Lease or needs none.", registry=REGISTRY)
policies_in_force = Gauge(
    "runkeys_policies_in_force",
    "1 if the admission policies were those of this version at this process's last check.",
    registry=REGISTRY,
)
pod_policies_in_force = Gauge(
    "runkeys_pod_policies_in_force",
    "1 if the admission policies on pods that ask for secrets themselves were those of this version at the last check."
    " 0 as long as there was none.",
    registry=REGISTRY,
)
pods_answered = Counter(
    "runkeys_pods_answered",
    "Requests of pods that ask for secrets themselves, by answer: Values, Empty (it needs none any more) or Denied.",
    ["answer"],
    registry=REGISTRY,
)
pods_refused = Counter(
    "runkeys_pods_refused",
    "Times that a pod which asks for secrets itself was left waiting, by reason. The operator looks again after 30 s.",
    ["reason"],
    registry=REGISTRY,
)
live_secrets = Gauge(
    "runkeys_live_secrets", "Secrets of runs that may exist now, by the runs' status.", registry=REGISTRY
)
overdue_secrets = Gauge(
    "runkeys_overdue_secrets",
    "Secrets that were deleted but still exist, because a foreign finalizer holds them.",
    registry=REGISTRY,
)
exposure_seconds = Histogram(
    "runkeys_secret_exposure_seconds",
    "Time that a Secret existed, from the request to create it to its confirmed deletion.",
    ["release_policy"],
    buckets=_EXPOSURE,
    registry=REGISTRY,
)
bound_to_secret_seconds = Histogram(
    "runkeys_pod_bound_to_secret_seconds",
    "Time from the event that a pod has a node to the creation of its Secret.",
    buckets=_REACTION,
    registry=REGISTRY,
)
end_to_gone_seconds = Histogram(
    "runkeys_pod_end_to_secret_gone_seconds",
    "Time from the event that a pod's containers have terminated to the deletion of its Secret, if it still existed.",
    buckets=_REACTION,
    registry=REGISTRY,
)
late_secrets = Counter(
    "runkeys_late_secrets",
    "Secrets created after the kubelet had already found them missing, so that the pod waits some seconds.",
    registry=REGISTRY,
)
open_leases = Gauge(
    "runkeys_open_leases",
    "Leases of SecretStores that runs may hold now, by the runs' status.",
    registry=REGISTRY,
)
pending_revocations = Gauge(
    "runkeys_pending_revocations",
    "Leases that were to be revoked and that the store may still have. The operator tries again after 30 s.",
    registry=REGISTRY,
)
revocation_seconds = Histogram(
    "runkeys_lease_revocation_seconds",
    "Time from the event that a pod's containers have terminated until the store was seen to have none of its leases.",
    buckets=_REACTION,
    registry=REGISTRY,
)
runs_finished = Counter("runkeys_runs_finished", "Finished runs, by phase.", ["phase"], registry=REGISTRY)
queue_depth = Gauge(
    "runkeys_queue_depth", "Runs and bindings in the queue, waiting for a worker.", registry=REGISTRY
)
queue_working = Gauge(
    "runkeys_queue_working", "Runs and bindings that are being reconciled.", registry=REGISTRY
)
queue_failing = Gauge(
    "runkeys_queue_failing", "Runs and bindings whose last reconcile failed.", registry=REGISTRY
)
reconcile_seconds = Histogram(
    "runkeys_reconcile_seconds",
    "Duration of one reconcile.",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60),
    registry=REGISTRY,
)
reconcile_errors = Counter(
    "runkeys_reconcile_errors",
    "Failed reconciles, by reason. Conflict is normal.",
    ["kind", "reason"],
    registry=REGISTRY,
)
sweep_errors = Counter("runkeys_sweep_errors", "Failed resyncs.", registry=REGISTRY)
api_requests = Counter(
    "runkeys_api_requests",
    "Requests to the API server. The code is `error` if no answer came.",
    ["verb", "resource", "code"],
    registry=REGISTRY,
)
api_seconds = Histogram(
    "runkeys_api_request_seconds",
    "Time until the head of the API server's answer arrived. Watches are not included.",
    ["verb"],
    buckets=_REACTION,
    registry=REGISTRY,
)
clock_offset = Gauge(
    "runkeys_clock_offset_seconds",
    "How far the API server's clock is ahead of this process's clock. 0 if they differ by less than two seconds.",
    registry=REGISTRY,
)
sealing_keys = Gauge("runkeys_sealing_keys", "Number of sealing keys.", registry=REGISTRY)
newest_key = Gauge(
    "runkeys_sealing_key_newest_timestamp_seconds",
    "When the newest sealing key was created, in Unix time. 0: this process does not know it.",
    registry=REGISTRY,
)
oldest_key = Gauge(
    "runkeys_sealing_key_oldest_timestamp_seconds",
    "When the oldest key that still opens values was created, in Unix time. 0: this process does not know it.",
    registry=REGISTRY,
)


def page(accept: str) -> tuple[bytes, str]:
    """Return all metrics and their content type, in the format that `accept` prefers."""
    encode, content_type = choose_encoder(accept)
    return encode(REGISTRY), content_type


def count_failure(kind: str, error: BaseException) -> None:
    """Count a failed reconcile of an object of this kind. The number of reasons is bounded."""
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
leases = Sums(open_leases)
"""By run too."""
pending = Sums(pending_revocations)
"""By run too."""
ended = Since()
"""Pods that have ended, by uid of their Job."""
leased = Since()
"""The same of pods with leases."""
