"""What sealed delivery costs at the start of a container, against delivery by a Secret.

One run at a time on the real node, the kinds in turns, by the clock of the part ``start``. The third is a Secret and
an init container that does nothing: what the kubelet takes for having one. From the audit log: how long a pod's
request waits for its answer.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tests.e2e.cluster import images
from tests.e2e.cluster.node import NodeCluster
from tests.e2e.conftest import make_namespace
from tests.e2e.runs.conftest import team_in
from tests.e2e.runs.team import TASK_IMAGE, Team

from .report import Figure, Spread
from .start_latency import _COMMAND, _Watcher

_REQUESTS = "podcertificaterequests"


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """Ms from the Job to its container running, and from a pod's request to its answer."""
    node.load_image(images.operator_image())
    namespace = make_namespace(node.client, "sealed-start")
    arguments = ("--log-level", "info", "--sealed-delivery-image", images.OPERATOR_IMAGE)
    with team_in(node, namespace, node.scratch, *arguments, sets=("sealedDelivery.enabled=true",)) as made:
        made.make_source()
        made.make_binding()
        made.operator.start()
        made.operator.wait_serving()
        mark = node.audit.mark()
        sealed, secret, idle = _in_turns(made, 6 if quick else 40)
        waits = _waits(node, mark, namespace)
    return [
        _compared("delivered sealed or by a Secret", sealed, secret),
        _compared("delivered sealed, or by a Secret and an idle init container", sealed, idle),
        _compared("an idle init container or none", idle, secret),
        Figure(
            "a pod's request to its answer, one at a time",
            Spread.of(waits).text("ms"),
            details=_of(waits, "ours"),
        ),
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
    """Ms from each request to its answer, as the API server wrote them down. There is one at a time, so in order."""
    events = list(node.audit.events(mark, namespace=namespace))
    asked, answered = (
        [event.answered for event in events if (event.verb, event.resource) == call]
        for call in (("create", _REQUESTS), ("patch", f"{_REQUESTS}/status"))
    )
    return [(there - at).total_seconds() * 1000 for at, there in zip(asked, answered, strict=True)]
