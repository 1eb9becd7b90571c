"""Two hundred runs at once: all succeed, nothing is left, and no run costs more writes than it must."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from runkeys_operator.values.keys import PRIVATE, PUBLIC
from testing.cluster.base import Cluster, wait_until, wait_with_progress
from testing.cluster.client import Object
from testing.cluster.faults import LoseAnswer, matching
from testing.cluster.proxy import ApiProxy
from testing.namespace import Team, phase
from tests.e2e.runs.writes import FIVE, asked_at, calls_of, extra_writes, writes_of

pytestmark = [
    pytest.mark.e2e,
    # Takes all of a small machine, as the proofs in this group do: one after the other.
]

RUNS = 200
_ENDED = ("Succeeded", "Failed", "Cancelled")


def checks_its_variable(value: str) -> list[str]:
    """A command that fails unless the variable has ``value``, without naming it. Cheaper to start than Python."""
    digest = hashlib.sha256(value.encode()).hexdigest()
    return ["sh", "-c", f'printf %s "$SECRET_API_TOKEN" | sha256sum | grep -q "^{digest} " && echo ok']


def late_pods(team: Team) -> set[str]:
    """Pods that the kubelet could not start at once because their Secret was not there yet."""
    return {
        event["involvedObject"]["name"]
        for event in team.client.list("events", team.namespace)
        if event["involvedObject"]["kind"] == "Pod"
        and event["reason"] == "Failed"
        and "secret" in event["message"]
        and "not found" in event["message"]
    }


def make_runs(team: Team, count: int) -> None:
    """Make ``count`` runs as fast as they go; without a network of their own their pods cost the node less."""
    team.may_be_near_the_node()
    command = checks_its_variable(team.value)

    def make(number: int) -> Object:
        return team.make_run(f"job-{number:03d}", command=command, pod={"hostNetwork": True})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(count)))


def wait_ended(team: Team, count: int) -> list[Object]:
    """Wait until all runs of the namespace have ended, and return them."""
    found: list[Object] = []

    def ended() -> bool:
        found[:] = team.client.list("workflowruns", team.namespace)
        return len(found) == count and all(phase(run) in _ENDED for run in found)

    wait_with_progress(f"the end of {count} runs", team.versions, ended, tell=team.unfinished)
    return found


def test_two_hundred_runs_at_once(team: Team, node: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    mark = node.audit.mark()
    make_runs(team, RUNS)
    runs = wait_ended(team, RUNS)

    # each task found the right value, else its container would have failed
    assert Counter(phase(run) for run in runs) == {"Succeeded": RUNS}
    # nothing is left: neither in etcd nor by the word of any status; each Secret was made once and deleted once
    assert node.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []
    assert {run["status"]["live"] for run in runs} == {0}
    story: dict[str, list[bool]] = defaultdict(list)
    for item in node.etcd.history(f"/registry/secrets/{team.namespace}/rk-", since=team.since):
        story[item.key.rpartition("/")[2]].append(item.value is None)
    assert story == {team.object_name(run): [False, True] for run in runs}

    calls = calls_of(team, node, mark)
    made = asked_at(team, node, mark)
    writes = {run["metadata"]["name"]: writes_of(team, calls, run) for run in runs}
    extra = [extra_writes(found, made[name]) for name, found in writes.items()]
    written = sum(call.status < 300 for found in writes.values() for call in found)
    assert written == len(FIVE) * RUNS + sum(extra)
    elsewhere = sum(call.status < 300 for found in calls.values() for call in found) - written
    # A sealing key is made and published once, when the operator begins.
    known = [call for name in ("keys", PRIVATE, PUBLIC) for call in calls[name]]
    assert elsewhere == len(known), (
        "something besides the runs, the status of their binding and a key was written"
    )
    late = late_pods(team)
    with capsys.disabled():
        print(
            f"\n{RUNS} runs at once: {written / RUNS:.2f} writes a run (at most {len(FIVE) + max(extra)}),"
            f" {len(late)} pods late for their Secret"
        )


def test_a_late_secret_and_a_repeated_write_would_be_noticed(
    new_team: Callable[..., Team], node: Cluster, proxy: ApiProxy
) -> None:
    """The broken twin: both checks above see what they look for when it is there."""
    proxy.rule(matching("create", "jobs"), LoseAnswer(), times=1)
    proxy.hold(matching("create", "secrets"), times=None)
    mark = node.audit.mark()
    team = new_team(server=proxy.url)
    team.make_source()
    team.make_binding()
    make_runs(team, 1)
    wait_until("the kubelet to find no Secret", lambda: bool(late_pods(team)))
    proxy.clear_rules()
    (run,) = wait_ended(team, 1)
    assert phase(run) == "Succeeded"
    writes = writes_of(team, calls_of(team, node, mark), run)
    with pytest.raises(AssertionError, match="delete jobs"):
        extra_writes(writes, writes[0].received)
