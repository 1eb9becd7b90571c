"""What sealed delivery costs at the start of a container, against delivery by a Secret.

One run at a time on the real node, the kinds in turns, by the clock of the part ``start``. The third is a Secret and
an init container that does nothing: what the kubelet takes for having one. Then many at once on the fake node, whose
kubelet is played here: it asks as a kubelet does, with a key of its own for each pod, and opens nothing. From the audit
log: how long a pod's request waits for its answer.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from runkeys.naming import SIGNER
from tests.e2e.cluster import images
from tests.e2e.cluster.client import ApiError, Object
from tests.e2e.cluster.node import NodeCluster
from tests.e2e.runs.team import TASK_IMAGE, Team

from .kwok import NODE, pod_template
from .report import Figure, Spread
from .scale import make_runs, serving, start_after, wait_none
from .start_latency import _COMMAND, _Watcher
from .team import team

_REQUESTS = "podcertificaterequests"
_OPTIONS = ("--sealed-delivery-image", images.OPERATOR_IMAGE)
_SETS = ("sealedDelivery.enabled=true",)


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """Ms from the Job to its container running, and from a pod's request to its answer; CPU time a run."""
    node.load_image(images.operator_image())
    with team(node, "sealed-start", *_OPTIONS, sets=_SETS) as made:
        made.operator.start()
        made.operator.wait_serving()
        mark = node.audit.mark()
        sealed, secret, idle = _in_turns(made, 6 if quick else 40)
        waits = _waits(node, mark, made.namespace)
    return [
        _compared("delivered sealed or by a Secret", sealed, secret),
        _compared("delivered sealed, or by a Secret and an idle init container", sealed, idle),
        _compared("an idle init container or none", idle, secret),
        Figure(
            "a pod's request to its answer, one at a time",
            Spread.of(waits).text("ms"),
            details=_of(waits, "ours"),
        ),
        *_at_once(node, 20 if quick else 100),
    ]


def _compared(what: str, ours: list[float], peer: list[float]) -> Figure:
    mine, theirs = Spread.of(ours), Spread.of(peer)
    return Figure(
        f"Job to container running, {what}",
        mine.text("ms"),
        theirs.text("ms"),
        mine.p50 / theirs.p50,
        details={**_of(ours, "ours"), **_of(peer, "peer")},
    )


def _of(samples: list[float], whose: str) -> dict[str, float]:
    return {f"{whose}_{key}": value for key, value in asdict(Spread.of(samples)).items()}


def _in_turns(made: Team, rounds: int) -> list[list[float]]:
    """Ms from Job to container running, of each kind."""
    seen = _Watcher(made, seconds=900)
    kinds: dict[str, dict[str, Any]] = {
        "sealed": {"task": {"delivery": "Sealed"}},
        "secret": {},
        "idle": {"pod": {"initContainers": [{"name": "idle", "image": TASK_IMAGE, "command": ["true"]}]}},
    }
    samples: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(-1, rounds):  # the first round only warms up
        for kind in list(kinds)[:: 1 if number % 2 else -1]:
            made_run = made.make_run(f"{kind}-{number + 1:03d}", command=_COMMAND, **kinds[kind])
            taken = seen.wait_ended(made.object_name(made_run))
            if number >= 0:
                samples[kind].append(taken * 1000)
    return list(samples.values())


def _waits(node: NodeCluster, mark: int, namespace: str) -> list[float]:
    """Ms from each request to its answer, as the API server wrote them down."""
    asked, answered = {}, {}
    for event in node.audit.events(mark, namespace=namespace):
        if event.status >= 300:
            continue
        if (event.verb, event.resource) == ("create", _REQUESTS):
            asked[event.name] = event.answered
        elif (event.verb, event.resource) == ("patch", f"{_REQUESTS}/status"):
            answered[event.name] = event.answered
    if asked.keys() != answered.keys():
        raise RuntimeError(f"{len(asked)} requests, but {len(answered)} answers")
    return [(answered[name] - at).total_seconds() * 1000 for name, at in asked.items()]


