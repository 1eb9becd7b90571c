"""Rows 31 to 36 as far as they need no cluster, and what else is refused before one is asked."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
import yaml

from runkeys.api import WorkflowRun
from runkeys.client.submission import again, assignments, from_command, refusals, take_secrets
from runkeys.problems import Invalid
from tests.unit.cli.terminal import Terminal

TOKEN = f"canary-{secrets.token_hex(12)}"
NO_CLUSTER = {"KUBECONFIG": "nowhere"}


def test_31_the_variable_is_named_exactly_so() -> None:
    made = from_command(
        "a",
        "i",
        ["python"],
        env={},
        secrets_of={"api_token": "github_api_token"},
        bindings=[{"name": "b"}],
        labels={},
    )
    assert made["spec"]["tasks"][0]["secrets"] == [
        {"name": "api_token", "secret": "github_api_token", "env": "api_token"}
    ]
    made["metadata"]["namespace"] = "n"
    assert refusals(WorkflowRun.parse(made)) == []


@pytest.mark.parametrize("text", ["A", "=b", "A=b=c", "A=", ""])
def test_32_what_is_not_name_and_secret_name(terminal: Terminal, text: str) -> None:
    done = terminal.run("run", "--image", "i", "--secret", text, "--", "true", **NO_CLUSTER)
    assert (done.code, done.out) == (5, "")
    assert "must be NAME=secret-name, with one = between the two" in done.err


def test_32_what_may_be_a_value_is_not_repeated(terminal: Terminal) -> None:
    done = terminal.run("run", "--image", "i", "--secret", f"A=b={TOKEN}", "--", "true", **NO_CLUSTER)
    assert done.code == 5
    assert TOKEN not in done.err


def test_33_a_variable_twice(terminal: Terminal) -> None:
    words = ("--secret", "A=b", "--secret", "A=c")
    done = terminal.run("run", "--image", "i", *words, "--", "true", **NO_CLUSTER)
    assert done.code == 5
    assert "--secret: A is given twice" in done.err


def test_33_two_variables_from_one_secret() -> None:
    assert assignments(["A=s", "B=s"], "--secret", "secret-name") == {"A": "s", "B": "s"}


@pytest.mark.parametrize(
    "name", ["1A", "A-B", "A.B", "A B", "PATH", "LD_PRELOAD", "PYTHONPATH", "KUBERNETES_X"]
)
def test_34_a_name_that_no_variable_can_have(terminal: Terminal, name: str) -> None:
    done = terminal.run("run", "--image", "i", "--secret", f"{name}=s", "--", "true", **NO_CLUSTER)
    assert done.code == 5
    assert f"{name!r} cannot be the name of a variable" in done.err


def test_36_a_variable_given_both_ways(terminal: Terminal) -> None:
    words = ("--local", "--env", "A=x", "--secret", "A=s", "--secret", "B=s")
    done = terminal.run("run", "--image", "i", *words, "--", "true")
    assert done.code == 5
    assert "A is given both by --env and by --secret" in done.err


def test_36_plain_variables_may_hold_an_equals_sign() -> None:
    assert assignments(["A=b=c"], "--env", "value") == {"A": "b=c"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give a manifest (-f), or --image with a command after --"),
        (("-f", "a.yaml", "--image", "i"), "--image cannot be combined with -f"),
        (("-f", "a.yaml", "--", "true"), "a command cannot be combined with -f"),
        (("--image", "i", "--env-file", ".env"), "--env-file is for --local"),
        (("--local",), "give a command after --, or a Python file"),
    ],
)
def test_what_cannot_be_meant(terminal: Terminal, words: tuple[str, ...], says: str) -> None:
    done = terminal.run("run", *words, **NO_CLUSTER)
    assert (done.code, done.out) == (2, "")
    assert says in done.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: Job\n", "found 0 WorkflowRuns; give exactly one"),
        ("kind: WorkflowRun\n---\nkind: WorkflowRun\n", "found 2 WorkflowRuns; give exactly one"),
        ("a: [\n", "line 2: this is not YAML"),
    ],
)
def test_manifests_that_are_none(terminal: Terminal, text: str, says: str) -> None:
    (terminal.folder / "a.yaml").write_text(text)
    done = terminal.run("run", "--local", "-f", "a.yaml")
    assert done.code == 5
    assert says in done.err


def test_secrets_are_no_argument(terminal: Terminal) -> None:
    (terminal.folder / "a.yaml").write_text(yaml.safe_dump({"kind": "WorkflowRun", "spec": {"tasks": []}}))
    done = terminal.run("run", "--local", "-f", "a.yaml", "--input", f'{{"$secrets": {{"a": "{TOKEN}"}}}}')
    assert done.code == 2
    assert "replace the values" in done.err
    assert TOKEN not in done.err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"a": {"$secrets": {"t": TOKEN}}}, "spec.input.a: $secrets is allowed only at the top of the input"),
        ({"$secrets": {"t": 5}}, "spec.input.$secrets.t: must be a string, not a number"),
        ({"$secrets": TOKEN}, "spec.input.$secrets: must be an object of strings"),
        ({"$secrets": {"": TOKEN}}, "spec.input.$secrets: the name of a field is empty"),
    ],
)
def test_19_secrets_of_the_input_that_cannot_be_taken(given: dict[str, object], says: str) -> None:
    with pytest.raises(Invalid) as caught:
        take_secrets({"spec": {"input": given}})
    assert says in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_15_the_manifest_of_the_caller_is_not_changed() -> None:
    given = {"spec": {"input": {"x": 1, "$secrets": {"t": TOKEN}}}}
    made, values = take_secrets(given)
    assert given == {"spec": {"input": {"x": 1, "$secrets": {"t": TOKEN}}}}
    assert made["spec"]["input"] == {"x": 1}
    assert values == {"t": TOKEN}


def finished_run(**states: str) -> dict[str, object]:
    template = {"spec": {"containers": [{"name": "main", "image": "i"}]}}
    tasks = [
        {"name": "a", "recordOutput": True, "template": template},
        {
            "name": "b",
            "dependsOn": ["a"],
            "input": [{"name": "x", "from": "tasks.a.output"}],
            "template": template,
        },
        {"name": "end", "runs": "Always", "template": template},
    ]
    told = [
        {"name": name, "state": state, **({"output": {"n": 1}} if name == "a" else {})}
        for name, state in states.items()
    ]
    return {
        "metadata": {"name": "flow", "namespace": "n"},
        "spec": {"tasks": tasks, "cancel": True, "requester": {"username": "u"}},
        "status": {"phase": "Failed", "tasks": told},
    }


def test_rerun_from_failed_keeps_what_always_runs_and_hands_outputs_on() -> None:
    raw = finished_run(a="Succeeded", b="Failed", end="Succeeded")
    made = again(WorkflowRun.parse(raw), raw, from_failed=True)
    spec = made["spec"]
    assert [task["name"] for task in spec["tasks"]] == ["b", "end"]
    assert spec["tasks"][0]["dependsOn"] == []
    assert spec["tasks"][0]["input"] == [{"name": "x", "from": "input.a-output"}]
    assert spec["input"] == {"a-output": {"n": 1}}
    assert "cancel" not in spec
    assert "requester" not in spec
    assert made["metadata"] == {"generateName": "flow-"}
    whole = again(WorkflowRun.parse(raw), raw, from_failed=False)
    assert [task["name"] for task in whole["spec"]["tasks"]] == ["a", "b", "end"]


def test_rerun_of_what_succeeded_has_nothing_to_do() -> None:
    raw = finished_run(a="Succeeded", b="Succeeded", end="Succeeded")
    with pytest.raises(Invalid, match="all tasks of run flow succeeded"):
        again(WorkflowRun.parse(raw), raw, from_failed=True)


def test_refusals_are_told_before_anything_is_sent(
    terminal: Terminal, golden: Callable[[str, str], None]
) -> None:
    template = {"spec": {"containers": [{"name": "main", "image": "i", "command": ["true"]}]}}
    asked = [{"name": "a", "secret": "s"}, {"name": "A", "secret": "s"}]
    tasks = [{"name": "one", "dependsOn": ["two"], "secrets": asked, "template": template}]
    (terminal.folder / "a.yaml").write_text(yaml.safe_dump({"kind": "WorkflowRun", "spec": {"tasks": tasks}}))
    done = terminal.run("run", "--local", "-f", "a.yaml")
    assert done.code == 5
    golden("run-refused", done.err)
