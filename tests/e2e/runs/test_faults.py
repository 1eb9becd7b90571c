"""Requests that fail, get lost, come twice or far too late: the run ends as it would have, and nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import PATIENCE, Object, WaitError
from testing.cluster.faults import Action, Answer, Hold, LoseAnswer, Match, Repeat, Request, Reset, matching
from testing.cluster.proxy import ApiProxy
from testing.namespace import (
    FINISHES_WHEN_TOLD,
    Team,
    condition,
    exposures,
    make_namespace,
    phase,
    python,
    team_in,
)
from testing.operators import install_crds
from tests.e2e.conftest import OwnNode
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

NEVER = ("--sweep-seconds", "3600")
MADE_AND_GONE = ["made", "gone"]


@pytest.fixture
def faulty_team(new_team: TeamMaker, proxy: ApiProxy) -> Callable[..., Team]:
    """Make a team whose operator goes through the proxy, and is not started yet."""

    def make(*arguments: str) -> Team:
        team = new_team(*arguments, server=proxy.url, start=False)
        team.make_source()
        team.make_binding()
        return team

    return make


def check_it_ended_well(team: Team, found: Object) -> None:
    """The run succeeded with the right value; its one Secret was made once and is gone."""
    assert phase(found) == "Succeeded", found["status"]
    assert condition(found, "SecretsReleased")["status"] == "True"
    assert [exposure["created"] <= exposure["deleted"] for exposure in exposures(found)] == [True]
    assert team.printed(found) == [f"sha256 {team.digest}\n"]
    assert team.secret_story(team.object_name(found)) == MADE_AND_GONE


# a write that fails once

FAULTS: dict[str, Action] = {
    "error": Answer(500),
    "busy": Answer(429, "TooManyRequests", retry_after=1),
    "conflict": Answer(409, "Conflict"),
    "reset": Reset(),
    "lost": LoseAnswer(),
    "twice-first": Repeat(answer="first"),
    "twice-last": Repeat(),
}


def of_run(name: str, verb: str, resource: str) -> Match:
    """Match what the operator asks for on behalf of one run: names are in paths, or in what is created."""
    marks = (f"/{name}/status", f"/rk-{name}-", f'"name":"rk-{name}-')

    def match(request: Request) -> bool:
        text = request.path + (request.body.decode() if request.verb == "create" else "")
        return (request.verb, request.resource) == (verb, resource) and any(mark in text for mark in marks)

    return match


@pytest.mark.parametrize(
    ("verb", "resource", "which"),
    [
        ("create", "jobs", 1),
        ("create", "secrets", 1),
        ("delete", "secrets", 1),
        ("patch", "workflowruns/status", 1),
        ("patch", "workflowruns/status", 2),
    ],
)
def test_a_write_that_fails_once(
    faulty_team: Callable[..., Team], proxy: ApiProxy, verb: str, resource: str, which: int
) -> None:
    team = faulty_team()
    rules = {
        name: proxy.rule(of_run(name, verb, resource), fault, skip=which - 1)
        for name, fault in FAULTS.items()
    }
    team.operator.start()
    for name in FAULTS:
        team.make_run(name)
    for name in FAULTS:
        check_it_ended_well(team, team.wait_phase(name, "Succeeded", "Failed"))
    assert {name: len(rule.hits) for name, rule in rules.items()} == dict.fromkeys(FAULTS, 1)


def test_a_run_that_somebody_changed_is_read_again(faulty_team: Callable[..., Team], proxy: ApiProxy) -> None:
    team = faulty_team()
    statuses: list[Request] = []

    async def change_first(request: Request) -> Action | None:
        if request.resource == "workflowruns/status":
            statuses.append(request)
            change = {"metadata": {"annotations": {"tests/changed": str(request.number)}}}
            if len(statuses) in (1, 3):
                await asyncio.to_thread(team.client.patch, "workflowruns", "job", team.namespace, change)
        return None

    proxy.before_forward = change_first
    team.operator.start()
    team.make_run()
    check_it_ended_well(team, team.wait_phase("job", "Succeeded", "Failed"))
    # A status that lags behind for long on a busy machine is written once more in between; no other is refused.
    assert [request.status for request in statuses] == [409, 200, 409, *[200] * (len(statuses) - 3)]


def test_a_secret_that_is_said_to_be_there_and_is_not(
    faulty_team: Callable[..., Team], proxy: ApiProxy
) -> None:
    """No container starts without; the run says so in time, and releases what it believes to exist."""
    team = faulty_team()
    proxy.rule(matching("create", "secrets"), Answer(409, "AlreadyExists"), times=None)
    team.operator.start()
    team.make_run(task={"startDeadlineSeconds": 20})
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert (phase(found), found["status"]["tasks"][0]["reason"]) == ("Failed", "StartDeadlineExceeded")
    assert condition(found, "SecretsReleased")["status"] == "True"
    assert next(request.status for request in proxy.requests if request.verb == "delete") == 404
    assert (team.printed(found), team.secret_story()) == ([], [])


# a Job that cannot be made: a webhook is away, a quota does not come to rest, a proxy swallows it


def test_a_job_that_cannot_be_made_is_told_and_tried_again_until_the_deadline(
    faulty_team: Callable[..., Team], proxy: ApiProxy
) -> None:
    """Without a deadline it goes on when that is over; with one it ends, and what arrives after that goes."""
    team = faulty_team("--sweep-seconds", "2")
    away = Answer(500, message="failed calling webhook")
    late = Hold()
    faults: dict[str, Action] = {"waits": away, "ends": Answer(409, "Conflict"), "late": late}
    rules = {
        name: proxy.rule(of_run(name, "create", "jobs"), fault, times=None) for name, fault in faults.items()
    }
    team.operator.start()
    team.make_run("waits")
    for name in ("ends", "late"):
        team.make_run(name, activeDeadlineSeconds=1)

    found = team.wait_condition("waits", "Stalled", "True", "RequestFailed")
    assert (phase(found), found["status"]["live"]) == ("Pending", 0)
    said = condition(found, "Stalled")["message"]
    assert "the request is repeated" in said
    assert "500 InternalError: failed calling webhook" in said
    of_it = "reason=RequestFailed,involvedObject.name=waits"
    wait_until("its Event", lambda: bool(team.client.list("events", team.namespace, fields=of_it)))
    assert [item["message"] for item in team.client.list("events", team.namespace, fields=of_it)] == [said]
    for name in ("ends", "late"):
        found = team.wait_phase(name, "Failed", "Succeeded")
        assert found["status"]["tasks"][0]["reason"] == "RunDeadlineExceeded", found["status"]
    assert len(rules["ends"].hits) < 100, "without a pause in between"

    with team.without_right("delete", "jobs.batch"):  # the twin: the late Job stays
        late.release()
        name = team.object_name(team.run("late"))
        team.client.wait_for("jobs", name, team.namespace, bool)
        proxy.wait_for(lambda request: (request.verb, request.name, request.status) == ("delete", name, 403))
        assert name in team.jobs()
    team.client.wait_gone("jobs", name, team.namespace)
    assert team.secret_story() == []

    proxy.clear_rules()
    check_it_ended_well(team, team.wait_phase("waits", "Succeeded", "Failed"))
    assert condition(team.run("waits"), "Stalled")["status"] == "False"


def test_an_event_is_not_lost_with_the_answer_to_the_status_that_it_is_about(
    faulty_team: Callable[..., Team], proxy: ApiProxy
) -> None:
    """The operator reads the run anew then, which says already why it stalls."""
    team = faulty_team()
    of_status = of_run("job", "patch", "workflowruns/status")
    lost = proxy.rule(
        lambda request: of_status(request) and b'"BindingNotFound"' in request.body, LoseAnswer(), times=1
    )
    team.client.delete("secretbindings", "keys", team.namespace)
    team.operator.start()
    team.make_run()
    found = team.wait_condition("job", "Stalled", "True", "BindingNotFound")
    proxy.wait_for(lambda request: request in lost.hits and request.status == 200)
    said = [
        item["message"]
        for item in team.client.list("events", team.namespace, fields="involvedObject.kind=WorkflowRun")
    ]
    assert said == [condition(found, "Stalled")["message"]]


# watches that break, or fall silent

WATCHES_OF_ITS_TASK = [matching("watch", "pods"), matching("watch", "jobs")]


def test_watches_that_break_all_the_time(faulty_team: Callable[..., Team], proxy: ApiProxy) -> None:
    team = faulty_team(*NEVER)
    proxy.rule(matching("watch"), Reset(), times=4)

    async def cut_all(request: Request) -> Action | None:
        if request.mutates:
            proxy.cut(matching("watch"))
            proxy.rule(matching("watch"), Reset(), times=2)
        return None

    proxy.after_answer = cut_all
    team.operator.start()
    team.make_run()
    check_it_ended_well(team, team.wait_phase("job", "Succeeded", "Failed"))


def silence(proxy: ApiProxy) -> list[Hold]:
    """Have the operator's watches of Jobs and pods say nothing any more, as behind a dead connection."""
    holds = [proxy.hold(match, times=None) for match in WATCHES_OF_ITS_TASK]
    for match in WATCHES_OF_ITS_TASK:
        proxy.cut(match)
    for hold in holds:
        hold.wait_arrived()
    return holds