# many at once


def _at_once(node: NodeCluster, count: int) -> list[Figure]:
    """``count`` runs at once: how long requests wait, and what a run costs the operator, against one with a Secret."""
    waits: list[float] = []
    cpu: dict[str, list[float]] = {"Sealed": [], "Secret": []}
    for number in range(2):
        for delivery in list(cpu)[:: 1 if number % 2 else -1]:
            with team(node, f"{delivery.lower()}-{count}", *_OPTIONS, tidy=True, sets=_SETS) as made:
                task = {"template": pod_template(start_after(count), 1.0), "delivery": delivery}
                with serving(made) as process, _kubelet(made, count if delivery == "Sealed" else 0):
                    mark, before = node.audit.mark(), process.cpu_seconds()
                    make_runs(made, count, task)
                    wait_none(made, process, "status.phase!=Succeeded")
                    cpu[delivery].append((process.cpu_seconds() - before) / count * 1000)
                if delivery == "Sealed":
                    waits += _waits(node, mark, made.namespace)
    mine, theirs = (sum(cpu[kind]) / len(cpu[kind]) for kind in ("Sealed", "Secret"))
    spread = Spread.of(waits)
    return [
        Figure(
            f"a pod's request to its answer, {count} at once, p50 / p95",
            f"{spread.p50:.0f} / {spread.p95:.0f} ms",
            details=_of(waits, "ours"),
        ),
        Figure(
            f"CPU time of the operator a run, {count} at once, delivered sealed or by a Secret",
            f"{mine:.1f} ms",
            f"{theirs:.1f} ms",
            mine / theirs,
            details={"ours": mine, "peer": theirs},
        ),
    ]


@contextmanager
def _kubelet(made: Team, count: int) -> Iterator[None]:
    """Make the request of each pod as it gets the fake node; raises what went wrong with one."""
    if not count:
        yield
        return
    requests = [_request() for _ in range(count)]
    uids = [
        made.client.get("nodes", NODE)["metadata"]["uid"],
        made.client.get("serviceaccounts", "default", made.namespace)["metadata"]["uid"],
    ]
    client = made.client.as_user(f"system:node:{NODE}", "system:nodes", "system:authenticated")
    path = f"/apis/certificates.k8s.io/v1/namespaces/{made.namespace}/{_REQUESTS}"
    done = threading.Event()

    def ask(body: Object) -> None:
        for left in reversed(range(100)):
            try:
                client.request("POST", path, body=body)
                return
            except ApiError as error:
                # The API server's own cache of pods may not have come to the node yet; a kubelet tries again, too.
                if error.status != 403 or not left:
                    raise
            time.sleep(0.01)

    def follow() -> None:
        seen: set[str] = set()
        with ThreadPoolExecutor(8) as pool:
            asked = []
            for _, pod in made.client.watch("pods", made.namespace, timeout=300):
                uid = pod["metadata"]["uid"]
                if pod["spec"].get("nodeName") == NODE and uid not in seen:
                    seen.add(uid)
                    body = _asked(pod, requests.pop(), *uids)
                    asked.append(pool.submit(ask, body))
                if len(seen) == count or done.is_set():
                    break
            for each in asked:
                each.result()

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow)
        try:
            yield
        finally:
            done.set()
        following.result(30)


def _request() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(signed.public_bytes(Encoding.DER)).decode()


def _asked(pod: Object, request: str, node_uid: str, account_uid: str) -> Object:
    name = pod["metadata"]["name"]
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "PodCertificateRequest",
        "metadata": {"name": name, "namespace": pod["metadata"]["namespace"]},
        "spec": {
            "signerName": SIGNER,
            "podName": name,
            "podUID": pod["metadata"]["uid"],
            "serviceAccountName": "default",
            "serviceAccountUID": account_uid,
            "nodeName": NODE,
            "nodeUID": node_uid,
            "maxExpirationSeconds": 8 * 24 * 3600,
            "stubPKCS10Request": request,
        },
    }
