"""What became known while a run was read is known to be new: a finished run is forgotten only without it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from runkeys.api import WorkflowRun, WorkflowRunSpec, WorkflowRunStatus
from runkeys.api.common import ObjectMeta
from runkeys.names import LABEL_RUN, SIGNER
from runkeys.planning.bindings import Bindings
from runkeys.planning.memory import Memory
from runkeys.planning.observation import Observation
from runkeys.planning.plan import plan
from runkeys.planning.requirements import SealedSupport
from runkeys_operator.checks.policies import PolicyCheck
from runkeys_operator.controllers.certificates import CertificateRequests
from runkeys_operator.controllers.key import Key, Kind
from runkeys_operator.controllers.runs.cache import OwnedObjects
from runkeys_operator.controllers.runs.controller import RunController
from runkeys_operator.controllers.runs.observer import Observer
from runkeys_operator.controllers.runs.record import Record
from runkeys_operator.controllers.workqueue import ReconcileQueue
from runkeys_operator.kube import Kube

RUN = Key(Kind.RUN, "team-a", "finished")
NO_SERVER = cast(Kube, SimpleNamespace())  # what the caches show takes no request


def metadata(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": RUN.namespace,
        "uid": f"{name}-uid",
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        **more,
    }


POD = {
    "metadata": metadata("pod", labels={LABEL_RUN: RUN.name}),
    "spec": {"nodeName": "node", "containers": []},
    "status": {"phase": "Succeeded"},
}


def request(name: str, *conditions: dict[str, str]) -> dict[str, Any]:
    spec = {
        "signerName": SIGNER,
        "podName": "pod",
        "podUID": "pod-uid",
        "nodeName": "node",
        "serviceAccountName": "default",
    }
    return {"metadata": metadata(name), "spec": spec, "status": {"conditions": list(conditions)}}


class Known:
    def __init__(self) -> None:
        self.owned = OwnedObjects()
        self.requests = CertificateRequests(NO_SERVER, SealedSupport())
        self.observer = Observer(
            NO_SERVER, self.owned, self.requests, cast(PolicyCheck, SimpleNamespace(in_force=True))
        )
        run = WorkflowRun.model_construct(
            metadata=ObjectMeta(name=RUN.name, namespace=RUN.namespace, uid="run-uid", resource_version="7"),
            spec=WorkflowRunSpec.model_construct(tasks=[], bindings=[]),
            status=WorkflowRunStatus(),
        )
        self._last = Record(Observation(run, Bindings({}, {}), {}, (), Memory()))

    def observed(self) -> Observation:
        return self.observer.remembered(RUN, self._last)


def test_nothing_came() -> None:
    known = Known()
    known.owned.pods.record(POD)
    known.requests.record(request("first"))
    assert not known.observer.knows_more(RUN, known.observed())


def test_a_pod_that_became_known_meanwhile() -> None:
    known = Known()
    known.requests.record(request("first"))
    before = known.observed()
    known.owned.pods.record(POD)
    assert known.observer.knows_more(RUN, before)
    assert not known.observer.knows_more(RUN, known.observed()), "the next look is the last one"


def test_a_request_that_became_known_meanwhile() -> None:
    known = Known()
    known.owned.pods.record(POD)
    known.requests.record(request("first"))
    before = known.observed()
    known.requests.record(request("second"))
    assert known.observer.knows_more(RUN, before)
    assert not known.observer.knows_more(RUN, known.observed()), "the next look is the last one"


def test_a_request_that_is_answered_needs_no_look() -> None:
    known = Known()
    known.owned.pods.record(POD)
    before = known.observed()
    known.requests.record(request("used", {"type": "Issued", "status": "True"}))
    assert not known.observer.knows_more(RUN, before)


def test_the_controller_forgets_a_finished_run_only_without_news() -> None:
    """What comes while the run is planned has its answer in the next look."""
    known = Known()
    run = WorkflowRun.model_validate(
        {
            "apiVersion": "runkeys.dev/v1alpha1",
            "kind": "WorkflowRun",
            "metadata": metadata(RUN.name),
            "spec": {
                "tasks": [{"name": "a", "template": {"spec": {"containers": [{"name": "m", "image": "i"}]}}}]
            },
            "status": {"phase": "Cancelled", "tasks": [{"name": "a", "state": "Cancelled"}]},
        }
    )
    obs = Observation(run, Bindings({}, {}), {}, (), Memory(), fresh=True)
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    for _ in range(5):  # to the status that is written in the end
        step = plan(obs, now)
        if step.settled:
            break
        assert step.status is not None
        obs = replace(obs, run=run.model_copy(update={"status": step.status}))
    assert plan(obs, now).settled
    none = cast(Any, SimpleNamespace())

    async def carry_out(*, news: bool) -> bool:
        controller = RunController(
            NO_SERVER, ReconcileQueue(), known.owned, known.requests, known.observer, none, none, lambda: now
        )
        if news:
            known.owned.pods.record(POD)
            known.requests.record(request("first"))
        step = await controller._carry_out(RUN, obs)
        assert step is not None
        return step.settled

    assert asyncio.run(carry_out(news=False))
    assert not asyncio.run(carry_out(news=True))