def finish_unseen(team: Team, proxy: ApiProxy) -> tuple[Object, list[Hold]]:
    """A run whose task ends while the operator's watches are silent."""
    team.operator.start()
    found = team.make_run(command=python(FINISHES_WHEN_TOLD))
    team.wait_running(found)
    holds = silence(proxy)
    team.tell_to_finish(found)
    team.client.wait_for("jobs", team.object_name(found), team.namespace, ended)
    return found, holds


def ended(job: Object) -> bool:
    return any(item["type"] == "Complete" for item in job["status"].get("conditions", []))


def check_released(team: Team, found: Object, timeout: float = PATIENCE) -> None:
    """The run's Secret goes, within ``timeout`` seconds."""
    team.client.wait_gone("secrets", team.object_name(found), team.namespace, timeout)


def test_the_sweep_releases_what_the_watch_did_not_show(
    faulty_team: Callable[..., Team], proxy: ApiProxy
) -> None:
    team = faulty_team("--sweep-seconds", "2")
    found, _ = finish_unseen(team, proxy)
    check_released(team, found)
    check_it_ended_well(team, team.wait_phase("job", "Succeeded", "Failed"))


def test_control_without_the_sweep_the_secret_stays_until_the_watch_speaks(
    faulty_team: Callable[..., Team], proxy: ApiProxy
) -> None:
    team = faulty_team(*NEVER)
    found, holds = finish_unseen(team, proxy)
    with pytest.raises(WaitError):
        check_released(team, found, 5)
    for hold in holds:
        hold.release()
    check_released(team, found)
    check_it_ended_well(team, team.wait_phase("job", "Succeeded", "Failed"))


