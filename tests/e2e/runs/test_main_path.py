"""A run's secret, from nothing to gone."""

from __future__ import annotations

import hashlib
from datetime import datetime

import pytest

from testing.cluster.base import Cluster, wait_until
from testing.namespace import Team, condition, exposures
from tests.e2e.runs.writes import FIVE, asked_at, calls_of, extra_writes, writes_of

pytestmark = pytest.mark.e2e


def test_the_task_finds_its_secret_and_nothing_is_left(team: Team, node: Cluster) -> None:
    since, mark = node.etcd.revision(), node.audit.mark()
    team.make_run()
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert found["status"]["phase"] == "Succeeded", found["status"]
    name = team.object_name(found)

    # the container had the right value
    digest = hashlib.sha256(team.value.encode()).hexdigest()
    assert team.output(found) == f"sha256 {digest}\n"

    # nothing is left: in etcd now, and by the word of the status
    assert node.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []
    assert condition(found, "SecretsReleased")["status"] == "True"
    assert found["status"]["live"] == 0

    # in etcd, at any revision, the value was in the source and in the run's own Secret only
    where = node.etcd.find(team.value.encode(), since=1)
    assert set(where) == {
        f"/registry/secrets/{team.namespace}/source",
        f"/registry/secrets/{team.namespace}/{name}",
    }
    history = list(node.etcd.history(f"/registry/secrets/{team.namespace}/{name}", since))
    assert [item.value is None for item in history] == [False, True], "made once, deleted once"

    # the Secret came when the pod had its node and went before the Job was counted as done
    wanted = ["create jobs", "create pods/binding", "create secrets", "delete secrets"]
    events = team.calls(mark, *wanted, at_least=len(wanted))
    assert [f"{event.verb} {event.resource}" for event in events] == wanted

    # the exposure that the status tells contains the true one, and is no longer than both calls took
    (exposure,) = exposures(found)
    created, deleted = (datetime.fromisoformat(exposure[key]) for key in ("created", "deleted"))
    made = next(event for event in events if event.resource == "secrets" and event.verb == "create")
    gone = next(event for event in events if event.resource == "secrets" and event.verb == "delete")
    assert created <= made.answered
    assert gone.received <= deleted
    # Both are on record with the writes around them.
    account = f"system:serviceaccount:{team.namespace}:runkeys"
    statuses = [
        event
        for event in node.audit.events(mark, namespace=team.namespace, verb="patch", user=account)
        if event.resource == "workflowruns/status"
    ]
    before = [event for event in statuses if event.received <= made.received][-1]
    after = next(event for event in statuses if event.received >= gone.received)
    assert before.received <= created
    assert deleted <= after.received
    assert not exposure.get("estimated")


def test_five_writes(team: Team, node: Cluster) -> None:
    mark = node.audit.mark()
    team.make_run()
    run = team.wait_phase("job", "Succeeded")
    # the audit log knows of a write once it is answered, which may be after others have seen it
    wait_until("the operator to be answered", lambda: "status Succeeded" in team.operator.text())
    calls = calls_of(team, node, mark)
    writes = writes_of(team, calls, run)
    extra = extra_writes(writes, asked_at(team, node, mark)["job"])
    assert len([call for call in writes if call.status < 300]) == len(FIVE) + extra
    # the binding's own status and the first sealing key, once, whatever runs; nothing else
    once = {"keys", "runkeys-sealing-keys", "runkeys-public-keys"}
    assert calls.keys() <= {"job", team.object_name(run), *once}
