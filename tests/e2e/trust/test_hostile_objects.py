"""What somebody writes that nobody can make sense of concerns nobody else: the others' runs go through."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.client import ApiError, KubeClient, Object
from testing.namespace import SOURCE, Team, condition, phase, run
from testing.people import give
from testing.workflows import container, make, task
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.trust.actors import EDITS
from tests.e2e.trust.golden import check_golden, plain

pytestmark = pytest.mark.e2e

LEVELS = 5_000
PYTHONS_LEVELS = sys.getrecursionlimit()


@pytest.fixture
def reads_what_is_deep() -> Iterator[None]:
    """These tests read what they have made, which the operator must not have to."""
    sys.setrecursionlimit(10 * LEVELS)
    yield
    sys.setrecursionlimit(PYTHONS_LEVELS)


def nested(levels: int) -> Any:
    """Objects and lists by turns."""
    found: Any = 1
    for level in range(levels):
        found = [found] if level % 2 else {"a": found}
    return found


def objects(levels: int) -> Any:
    """Objects only: those the API server lists one by one among the fields that somebody manages."""
    found: Any = 1
    for _ in range(levels):
        found = {"a": found}
    return found


def hostile(namespace: str) -> dict[str, Object]:
    """Runs by their names, each of which could stop whoever reads it."""
    own: dict[str, Any] = {"bindings": [], "sealedInput": {"x": "rk1.nothing"}, "task": {"secrets": []}}
    pod = {"containers": [container("")], "affinity": nested(LEVELS)}
    return {
        "deep-input": run(namespace, "deep-input", input={"x": nested(LEVELS)}, **own),
        "deep-objects": run(namespace, "deep-objects", input=objects(LEVELS), **own),
        "deep-template": run(
            namespace, "deep-template", **{**own, "task": {"secrets": [], "template": {"spec": pod}}}
        ),
    }


def mallory(team: Team) -> KubeClient:
    """Somebody who may make runs, and nothing else of interest."""
    give(team, "mallory", "mallory", EDITS)
    return team.client.as_user("mallory")


def apply(client: KubeClient, found: Object) -> None:
    """As `kubectl apply --server-side` does."""
    metadata = found["metadata"]
    path = f"/apis/runkeys.dev/v1alpha1/namespaces/{metadata['namespace']}/workflowruns/{metadata['name']}"
    client.request(
        *("PATCH", path),
        query={"fieldManager": "test"},
        body=found,
        content_type="application/apply-patch+yaml",
    )


def check_healthy(team: Team, name: str) -> None:
    team.make_run(name)
    found = team.wait_phase(name, "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]


def told(found: Object, team: Team) -> str:
    return plain(condition(found, "Stalled")["message"], team)


def deepest(document: Any) -> int:
    level, levels = [document], 0
    while level:
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        levels += 1
    return levels


@pytest.mark.usefixtures("reads_what_is_deep")
def test_a_run_that_is_too_deep_to_be_read_stops_itself_only(new_team: TeamMaker, tmp_path: Path) -> None:
    team = new_team(start=False)
    team.make_source()
    team.make_binding()
    attacker = mallory(team)
    for found in hostile(team.namespace).values():
        attacker.create(found)  # is there when the operator lists
    team.operator.start()
    team.operator.wait_serving()
    process = team.operator.pid
    check_healthy(team, "beside-the-list")
    for name, found in hostile(team.namespace).items():
        apply(attacker, {**found, "metadata": {**found["metadata"], "name": f"{name}-watched"}})
    check_healthy(team, "beside-the-watch")
    rows = {}
    for name in [*hostile(team.namespace), *(f"{name}-watched" for name in hostile(team.namespace))]:
        found = team.wait_phase(name, "Failed")
        rows[name] = told(found, team)
        assert "sealedInput" not in found["spec"], name
        assert deepest(found["spec"]) > LEVELS, "it was stored as it was sent"
    check_golden("hostile-objects.txt", rows, tmp_path)
    assert team.operator.running
    assert team.operator.pid == process
    assert len(team.jobs()) == 2


@pytest.mark.usefixtures("reads_what_is_deep")
def test_control_what_is_stored_so_ends_whoever_reads_it_whole(new_team: TeamMaker) -> None:
    team = new_team(start=False)
    for found in hostile(team.namespace).values():
        team.client.create(found)
    stored = [json.dumps(team.run(name)) for name in hostile(team.namespace)]
    fields = json.dumps(team.run("deep-objects")["metadata"]["managedFields"])
    sys.setrecursionlimit(PYTHONS_LEVELS)
    for text in (*stored, fields):
        with pytest.raises(RecursionError):
            json.loads(text)


def test_an_output_that_is_too_deep_fails_its_task_and_leaves_nothing(team: Team, tmp_path: Path) -> None:
    writes = "pathlib.Path('/var/runtime/output/output.json').write_text('[' * 300 + ']' * 300)"
    make(team, task("deep", writes, secret=True, recordOutput=True))
    found = team.wait_phase("flow", "Succeeded", "Failed")
    check_golden("hostile-output.txt", {"output of 300 levels": told(found, team)}, tmp_path)
    assert team.secret_story() == ["made", "gone"]
    check_healthy(team, "afterwards")


LONG = "x" * 250


def test_a_message_is_cut_where_the_status_has_no_more_room(team: Team) -> None:
    pod = {"containers": [{**container(""), "name": LONG * 40}]}
    team.make_run(
        "of-a-template", bindings=[], task={"secrets": [], "containers": ["none"], "template": {"spec": pod}}
    )
    keys = {f"{number:02}{LONG}": "x" for number in range(40)}
    team.client.patch(
        "secrets", SOURCE, team.namespace, {"stringData": {"token": team.value, **keys}}, "merge"
    )
    wanted = {"name": "token", "secretKeyRef": {"name": SOURCE, "key": f"no-{LONG}"}}
    team.make_binding("of-a-source", secrets=[wanted])
    team.make_run("of-a-source", bindings=[{"name": "of-a-source"}])
    check_healthy(team, "beside")
    found = team.wait_phase("of-a-template", "Failed")
    message = found["status"]["tasks"][0]["message"]
    assert message.startswith("spec.tasks[0].containers: no container is called 'none'; the template has xxx")
    assert (len(message), message[-1]) == (4096, "…")
    told = team.wait_condition("of-a-source", "SecretsReady", "False", "SourceKeyMissing")
    assert " and 21 more" in condition(told, "SecretsReady")["message"]
    team.client.wait_for(
        "secretbindings",
        "of-a-source",
        team.namespace,
        lambda item: "and 21 more" in item.get("status", {}).get("entries", [{}])[0].get("message", ""),
    )


def test_control_the_api_server_refuses_a_status_with_a_longer_message(team: Team) -> None:
    team.make_run("job", command=["true"], bindings=[], task={"secrets": []})
    team.wait_phase("job", "Succeeded")

    def say(message: str) -> Object:
        tasks = [{"name": "work", "state": "Succeeded", "message": message}]
        change = {"status": {"tasks": tasks}}
        return team.client.patch(
            "workflowruns", "job", team.namespace, change, "merge", "status", dryRun="All"
        )

    with team.without_policies("status"):
        assert say("x" * 4096)
        with pytest.raises(ApiError) as refused:
            say("x" * 4097)
    assert "status.tasks[0].message: Too long: may not be more than 4096" in refused.value.message


PATTERN, IMAGE = "*a" * 6 + "b", "a" * 120


def test_a_pattern_that_takes_long_to_match_keeps_nobody_waiting(team: Team) -> None:
    """Six stars took six seconds of all that the operator does, with twelve it would still be at it."""
    for name, pattern in (("slow", PATTERN), ("slower", PATTERN.replace("b", "*a" * 6 + "b"))):
        team.make_binding(name, access=[{"images": [pattern]}])
        pod = {"containers": [{**container(""), "image": IMAGE}]}
        team.make_run(name, bindings=[{"name": name}], task=asks(pod))
    check_healthy(team, "beside")
    for name in ("slow", "slower"):
        team.wait_condition(name, "Authorized", "False", "AccessDenied")
    with pytest.raises(ApiError) as refused:
        team.make_binding("slowest", access=[{"images": ["*a" * 17]}])
    assert "an image pattern may hold at most 16 stars; write several patterns" in refused.value.message


def asks(pod: Object) -> Object:
    return {"secrets": [{"name": "x", "secret": "token"}], "template": {"spec": pod}}


def test_the_largest_runs_keep_nobody_waiting(team: Team) -> None:
    """Each of these took seconds to half a minute of all that the operator does, whenever it was looked at."""
    here = team.namespace
    taking = [
        {**task(f"t{number}"), "input": [{"name": f"p{k}", "from": "input.big"} for k in range(32)]}
        for number in range(64)
    ]
    team.client.create(run(here, "input", input={"big": ["x" * 10] * 60_000}, tasks=taking, bindings=[]))
    entries = [{"name": f"e{k}", "secretKeyRef": {"name": SOURCE, "key": "token"}} for k in range(512)]
    for number in range(8):
        team.make_binding(
            f"b{number}", secrets=[{**entry, "name": f"b{number}-{entry['name']}"} for entry in entries]
        )
    asking = [
        {**task(f"t{number}"), "secrets": [{"name": f"p{k}", "secret": f"none-{k}"} for k in range(64)]}
        for number in range(64)
    ]
    team.client.create(run(here, "secrets", bindings=[{"name": f"b{k}"} for k in range(8)], tasks=asking))
    check_healthy(team, "beside")
    team.wait_phase("input", "Failed")
    found = team.wait_condition("secrets", "Stalled", "True", "SecretNotFound")
    assert "they have: b0-e0, b0-e1, " in condition(found, "Stalled")["message"]
