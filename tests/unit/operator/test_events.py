"""Which events are news for a run: no pass is made for what cannot change a plan."""

from __future__ import annotations

from typing import Any

import pytest

from runkeys.planning.memory import Memory
from runkeys.planning.observation import Observation, PodView
from runkeys_operator.checks.policies import PolicyCheck
from runkeys_operator.controllers.key import Key, Kind
from runkeys_operator.controllers.manager import Manager
from runkeys_operator.controllers.runs.cache import Cache
from runkeys_operator.controllers.runs.record import Record
from runkeys_operator.controllers.workqueue import ReconcileQueue
from runkeys_operator.kube import Kube
from runkeys_operator.kube.login import Login
from runkeys_operator.values.keys import Keys
from tests.unit.planning.objects import bound_to, make_run

KEY = Key(Kind.RUN, "team-a", "vqe")
LABELS = {"runkeys.dev/run": "vqe"}
METADATA = {
    "name": "vqe",
    "namespace": "team-a",
    "uid": "run-uid",
    "generation": 1,
    "resourceVersion": "1",
    "labels": {"app": "vqe"},
}
"""Of the run that ``make_run`` makes."""


def pod(version: int, *, phase: str = "Pending", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "rk-1",
            "namespace": "team-a",
            "uid": "pod-uid",
            "resourceVersion": str(version),
            "labels": LABELS,
        },
        "spec": {"containers": [{"name": "main", "image": "app"}]},
        "status": {"phase": phase, **status},
    }


def job(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "rk",
            "namespace": "team-a",
            "uid": "job-uid",
            "resourceVersion": "5",
            "creationTimestamp": "2026-01-05T12:00:00Z",
            "labels": LABELS,
        },
        "spec": {"template": {"spec": {}}},
        "status": status,
    }


def test_a_pod_is_news_when_it_is_seen_changes_or_goes() -> None:
    store = Cache(PodView.parse)
    assert store.record(pod(1)) == KEY
    assert store.record(pod(2, podIP="198.51.100.7")) is None
    assert store.record(pod(3, phase="Succeeded")) == KEY
    assert store.record(pod(2)) is None, "older than what is known"
    assert store.of(KEY)[0].phase == "Succeeded"
    assert store.record(pod(4, phase="Succeeded"), deleted=True) == KEY


@pytest.mark.parametrize(
    ("kind", "status", "news"),
    [
        ("ADDED", {}, 0),
        ("MODIFIED", {"active": 1}, 0),
        ("MODIFIED", {"conditions": [{"type": "Complete", "status": "True"}]}, 1),
        (None, {"conditions": [{"type": "Failed", "status": "True"}]}, 1),
        ("DELETED", {"active": 1}, 1),
    ],
)
async def test_a_job_is_news_when_it_ends_or_goes(
    kind: str | None, status: dict[str, Any], news: int
) -> None:
    queue, manager = idle()
    before = job()
    before["metadata"]["resourceVersion"] = "4"
    manager.runs.on_job_event({"type": None, "object": before})
    assert queue.waiting == 0
    manager.runs.on_job_event({"type": kind, "object": job(**status)})
    assert queue.waiting == news


@pytest.mark.parametrize(
    ("kind", "change", "news"),
    [
        ("MODIFIED", {"resourceVersion": "2"}, 0),
        (None, {}, 0),
        ("MODIFIED", {"generation": 2}, 1),
        ("MODIFIED", {"labels": {"app": "other"}}, 1),
        ("MODIFIED", {"uid": "another"}, 1),
        ("MODIFIED", {"deletionTimestamp": "2026-01-05T12:00:00Z"}, 1),
        ("DELETED", {}, 1),
    ],
)
async def test_a_known_run_is_news_when_more_than_its_status_changed(
    kind: str | None, change: dict[str, Any], news: int
) -> None:
    queue, manager = idle()
    event = {"type": kind, "object": {"metadata": {**METADATA, **change}}}
    manager.runs._last[KEY] = Record(Observation(make_run(), bound_to(), {}, (), Memory()))
    manager.runs.on_event(event)
    assert queue.waiting == news


async def test_a_run_that_was_never_seen_is_news() -> None:
    queue, manager = idle()
    manager.runs.on_event({"type": None, "object": {"metadata": METADATA}})
    assert queue.waiting == 1


def idle() -> tuple[ReconcileQueue[Any], Manager]:
    """Controllers that ask nothing of any server, and its queue."""
    queue = ReconcileQueue[Any]()
    kube = Kube(Login(lambda: pytest.fail("nothing is asked")))
    return queue, Manager(kube, queue, (), Keys(kube, None), PolicyCheck(kube, (), None))
