"""What pods that ask for secrets themselves cost: others when they are created, and the operator for each.

Pods without the label are created in two namespaces in turns: where the policies on pods that ask are in force, and
where they are not. Then many pods ask at once on the fake node, whose kubelet is played: their requests are there
before the operator is started, so that its pace is measured and not that of whoever makes them. What the operator's
start costs is measured with none, and taken away. From the audit log: how long a request waits, and how often the API
server is called.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from testing.cluster import images
from testing.cluster.base import wait_until
from testing.cluster.client import ApiError, Object
from testing.cluster.node import NodeCluster
from testing.namespace import Team
from testing.operators import wait_believed
from testing.people import may_use, public_key, sealed_entry

from .kwok import NODE, pod_template
from .process import Process
from .report import Figure, Spread, compared
from .sealed_delivery import _asked, _kubelet, _of, _request, _waits
from .team import team

_REQUESTS = "podcertificaterequests"
_REPOSITORY, _, _TAG = images.OPERATOR_IMAGE.rpartition(":")
_SETS = ("sealedDelivery.enabled=true", f"image.repository={_REPOSITORY}", f"image.tag={_TAG}")
_SEALED = ("--sealed-delivery-image", images.OPERATOR_IMAGE)
_CREATE_AIM, _WAIT_AIM_MS, _CPU_AIM_MS, _PACE_AIM = 1.05, 40.0, 8.0, 100.0
_LONGEST = 120.0


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """Ms to create a pod that does not ask; ms from request to answer, CPU time and calls for each that does."""
    node.load_image(images.operator_image())
    figures = [_creating(node, 40 if quick else 500)]
    figures += _one_by_one_at_once(node, 20)
    for count in (20,) if quick else (100, 1000):
        figures += _waiting(node, count)
    return figures


# those that do not ask


def _creating(node: NodeCluster, count: int) -> Figure:
    with _asking_team(node, "pods-with") as ours, team(node, "pods-without", *_SEALED, sets=_SETS) as peer:
        times: dict[str, list[float]] = {ours.namespace: [], peer.namespace: []}
        for number in range(-5, count):  # the first only warm up
            for made in (ours, peer)[:: 1 if number % 2 else -1]:
                pod = _pod(made, f"plain-{number + 5}")
                del pod["metadata"]["labels"]
                pod["spec"]["schedulingGates"] = [{"name": "runkeys.test/held"}]
                began = time.perf_counter()
                made.client.create(pod)
                if number >= 0:
                    times[made.namespace].append((time.perf_counter() - began) * 1000)
    return compared(
        "POST of a pod without the label, pods.enabled or not",
        times[ours.namespace],
        times[peer.namespace],
        _CREATE_AIM,
    )


# those that do


def _one_by_one_at_once(node: NodeCluster, count: int) -> list[Figure]:
    """The operator serves, and ``count`` pods are created at once."""
    with _asking_team(node, f"pods-serving-{count}", clean_up=True) as made, _kubelet(made, count):
        mark = node.audit.mark()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(made.client.create, (_pod(made, f"pod-{number:04d}") for number in range(count))))
        _wait_answered(made, count)
        waits = _waits(node, mark, made.namespace)
    spread = Spread.of(waits)
    return [
        Figure(
            f"an asking pod's request to its answer, {count} at once, p50 / p95",
            f"{spread.p50:.0f} / {spread.p95:.0f} ms",
            score=spread.p50,
            aim=_WAIT_AIM_MS,
            details=_of(waits, "ours"),
        )
    ]


def _waiting(node: NodeCluster, count: int) -> list[Figure]:
    """``count`` requests wait for the operator, which is started then."""
    with _asking_team(node, f"pods-waiting-{count}", clean_up=True) as made:
        _end(made)
        idle = _starting(made, 0)
        _end(made)
        bodies = _make_requests(made, count)
        mark = node.audit.mark()
        busy = _starting(made, bodies)
        calls, pace = _calls(node, mark, made.namespace, count)
    cpu = (busy - idle) / count * 1000
    return [
        Figure(
            f"pods answered a second, {count} waiting",
            f"{pace:.0f} /s",
            score=_PACE_AIM / pace,
            aim=1.0,
            details={"per_second": pace},
        ),
        Figure(
            f"CPU time of the operator an asking pod, {count} waiting",
            f"{cpu:.1f} ms",
            score=cpu,
            aim=_CPU_AIM_MS,
            details={"ms": cpu},
        ),
        Figure(
            f"calls of the operator an asking pod, {count} waiting",
            ", ".join(f"{verb} {number / count:.2f}" for verb, number in sorted(calls.items())),
            details={verb: number / count for verb, number in calls.items()},
        ),
    ]


def _starting(made: Team, count: int) -> float:
    """Start the operator, and return the seconds of CPU time until it has answered ``count`` and rests."""
    made.operator.start()
    made.operator.wait_serving()
    process = Process(made.operator.pid)
    _wait_answered(made, count)
    time.sleep(3)
    return process.cpu_seconds()


def _end(made: Team) -> None:
    if made.operator.stop() != 0:
        raise RuntimeError("the operator did not end well")


def _make_requests(made: Team, count: int) -> int:
    """Create pods on the fake node, and the request of each; return how many."""
    uids = [
        made.client.get("nodes", NODE)["metadata"]["uid"],
        made.client.get("serviceaccounts", "default", made.namespace)["metadata"]["uid"],
    ]
    kubelet = made.client.as_user(f"system:node:{NODE}", "system:nodes", "system:authenticated")
    path = f"/apis/certificates.k8s.io/v1/namespaces/{made.namespace}/{_REQUESTS}"

    def make(number: int) -> None:
        manifest = _pod(made, f"pod-{number:04d}")
        manifest["spec"]["nodeName"] = NODE
        body = _asked(made.client.create(manifest), _request(), *uids)
        for left in reversed(range(200)):
            try:
                kubelet.request("POST", path, body=body)
                return
            except ApiError as error:
                # The API server's own cache of pods may not have come to the node yet; a kubelet tries again, too.
                if error.status not in (403, 500) or not left:
                    raise
            time.sleep(0.02)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(count)))
    return count


def _wait_answered(made: Team, count: int) -> None:
    def answered() -> bool:
        found = made.client.list(_REQUESTS, made.namespace)
        done = [item for item in found if item.get("status", {}).get("certificateChain")]
        return len(done) >= count

    if count:
        wait_until(f"{count} requests to be answered", answered, _LONGEST, every=0.5)


def _calls(node: NodeCluster, mark: int, namespace: str, count: int) -> tuple[Counter[str], float]:
    """The operator's calls by verb and kind, and how many it answered a second."""
    calls: Counter[str] = Counter()
    answers: list[datetime] = []
    for event in node.audit.events(mark, namespace=namespace):
        if "runkeys" not in event.user or event.verb == "watch" or event.status >= 400:
            continue
        calls[f"{event.verb} {event.resource}"] += 1
        if (event.verb, event.resource) == ("patch", f"{_REQUESTS}/status"):
            answers.append(event.answered)
    if len(answers) != count:
        raise RuntimeError(f"{count} requests, but {len(answers)} answers")
    taken = (max(answers) - min(answers)).total_seconds()
    few = Counter({what: number for what, number in calls.items() if number >= count / 2})
    return few, (count - 1) / taken


