"""The operator with an engine that only prints what it is given; run by test_process.

`python -m tests.e2e.operator.recorder KUBECONFIG NAMESPACE PORT BEHAVIOUR`
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from runkeys.planning.requirements import SealedOffer
from runkeys_operator.__main__ import exit_code
from runkeys_operator.app import Options
from runkeys_operator.checks.policies import Guard
from runkeys_operator.controllers.key import Key, RunKey
from runkeys_operator.controllers.workqueue import ReconcileQueue
from runkeys_operator.errors import ServerError
from runkeys_operator.kopf_runtime.handlers import Event
from runkeys_operator.kube import Kube
from runkeys_operator.process import logs
from runkeys_operator.values.keys import Keys


def say(*words: object) -> None:
    print(*words, flush=True)


class Recorder:
    def __init__(
        self,
        kube: Kube,
        queue: ReconcileQueue[Key],
        namespaces: tuple[str, ...],
        keys: Keys,
        guard: Guard,  # noqa: ARG002 -- it makes nothing
        offer: SealedOffer,  # noqa: ARG002
    ) -> None:
        self._kube, self._queue, self._keys = kube, queue, keys
        say("engine", *namespaces)

    def saw_run(self, event: Event) -> None:
        self._saw("run", event)
        self._queue.add(RunKey(event["object"]["metadata"]["namespace"], event["object"]["metadata"]["name"]))

    def policies_restored(self) -> None:
        say("policies restored")

    def saw_binding(self, event: Event) -> None:
        self._saw("binding", event)

    def saw_reveal(self, event: Event) -> None:
        self._saw("reveal", event)

    def saw_request(self, event: Event) -> None:
        self._saw("request", event)

    def saw_pod(self, event: Event) -> None:
        self._saw("pod", event, event["object"]["spec"].get("nodeName"))

    def saw_job(self, event: Event) -> None:
        self._saw("job", event)

    async def reconcile(self, key: Key) -> None:
        say("begins", key.name)
        await asyncio.sleep(2 if BEHAVIOUR == "slow" else 0)
        say("ends", key.name)

    async def sweep(self) -> None:
        say("sweep")
        if BEHAVIOUR == "unreachable":
            raise ServerError(503)
        if BEHAVIOUR == "broken":
            raise ValueError("a text that may hold anything")

    async def expire(self) -> None:
        say("expire")

    def _saw(self, kind: str, event: Event, *more: Any) -> None:
        say("saw", kind, event["type"], event["object"]["metadata"]["name"], *more)


if __name__ == "__main__":
    kubeconfig, namespace, port, BEHAVIOUR = sys.argv[1:]
    logs.configure("debug", "text")
    options = Options(namespaces=(namespace,), kubeconfig=kubeconfig, health_port=int(port), sweep_seconds=1)
    sys.exit(exit_code(options, Recorder))