# a request that comes when nobody expects it any more


def finish_with_a_secret_on_its_way(team: Team, proxy: ApiProxy) -> tuple[Object, Hold]:
    """A run that has ended well, although a first request for its Secret has yet to arrive."""
    team.make_source()
    team.make_binding()
    held = proxy.hold(matching("create", "secrets"))
    team.operator.start()
    team.make_run()
    held.wait_arrived()
    team.operator.kill()
    team.operator.start()
    found = team.wait_phase("job", "Succeeded", "Failed")
    check_it_ended_well(team, found)
    return found, held


def came_late(team: Team) -> bool:
    return team.secret_story()[:3] == [*MADE_AND_GONE, "made"]


def test_a_secret_that_arrives_after_the_end_is_deleted_again(cluster: Cluster, new_team: TeamMaker) -> None:
    with ExitStack() as ends:
        proxies = [ends.enter_context(ApiProxy(cluster)) for _ in range(2)]
        served, twin = (new_team(server=proxy.url, start=False) for proxy in proxies)
        found, held = finish_with_a_secret_on_its_way(served, proxies[0])
        twins, twins_held = finish_with_a_secret_on_its_way(twin, proxies[1])
        twin.operator.kill()
        for team, hold in ((served, held), (twin, twins_held)):
            hold.release()
            wait_until("the late Secret", partial(came_late, team))
        check_released(served, found)

        # the twin: the same without an operator, which would have had longer
        with pytest.raises(WaitError):
            check_released(twin, twins, 2)
        twin.operator.start()
        check_released(twin, twins)


def test_a_secret_that_arrives_after_its_job_is_collected_by_kubernetes(
    new_team: TeamMaker, proxy: ApiProxy
) -> None:
    team = new_team(server=proxy.url, start=False)
    found, held = finish_with_a_secret_on_its_way(team, proxy)
    team.operator.kill()
    team.client.delete("jobs", team.object_name(found), team.namespace)
    team.client.wait_gone("jobs", team.object_name(found), team.namespace)
    held.release()
    wait_until("the late Secret", partial(came_late, team))
    check_released(team, found)
    assert team.secret_story() == MADE_AND_GONE * 2


# parts of the cluster that stop in the middle


def test_components_that_restart_in_the_middle(own_node: OwnNode, tmp_path: Path) -> None:
    node = own_node()
    install_crds(node)
    with team_in(node, make_namespace(node.client, "restarts"), tmp_path) as team:
        team.make_source()
        team.make_binding()
        team.operator.start()
        for component in ("kube-apiserver", "etcd", "kubelet", "kube-controller-manager", "kube-scheduler"):
            name = f"with-{component}"
            found = team.make_run(name, command=python(FINISHES_WHEN_TOLD))
            team.wait_running(found)
            node.restart(component)
            team.tell_to_finish(found)
            check_it_ended_well(team, team.wait_phase(name, "Succeeded", "Failed"))
        assert team.operator.running