# a team whose pods ask


@contextmanager
def _asking_team(node: NodeCluster, hint: str, *, clean_up: bool = False) -> Iterator[Team]:
    """Its operator serves, has published its key, and believes in its policies."""
    sets = (*_SETS, "pods.enabled=true")
    with team(node, hint, *_SEALED, "--pods", sets=sets, clean_up=clean_up) as made:
        made.operator.start()
        made.operator.wait_serving()
        public_key(made)
        entries = [sealed_entry(made, made.value, binding="asked")]
        made.make_binding("asked", secrets=entries, access=[{"pods": {}}], delivery="Sealed")
        may_use(made, f"system:serviceaccount:{made.namespace}:default", "asked", "use-asked")
        wait_until("the policies on pods that ask", lambda: _is_refused(made))
        wait_believed(node, made.namespace)
        yield made


def _pod(made: Team, name: str) -> Object:
    """A pod for the fake node that asks, and does not start there."""
    template: dict[str, Any] = pod_template(3600, 1)
    template["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": made.namespace,
            "labels": {"runkeys.dev/secrets": "ask"},
            "annotations": {"runkeys.dev/secrets": "asked/token", **template["metadata"]["annotations"]},
        },
        "spec": template["spec"],
    }


def _is_refused(made: Team) -> bool:
    """Whether a pod is refused that asks for what its account may not have."""
    pod = _pod(made, "probe")
    pod["metadata"]["annotations"]["runkeys.dev/secrets"] = "other/token"
    try:
        made.client.create(pod, dryRun="All")
    except ApiError as error:
        return "may not use SecretBinding" in str(error)
    return False
