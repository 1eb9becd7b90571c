"""What is made is made from what was just read by name; everything else goes by what the watches showed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testing.cluster.client import Object, WaitError
from testing.cluster.faults import Hold, Request, Stale, matching
from testing.cluster.proxy import ApiProxy
from testing.namespace import HELD_BACK, TASK_IMAGE, Team, condition, phase
from testing.people import public_key
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

OTHER_IMAGE = "localhost/other:1"


@pytest.fixture
def team(new_team: TeamMaker, proxy: ApiProxy) -> Team:
    """A team whose operator goes through the proxy, and never sweeps in the test's time."""
    team = new_team("--sweep-seconds", "3600", server=proxy.url)
    team.make_source()
    team.make_binding(access=[{"images": [TASK_IMAGE]}])
    team.client.wait_for("secretbindings", "keys", team.namespace, is_ready)
    public_key(team)  # by then nothing of the start is under way any more
    return team


def is_ready(binding: Object) -> bool:
    return condition(binding, "Ready").get("status") == "True"


def test_seven_reads_by_name_and_each_right_before_something_is_made(team: Team, proxy: ApiProxy) -> None:
    before = len(proxy.requests)
    found = team.make_run()
    team.wait_phase("job", "Succeeded")
    seen = [
        f"{request.verb} {request.resource}"
        for request in proxy.requests[before:]
        if request.verb not in ("watch", "list")
        and "admissionpolic" not in request.resource
        # Now and then: leadership, and since when the policies are in force.
        and request.resource not in ("secretbindings/status", "leases", "configmaps", "selfsubjectreviews")
    ]
    # A status that a busy cluster leaves behind for two seconds is written once more.
    kept = (seen.index("create secrets") - 1, len(seen) - 1)
    designed = [
        text for place, text in enumerate(seen) if text != "patch workflowruns/status" or place in kept
    ]
    # what is read side by side may come in any order
    assert designed[:4] == [
        "get workflowruns",
        "get secretbindings",
        "create localsubjectaccessreviews",
        "get secrets",
    ]
    assert designed[4] == "create jobs"
    assert sorted(designed[5:7]) == ["get secretbindings", "get workflowruns"]
    assert designed[7] == "get pods"
    assert designed[8:] == [
        "create localsubjectaccessreviews",
        "get secrets",
        "patch workflowruns/status",
        "create secrets",
        "delete secrets",
        "patch workflowruns/status",
    ]
    assert team.output(found) == f"sha256 {team.digest}\n"


def bound_at_the_last_moment(
    team: Team, proxy: ApiProxy, change: Callable[[Team, Object], None], watched: str
) -> Object:
    """A run whose pod gets its node just after ``change``, of which no watch tells the operator."""
    found = team.make_run(pod=HELD_BACK)
    pod = team.pod(found)
    team.wait_condition("job", "Authorized", "True")
    silent = proxy.hold(matching("watch", watched), times=None)
    proxy.cut(matching("watch", watched))
    silent.wait_arrived()
    change(team, pod)
    team.let_go(found)
    return found


def narrow(team: Team, pod: Object) -> None:  # noqa: ARG001 -- the pod stays as it is
    access = [{"images": [OTHER_IMAGE]}]
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": access}})


def cancel(team: Team, pod: Object) -> None:  # noqa: ARG001 -- the pod stays as it is
    team.client.patch("workflowruns", "job", team.namespace, {"spec": {"cancel": True}})


def test_a_binding_that_was_narrowed_at_the_last_moment(team: Team, proxy: ApiProxy) -> None:
    bound_at_the_last_moment(team, proxy, narrow, "secretbindings")
    found = team.wait_condition("job", "Stalled", "True", "AccessDenied")
    assert f"image {TASK_IMAGE} matches no pattern of images" in condition(found, "Stalled")["message"]
    assert team.secret_story() == []


def test_control_a_cached_binding_would_have_admitted_it(team: Team, proxy: ApiProxy) -> None:
    def narrow_unseen(team: Team, pod: Object) -> None:
        proxy.rule(matching("get", "secretbindings", name="keys"), Stale(), times=None)
        narrow(team, pod)

    bound_at_the_last_moment(team, proxy, narrow_unseen, "secretbindings")
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded"
    assert team.secret_story() == ["made", "gone"]


def test_a_run_that_was_cancelled_at_the_last_moment(team: Team, proxy: ApiProxy) -> None:
    bound_at_the_last_moment(team, proxy, cancel, "workflowruns")
    team.wait_phase("job", "Cancelled")
    assert team.secret_story() == []


def test_control_a_cached_run_would_have_been_served(team: Team, proxy: ApiProxy) -> None:
    proxy.rule(of_run_before_its_cancel(team), Stale(), times=1)
    bound_at_the_last_moment(team, proxy, cancel, "workflowruns")
    # the status carries the version that it was planned from, and there is none without it
    with pytest.raises(WaitError):
        team.client.wait_for("secrets", team.object_name(team.run()), team.namespace, bool, timeout=3)
    team.wait_phase("job", "Cancelled")
    refused = [request.status for request in proxy.requests if request.resource == "workflowruns/status"]
    assert 409 in refused


def of_run_before_its_cancel(team: Team) -> Callable[[Request], bool]:
    """Match the read of the run that is made for its Secret."""

    def match(request: Request) -> bool:
        if not matching("get", "workflowruns", name="job")(request):
            return False
        return bool(team.run()["spec"].get("cancel"))

    return match


def test_a_pod_that_was_changed_at_the_last_moment(team: Team, proxy: ApiProxy) -> None:
    """The watch has shown it with its node and the image that was admitted, and says nothing of the change."""
    found = team.make_run(pod=HELD_BACK)
    team.pod(found)
    team.wait_condition("job", "Authorized", "True")
    held = proxy.hold(matching("get", "workflowruns", name="job"), times=None)  # it reads again after 15 s
    team.let_go(found)
    held.wait_arrived()  # the operator has seen the node, and is about to read
    silence_pods(proxy)
    pod = team.pod(found)
    change = {"spec": {"containers": [{"name": "main", "image": OTHER_IMAGE}]}}
    with team.without_policies("pods"):  # which would refuse it
        team.client.patch("pods", pod["metadata"]["name"], team.namespace, change, "strategic")
    held.release()
    run = team.wait_condition("job", "Stalled", "True", "AccessDenied")
    assert f"image {OTHER_IMAGE} matches no pattern of images" in condition(run, "Stalled")["message"]
    assert team.secret_story() == []


def silence_pods(proxy: ApiProxy) -> Hold:
    silent = proxy.hold(matching("watch", "pods"), times=None)
    proxy.cut(matching("watch", "pods"))
    silent.wait_arrived()
    return silent
