"""Policies of others that rewrite our pods and Jobs, and do not only add: the values stay where they are.

Each attack has its control behind it: the same run, once the policy is gone, has its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from testing.cluster.client import Object
from testing.namespace import TASK_IMAGE, Team, condition, phase, python
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.trust.others import mutating, probe

pytestmark = pytest.mark.e2e

FILE: list[Object] = [{"name": "api_token", "secret": "token", "file": "token"}]
READS_ITS_FILE = python(
    "import hashlib; print('sha256', hashlib.sha256(open('/var/runtime/secrets/token','rb').read()).hexdigest())"
)
MARKS = ' + [JSONPatch{op: "add", path: "/metadata/labels/agent", value: "agent"}]'
OPENS = "size(object.spec.?initContainers.orValue([])) > 0"


def always(change: str) -> str:
    return f"[JSONPatch{{{change}}}]"


def where(condition: str, change: str) -> str:
    return f"[JSONPatch{{{change}}}].filter(p, {condition})"


def renamed(path: str, items: str) -> str:
    """CEL: in this list what is called ``runkeys-secrets`` is called ``innocent``."""
    return (
        f"[0, 1, 2, 3, 4].filter(i, i < size({items}) && {items}[i].name == 'runkeys-secrets')"
        f".map(i, JSONPatch{{op: 'replace', path: '{path}/' + string(i) + '/name', value: 'innocent'}})"
    )


RENAMED = " + ".join(
    (
        renamed("/spec/volumes", "object.spec.?volumes.orValue([])"),
        *(
            renamed(f"/spec/{kind}/0/volumeMounts", f"object.spec.?{kind}[?0].?volumeMounts.orValue([])")
            for kind in ("initContainers", "containers")
        ),
    )
)
READS_IT = where(
    OPENS,
    f"op: 'add', path: '/spec/containers/-', value: Object.spec.containers{{name: 'agent', image: '{TASK_IMAGE}',"
    " command: ['cat', '/seen/token'], volumeMounts: [Object.spec.containers.volumeMounts{name: 'innocent',"
    " mountPath: '/seen'}]}",
)
ANOTHER_COMMAND = where(
    OPENS, "op: 'replace', path: '/spec/initContainers/0/command', value: ['python3', '-c', 'print(0)']"
)
BESIDE_THE_NODE = always("op: 'add', path: '/spec/hostPID', value: true")


def without_a_deadline(of: str) -> str:
    spec = f"spec.{of}".rstrip(".")
    path = f"/{spec.replace('.', '/')}/activeDeadlineSeconds"
    return where(f"has(object.{spec}.activeDeadlineSeconds)", f"op: 'remove', path: '{path}'")


@contextmanager
def rewriting(team: Team, expression: str, kind: str = "Pod") -> Iterator[None]:
    resource, group = {"Pod": ("pods", ""), "Job": ("jobs", "batch")}[kind]
    with mutating(team, resource, group, expression + MARKS, probe(team, kind)):
        yield


def given_to_the_same_run(team: Team, **run: object) -> None:
    """The control."""
    made = team.make_run("again", **run)  # type: ignore[arg-type]
    found = team.wait_phase("again", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.output(made) == f"sha256 {team.digest}\n"


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        pytest.param(
            f"{RENAMED} + {READS_IT}",
            f"container agent ({TASK_IMAGE}) would get the secrets",
            id="and-another-container-reads-it",
        ),
        pytest.param(RENAMED, "the volumes with the secrets are not those", id="renamed"),
        pytest.param(
            ANOTHER_COMMAND, "container runkeys-open, which opens the secrets, is not as", id="opener"
        ),
    ],
)
def test_a_pod_in_which_others_rewrote_what_holds_or_opens_its_values_is_delivered_nothing(
    sealed_team: Callable[..., Team], expression: str, told: str
) -> None:
    team = sealed_team()
    run = {"task": {"secrets": FILE}, "command": READS_ITS_FILE}
    with rewriting(team, expression):
        team.make_run(**run)  # type: ignore[arg-type]
        found = team.wait_condition("job", "Stalled", reason="PodChanged")

    assert told in condition(found, "Stalled")["message"]
    (attempt,) = found["status"]["tasks"][0]["attempts"]
    assert "sealed" not in attempt, "it was answered"
    given_to_the_same_run(team, **run)


def test_a_pod_that_others_let_see_the_processes_of_its_node_is_given_nothing(team: Team) -> None:
    team.may_be_near_the_node()
    with rewriting(team, BESIDE_THE_NODE):
        made = team.make_run()
        found = team.wait_condition("job", "Stalled", reason="PodChanged")

    assert "hostPID is set, so that others could read the secrets" in condition(found, "Stalled")["message"]
    assert team.pod(made)["spec"]["hostPID"]
    assert team.secret_story() == []
    given_to_the_same_run(team)


@pytest.mark.parametrize(("kind", "of"), [("Pod", ""), ("Job", "template.spec")])
def test_a_pod_from_which_others_took_the_deadline_is_given_nothing(
    new_team: TeamMaker, kind: str, of: str
) -> None:
    team = new_team()
    team.make_source()
    team.make_binding()
    with rewriting(team, without_a_deadline(of), kind):
        made = team.make_run()
        found = team.wait_condition("job", "Stalled", reason="PodChanged")

    assert "activeDeadlineSeconds is missing, but the run and its bindings allow" in str(
        condition(found, "Stalled")["message"]
    )
    assert "activeDeadlineSeconds" not in team.pod(made)["spec"]
    assert team.secret_story() == []
    given_to_the_same_run(team)


def test_the_operator_keeps_the_deadline_that_others_took_out_of_a_job(team: Team) -> None:
    """It has no secrets, and so it runs."""
    task = {"secrets": [], "activeDeadlineSeconds": 1}
    with rewriting(team, without_a_deadline("template.spec"), "Job"):
        made = team.make_run(task=task, command=python("import time; time.sleep(3600)"))
        assert "activeDeadlineSeconds" not in team.wait_running(made)["spec"]
        found = team.wait_phase("job", "Failed", "Succeeded")

    assert found["status"]["tasks"][0]["reason"] == "LifetimeExceeded"
    team.client.wait_gone("jobs", team.object_name(made), team.namespace)
