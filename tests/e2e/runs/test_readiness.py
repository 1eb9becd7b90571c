"""Ready means: a run that is applied now is acted on now, whatever else there is to do."""

from __future__ import annotations

import secrets
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from testing import examples
from testing.cluster.audit import AuditEvent, in_order
from testing.cluster.base import Cluster, free_port, wait_until
from testing.cluster.client import PATIENCE, Object
from testing.cluster.faults import matching
from testing.cluster.proxy import ApiProxy
from testing.namespace import Team
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.test_chart_install import install

pytestmark = pytest.mark.e2e

RESYNC = 150
WORKERS = 4


def is_ready(number: int) -> bool:
    """Whether the operator says that it is ready."""
    return answers(number, "readyz")


def answers(number: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{number}/{path}", timeout=PATIENCE) as answer:
            return bool(answer.status == 200)
    except (urllib.error.HTTPError, OSError):
        return False


def between(
    node: Cluster, mark: int, account: str, namespace: str, name: str, *, to_its_turn: bool = False
) -> list[AuditEvent]:
    """What the operator asked for from the moment that the run was there to the moment that its Job was.

    :param to_its_turn: to the moment that it was read.
    """
    events = in_order(node.audit.events(mark, where=lambda event: event.namespace == namespace))
    first = next(
        i
        for i, event in enumerate(events)
        if (event.verb, event.resource, event.name) == ("create", "workflowruns", name)
    )
    last = next(
        i
        for i, event in enumerate(events)
        if (
            (event.verb, event.resource, event.name, event.user) == ("get", "workflowruns", name, account)
            if to_its_turn
            else (event.verb, event.resource) == ("create", "jobs") and event.name.startswith(f"rk-{name}-")
        )
    )
    # After its first look at everything, when it is ready, the operator looks for finished runs with a time to live:
    # on a busy machine that is later than the run.
    return [
        event
        for event in events[first:last]
        if event.user == account
        and event.verb != "watch"
        and "ttlSecondsAfterFinished" not in event.raw["requestURI"]
    ]


def others(calls: list[AuditEvent], name: str) -> set[str]:
    """Names of the other runs that were read meanwhile."""
    return {call.name for call in calls if call.resource == "workflowruns" and call.name not in ("", name)}


@pytest.mark.usefixtures("crds")
def test_a_run_applied_when_the_deployment_is_ready(
    node: Cluster,
    new_namespace: Callable[[], str],
) -> None:
    system, served = new_namespace(), new_namespace()
    release = f"runkeys-{secrets.token_hex(3)}"
    node.client.create(examples.source_secret(served, secrets.token_hex(16)))
    node.client.create(examples.hello_binding(served))
    sets = (
        "--set=crds.install=false",
        # A look at everything would be a list in between, on a busy machine.
        "--set=sweepSeconds=3600",
        f"--set=watchNamespaces={{{served}}}",
        f"--set=sources[0].namespace={served}",
    )
    mark = node.audit.mark()
    install(node, release, system, *sets, f"--set=sources[0].secretNames={{{examples.SOURCE}}}")
    node.client.wait_for("deployments", release, system, available)
    account = f"system:serviceaccount:{system}:{release}"

    def has_looked() -> bool:
        """At everything, for the first and only time: what comes last in that are the finished runs."""
        lists = node.audit.events(mark, verb="list", user=account, namespace=served)
        return any("ttlSecondsAfterFinished" in event.raw["requestURI"] for event in lists)

    # It is ready once its watches are open. On a busy machine its first look may end later.
    wait_until("the first look to be over", has_looked)
    node.client.create(examples.hello_run(served))
    node.client.wait_for("workflowruns", "hello", served, has_job(node, served))
    calls = between(node, mark, account, served, "hello")
    # it heard of it by its watch: no list lies between
    assert [f"{call.verb} {call.resource}" for call in calls if call.verb == "list"] == []
    assert [call.name for call in calls if call.resource == "workflowruns"] == ["hello"]


def available(deployment: Object) -> bool:
    """All of its pods: one that is ready alone may be a standby, while the leader opens its watches."""
    ready = deployment.get("status", {}).get("readyReplicas", 0)
    return bool(ready == deployment["spec"]["replicas"])


def has_job(node: Cluster, namespace: str) -> Callable[[Object], bool]:
    return lambda run: any(
        item["metadata"]["labels"].get("runkeys.dev/run") == run["metadata"]["name"]
        for item in node.client.list("jobs", namespace)
    )


def served(new_team: TeamMaker, proxy: ApiProxy | None = None) -> tuple[Team, int]:
    """A team whose operator is not started, and the port of its probes."""
    number = free_port()
    options = {} if proxy is None else {"server": proxy.url}
    team = new_team("--health-port", str(number), start=False, **options)
    team.make_source()
    team.make_binding()
    return team, number


def test_a_run_applied_when_ready_overtakes_a_backlog(new_team: TeamMaker, node: Cluster) -> None:
    team, number = served(new_team)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: team.make_run(f"old-{i:03d}", bindings=[{"name": "missing"}]), range(RESYNC)))
    mark = node.audit.mark()
    team.operator.start()
    wait_until("the operator to be ready", lambda: is_ready(number), every=0.005)
    team.make_run("new")
    team.client.wait_for("workflowruns", "new", team.namespace, has_job(node, team.namespace))
    account = f"system:serviceaccount:{team.namespace}:runkeys"
    calls = between(node, mark, account, team.namespace, "new", to_its_turn=True)
    # Those that were begun go to their end; of those that wait none goes first. The first sweep may list meanwhile.
    assert len(others(calls, "new")) <= 3 * WORKERS, sorted(others(calls, "new"))


def test_control_an_operator_that_waits_in_line_is_seen(new_team: TeamMaker, node: Cluster) -> None:
    """The run is there before the operator: then it is part of the backlog, and others are read before it."""
    team, number = served(new_team)
    mark = node.audit.mark()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: team.make_run(f"old-{i:03d}", bindings=[{"name": "missing"}]), range(RESYNC)))
    team.make_run("younger")  # lists are in the order of names
    team.operator.start()
    team.client.wait_for("workflowruns", "younger", team.namespace, has_job(node, team.namespace))
    wait_until("the operator to be ready", lambda: is_ready(number))
    account = f"system:serviceaccount:{team.namespace}:runkeys"
    calls = between(node, mark, account, team.namespace, "younger", to_its_turn=True)
    assert len(others(calls, "younger")) > 3 * WORKERS


@pytest.mark.parametrize("watched", ["workflowruns", "secretbindings", "jobs", "pods"])
def test_not_ready_before_each_watch_is_open(new_team: TeamMaker, proxy: ApiProxy, watched: str) -> None:
    held = proxy.hold(matching("watch", watched))
    team, number = served(new_team, proxy)
    team.operator.start()
    held.wait_arrived()
    proxy.wait_for(matching("list", "workflowruns"), count=3)  # the watch's, and both of the first sweep
    wait_until("the operator to be alive", lambda: answers(number, "healthz"))
    assert not is_ready(number)
    held.release()
    wait_until("the operator to be ready", lambda: is_ready(number))
