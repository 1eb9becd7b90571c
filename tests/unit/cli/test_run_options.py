"""Rows 31 to 36 as far as they need no cluster, and what else is refused before one is asked."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
import yaml

from runkeys.api import WorkflowRun
from runkeys.cli.runs import _source
from runkeys.client.submission import again, as_given, assignments, from_command, refusals, take_secrets
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


SHOWS = "import os, sys; print([os.environ.get('A'), *sys.argv])"


@pytest.mark.parametrize("value", ["", "pa$$w0rd", "$(HOME)", "a=b", "$", "$$$", "$$(HOME)", "ä\nb"])
def test_36_a_plain_variable_arrives_as_it_was_given(terminal: Terminal, value: str) -> None:
    (terminal.folder / "app.py").write_text(SHOWS)
    out = terminal.ok("run", "--local", "--env", f"A={value}", "app.py", "--", value, "-x")
    assert out.splitlines()[0] == str([value, "app.py", value, "-x"])


def test_36_the_kubelet_is_told_to_change_nothing() -> None:
    assert [as_given(text) for text in ("a$b", "a$$b", "$(A)", "$$(A)", "$")] == [
        "a$b",
        "a$$$b",
        "$$(A)",
        "$$$$(A)",
        "$",
    ]


def test_a_file_whose_name_begins_with_a_dash(terminal: Terminal) -> None:
    (terminal.folder / "-dash.py").write_text(SHOWS)
    out = terminal.ok("run", "--local", "--", "-dash.py", "--epochs", "3")
    assert out.splitlines()[0] == "[None, './-dash.py', '--epochs', '3']"


def test_an_option_of_the_program_before_the_dashes(terminal: Terminal) -> None:
    (terminal.folder / "app.py").write_text(SHOWS)
    done = terminal.run("run", "--local", "app.py", "--epochs", "3")
    assert (done.code, done.out) == (2, "")
    assert "If it is for your program, write -- before the program's own arguments" in done.err
    assert "runkeys run app.py … -- --epochs …" in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nofile.py",), "there is no file nofile.py"),
        (("nofile.py", "--local", "--", "-x"), "there is no file nofile.py"),
        (("app", "app.py"), "there is no file app; leave this word out: runkeys run app.py"),
        (("-f", "nofile.yaml"), "there is no file nofile.yaml"),
        (("--local", "-f", "app.yaml", "--input", "@nofile.json"), "there is no file nofile.json"),
        (("--local", "--env-file", "nofile", "--", "true"), "there is no file nofile"),
    ],
)
def test_a_missing_file_exits_3_and_is_named(terminal: Terminal, words: tuple[str, ...], says: str) -> None:
    (terminal.folder / "app.yaml").write_text("kind: WorkflowRun\nspec: {tasks: []}\n")
    done = terminal.run("run", *words, **NO_CLUSTER)
    assert (done.code, done.out) == (3, "")
    assert says in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("seal", "-f", "nofile"),
        ("seal", "--check", "nofile"),
        ("seal", "-n", "t", "--binding", "b", "--entry", "e", "--public-key", "nofile"),
        ("reseal", "-f", "app.yaml", "--keys", "nofile"),
    ],
)
def test_a_missing_file_exits_3_whichever_command_names_it(
    terminal: Terminal, words: tuple[str, ...]
) -> None:
    (terminal.folder / "app.yaml").write_text("kind: SecretBinding\n")
    done = terminal.run(*words)
    assert (done.code, done.out, done.err) == (3, "", "Error: there is no file nofile\n")


def test_a_file_of_the_image_may_be_absent_here() -> None:
    assert _source(("/app/main.py", "-x"), 2) == (None, ["/app/main.py", "-x"])


def test_a_value_with_a_nul_cannot_be_a_variable(terminal: Terminal) -> None:
    container = {"name": "main", "image": "i", "command": ["true"]}
    asked = [{"name": "t", "input": "f"}]
    task = {"name": "a", "secrets": asked, "template": {"spec": {"containers": [container]}}}
    (terminal.folder / "a.yaml").write_text(
        yaml.safe_dump({"kind": "WorkflowRun", "spec": {"tasks": [task]}})
    )
    for value, says in (
        (f"{TOKEN}\\u0000", "holds a NUL byte"),
        (f"{TOKEN}\\udfff", "in.json: $secrets.f: it holds half"),
    ):
        (terminal.folder / "in.json").write_text(f'{{"$secrets": {{"f": "{value}"}}}}')
        done = terminal.run("run", "--local", "-f", "a.yaml", "--input", "@in.json")
        assert (done.code, done.out, TOKEN in done.err) == (5, "", False)
        assert says in done.err


@pytest.mark.parametrize("name", ["", "x" * 254, "\udcff"])
def test_the_name_of_a_secret_is_checked_before_its_value_is_asked_for(terminal: Terminal, name: str) -> None:
    done = terminal.run("secret", "set", name, **NO_CLUSTER)
    assert (done.code, done.err) == (5, "Error: the name of a secret has 1 to 253 characters of UTF-8 text\n")


def test_a_word_that_is_no_text_is_said(terminal: Terminal) -> None:
    (terminal.folder / "k").write_text(
        "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
        "users: [{name: u, user: {token: x}}]\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\n"
    )
    done = terminal.run("status", "\udcff", KUBECONFIG="k")
    assert (done.code, done.err) == (2, "Error: a word of the command line is not UTF-8 text\n")


def test_a_file_that_cannot_be_written_is_named(terminal: Terminal) -> None:
    (terminal.folder / "user_code").symlink_to("/proc/none/user_code")
    done = terminal.run("init")
    assert (done.code, done.out) == (5, "")
    assert done.err.startswith("Error: ")
    assert "user_code" in done.err
    assert "bug in runkeys" not in done.err


def test_a_value_that_no_task_uses_is_said_in_the_users_words(terminal: Terminal) -> None:
    container = {"name": "main", "image": "i", "command": ["true"]}
    task = {"name": "a", "template": {"spec": {"containers": [container]}}}
    (terminal.folder / "a.yaml").write_text(
        yaml.safe_dump({"kind": "WorkflowRun", "spec": {"tasks": [task]}})
    )
    (terminal.folder / "in.json").write_text(f'{{"$secrets": {{"ibm_token": "{TOKEN}"}}}}')
    done = terminal.run("run", "--local", "-f", "a.yaml", "--input", "@in.json")
    assert done.code == 0, done
    assert "Warning: no task uses ibm_token of $secrets." in done.err
    assert "- {name: ibm_token, input: ibm_token}" in done.err
    assert TOKEN not in done.out + done.err


@pytest.mark.parametrize(
    ("source", "near"),
    [
        ("circuit_data", "; did you mean input.circuit_data?"),
        ("a", "; did you mean tasks.a.output?"),
        ("x", ""),
    ],
)
def test_a_source_without_its_prefix_has_the_near_one_named(
    terminal: Terminal, source: str, near: str
) -> None:
    template = {"spec": {"containers": [{"name": "main", "image": "i", "command": ["true"]}]}}
    tasks = [
        {"name": "a", "template": template, "recordOutput": True},
        {"name": "b", "template": template, "dependsOn": ["a"], "input": [{"name": "d", "from": source}]},
    ]
    made = {"kind": "WorkflowRun", "spec": {"tasks": tasks, "input": {"circuit_data": {}}}}
    (terminal.folder / "a.yaml").write_text(yaml.safe_dump(made))
    done = terminal.run("run", "--local", "-f", "a.yaml")
    assert done.code == 5
    assert f"spec.tasks[1].input[0].from: must be input.<key> or tasks.<task>.output{near}" in done.err


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"metadata": "x"}, "metadata: must be an object"),
        ({"metadata": {"labels": []}}, "metadata.labels: must be an object"),
        ({"spec": []}, "spec: must be an object"),
        ({"spec": {"input": "x"}}, "spec.input: must be an object"),
        ({"spec": {"bindings": {}}}, "spec.bindings: must be a list"),
        ({"spec": {"tasks": ["x"]}}, "spec.tasks[0]: must be an object"),
        ({"spec": {"tasks": [{"secrets": {}}]}}, "spec.tasks[0].secrets: must be a list"),
    ],
)
def test_a_manifest_of_another_form_is_refused_with_its_field(
    terminal: Terminal, made: dict[str, object], says: str
) -> None:
    (terminal.folder / "a.yaml").write_text(yaml.safe_dump({"kind": "WorkflowRun", **made}))
    done = terminal.run("run", "--local", "-f", "a.yaml", "-l", "a=b", "--binding", "b", "--input", "{}")
    assert done.code == 5
    assert says in done.err


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
        ("kind: Job\n", "a.yaml has no WorkflowRun, only Job"),
        ("kind: WorkflowRun\n---\nkind: WorkflowRun\n", "a.yaml has 2 WorkflowRuns, and `run` starts one"),
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
        ({"$secrets": {"t": TOKEN + "\ud800"}}, "spec.input.$secrets.t: is not text that UTF-8 can encode"),
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
