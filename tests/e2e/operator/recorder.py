"""The operator with a manager that only prints what it is given; run by test_process.

`python -m tests.e2e.operator.recorder KUBECONFIG NAMESPACE PORT BEHAVIOUR`
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial

from runkeys.planning.requirements import SealedSupport
from runkeys_operator.__main__ import exit_code
from runkeys_operator.checks.policies import PolicyCheck
from runkeys_operator.controllers.key import Key, Kind
from runkeys_operator.controllers.workqueue import ReconcileQueue
from runkeys_operator.errors import ServerError
from runkeys_operator.kube import BINDINGS, JOBS, PODS, REQUESTS, REVEALS, RUNS, Json, Kube, Resource
from runkeys_operator.kube.watch import Sink
from runkeys_operator.options import Options
from runkeys_operator.process import logs
from runkeys_operator.values.keys import Keys
from runkeys_operator.values.stores import Stores


def say(*words: object) -> None:
    print(*words, flush=True)


class Recorder:
    def __init__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        namespaces: tuple[str, ...],
        keys: Keys,
        policy_check: PolicyCheck,  # noqa: ARG002 -- it makes nothing
        support: SealedSupport,  # noqa: ARG002
        pod_policy_check: PolicyCheck | None,  # noqa: ARG002
        stores: Stores,  # noqa: ARG002
    ) -> None:
        self._kube, self._queue, self._keys = kube, queue, keys
        say("manager", *namespaces)

    @property
    def sinks(self) -> dict[Resource, Sink]:
        kinds = {BINDINGS: "binding", REVEALS: "reveal", REQUESTS: "request", PODS: "pod", JOBS: "job"}
        return {RUNS: self._on_run, **{kind: partial(self._saw, word) for kind, word in kinds.items()}}

    def _on_run(self, event: Json) -> None:
        self._saw("run", event)
        self._queue.add(Key.of(Kind.RUN, event["object"]["metadata"]))

    def policies_restored(self) -> None:
        say("policies restored")

    async def reconcile(self, key: Key) -> None:
        say("begins", key.name)
        if BEHAVIOUR == "slow":  # busy until after the stop
            while not self._queue._draining:  # noqa: ASYNC110 -- there is nothing to wait for
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)
        say("ends", key.name)

    async def resync(self) -> None:
        say("resync")
        if BEHAVIOUR == "unreachable":
            raise ServerError(503)
        if BEHAVIOUR == "broken":
            raise ValueError("a text that may hold anything")

    async def expire(self) -> None:
        say("expire")

    def _saw(self, kind: str, event: Json) -> None:
        node = [event["object"]["spec"].get("nodeName")] if kind == "pod" else []
        say("saw", kind, event["type"], event["object"]["metadata"]["name"], *node)


if __name__ == "__main__":
    kubeconfig, namespace, port, BEHAVIOUR = sys.argv[1:]
    logs.configure("debug", "text")
    options = Options(namespaces=(namespace,), kubeconfig=kubeconfig, health_port=int(port), resync_seconds=1)
    sys.exit(exit_code(options, Recorder))
