"""Runs from the command line: started, looked at, stopped, and how commands end."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
from typing import Any

import pytest
import yaml

from runkeys.sealing import PrivateKey
from testing.cluster.base import Cluster
from testing.namespace import FINISHES_WHEN_TOLD, TASK_IMAGE, Team, canary, phase, python, run
from testing.people import check_value_is_nowhere_else
from testing.workflows import task
from tests.e2e.cli.conftest import UserMaker
from tests.unit.cli.terminal import COMMAND, Terminal, environment

pytestmark = pytest.mark.e2e

PRINTS = (
    "import os, hashlib; print('sha256', hashlib.sha256(os.environ['API_TOKEN'].encode()).hexdigest(),"
    " os.environ.get('FOO'))"
)
IMAGE = ("--image", TASK_IMAGE)


def write(alice: Terminal, manifest: dict[str, Any]) -> str:
    (alice.folder / "run.yaml").write_text(yaml.safe_dump(manifest))
    return "run.yaml"


def started(done_out: str) -> str:
    found = re.search(r"workflowrun\.runkeys\.dev/(\S+)", done_out)
    assert found is not None, done_out
    return found[1]


def test_31_36_a_command_with_a_variable_and_a_secret_by_exact_name(team: Team, alice: Terminal) -> None:
    words = ("run", *IMAGE, "--env", "FOO=bar", "--secret", "API_TOKEN=token", "--name", "cmd", "--wait")
    done = alice.run(*words, "--", *python(PRINTS))
    assert done.code == 0, done
    assert alice.run("logs", "cmd").out == f"sha256 {team.digest} bar\n"
    table = alice.ok("status", "cmd").splitlines()
    assert table[0].split() == ["TASK", "STATE", "TRY", "SECRETS", "EXPOSED", "TIME"]
    assert table[1].split()[:5] == ["main", "Succeeded", "1", "API_TOKEN", "gone"]
    assert re.fullmatch(r"Released: yes, after \d+\.\ds in total", table[2])
    assert team.value not in done.out + done.err + "".join(table)
    stored = team.run("cmd")
    assert stored["spec"]["requester"]["username"] == f"system:serviceaccount:{team.namespace}:alice"
    assert stored["spec"]["ttlSecondsAfterFinished"] == 86400


def test_35_an_unknown_secret_is_named_before_anything_starts(team: Team, alice: Terminal) -> None:
    done = alice.run("run", *IMAGE, "--secret", "A=absent", "--", "true")
    assert done.code == 3
    assert f"there is no secret 'absent' in keys of namespace {team.namespace}; there are: token" in done.err
    assert team.client.list("workflowruns", team.namespace) == []


def test_33_two_variables_from_one_secret(alice: Terminal) -> None:
    code = "import os; assert os.environ['A'] == os.environ['B'] != ''"
    done = alice.run(
        "run", *IMAGE, "--secret", "A=token", "--secret", "B=token", "--wait", "--", *python(code)
    )
    assert done.code == 0, done


def test_a_value_that_is_brought_along_is_sealed_before_it_leaves(
    team: Team, alice: Terminal, node: Cluster
) -> None:
    mark, value = node.audit.mark(), canary()
    task = {"secrets": [{"name": "api_token", "input": "ibm_api_token"}]}
    file = write(alice, run(team.namespace, bindings=[], task=task))
    given = json.dumps({"$secrets": {"ibm_api_token": value}, "x": 1})
    done = alice.run("run", "-f", file, "--input", "@-", "--wait", stdin=given)
    assert done.code == 0, done
    assert hashlib.sha256(value.encode()).hexdigest() in team.output(team.run())
    check_value_is_nowhere_else(team, node, value, mark)
    printed = alice.run("run", "-f", file, "--input", "@-", "--dry-run", "--name", "other", stdin=given)
    assert printed.code == 0, printed
    made = yaml.safe_load(printed.out)
    assert made["spec"]["sealedInput"]["ibm_api_token"].startswith("rk1.")
    assert made["spec"]["input"] == {"x": 1}
    assert value not in printed.out + printed.err
    assert [item["metadata"]["name"] for item in team.client.list("workflowruns", team.namespace)] == ["job"]


def test_a_failed_run_ends_with_1_and_says_why(alice: Terminal) -> None:
    done = alice.run("run", *IMAGE, "--name", "bad", "--wait", "--", *python("raise SystemExit(3)"))
    assert done.code == 1
    assert "main: container main exited with code 3" in done.out
    assert done.err.endswith("Error: run bad is Failed\n")
    assert alice.run("watch", "bad").code == 1
    assert alice.run("status", "bad").code == 0


def test_cancel_suspend_resume_and_delete(team: Team, alice: Terminal) -> None:
    file = write(alice, run(team.namespace, command=python(FINISHES_WHEN_TOLD)))
    assert started(alice.ok("run", "-f", file)) == "job"
    team.wait_running(team.run())
    assert "api_token live" in alice.ok("status", "job")
    assert alice.run("resume", "job").code == 5
    assert alice.run("watch", "job", "--timeout", "1").code == 7
    refused = alice.run("delete", "job")
    assert (refused.code, "give --yes" in refused.err) == (2, True)
    alice.ok("suspend", "job")
    team.wait_phase("job", "Suspended")
    alice.ok("resume", "job")
    team.wait_phase("job", "Running")
    alice.ok("cancel", "job")
    done = alice.run("watch", "job")
    assert done.code == 1
    assert "work: Cancelled" in done.out
    assert phase(team.run()) == "Cancelled"
    assert "has already finished: Cancelled" in alice.run("cancel", "job").err
    assert alice.run("suspend", "job").code == 5
    alice.ok("delete", "job")
    assert alice.run("status", "job").code == 3


def test_logs_of_several_tasks_and_as_they_come(team: Team, alice: Terminal) -> None:
    first, second = task("first", "print('one')"), task("second", "print('two')", dependsOn=["first"])
    body = run(team.namespace)
    body["spec"] |= {"bindings": [], "tasks": [first, second]}
    alice.ok("run", "-f", write(alice, body))
    followed = alice.run("logs", "-f", "job")
    assert followed.code == 0, followed
    assert followed.out == "[first] one\n[second] two\n"
    assert followed.err == ""
    assert alice.ok("logs", "job", "-t", "second") == "two\n"
    absent = alice.run("logs", "job", "-t", "third")
    assert absent.code == 3
    assert "run job has no task 'third'; it has: first, second" in absent.err


def test_logs_say_that_they_are_not_masked(team: Team, alice: Terminal) -> None:
    alice.ok("run", "-f", write(alice, run(team.namespace)), "--wait")
    done = alice.run("logs", "job")
    assert done.out == f"sha256 {team.digest}\n"
    assert "values are masked only in programs that read them with the runkeys library" in done.err
    assert alice.run("-q", "logs", "job").err == ""


def test_interrupted_the_run_goes_on_and_it_is_said_how_to_stop_it(team: Team, alice: Terminal) -> None:
    file = write(alice, run(team.namespace, command=python(FINISHES_WHEN_TOLD)))
    process = subprocess.Popen(
        [*COMMAND, "run", "-f", file, "--wait"],
        cwd=alice.folder,
        env=environment(alice.folder, **alice.more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        team.client.wait_for("workflowruns", "job", team.namespace, bool)
        team.wait_running(team.run())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=180)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "Run job is not stopped by that; to stop it: runkeys cancel job" in err
    team.wait_phase("job", "Running")
    team.tell_to_finish(team.run())
    shown = alice.typed("watch", "job", answers={})
    assert shown.code == 0, shown
    assert "\x1b[32mSucceeded\x1b[0m" in shown.out
    plain = alice.typed("status", "job", "--no-color", answers={})
    assert "\x1b" not in plain.out
    assert "Released: yes, after" in plain.out


def test_rerun_from_failed_hands_outputs_on(team: Team, alice: Terminal) -> None:
    writes = task("a", "write({'n': 41})", recordOutput=True)
    reads = "assert given('x') == {'n': 41}\nimport os\nraise SystemExit(0 if 'AGAIN' in os.environ else 3)"
    given = [{"name": "x", "from": "tasks.a.output"}]
    body = run(team.namespace)
    body["spec"] |= {"bindings": [], "tasks": [writes, task("b", reads, dependsOn=["a"], input=given)]}
    assert alice.run("run", "-f", write(alice, body), "--wait").code == 1
    again = alice.run("rerun", "job", "--from-failed", "--wait", "-o", "json")
    assert again.code == 1
    made = json.loads(again.out)
    assert [item["name"] for item in made["spec"]["tasks"]] == ["b"]
    assert made["spec"]["input"] == {"a-output": {"n": 41}}
    assert made["status"]["tasks"][0]["message"] == "container main exited with code 3"


def test_formats_for_scripts(team: Team, alice: Terminal) -> None:
    assert alice.run("status").err == f"no runs in namespace {team.namespace}\n"
    alice.ok("run", *IMAGE, "--name", "a", "--wait", "--", "true")
    assert alice.ok("status", "-o", "name") == "workflowrun.runkeys.dev/a\n"
    assert json.loads(alice.ok("status", "-o", "json"))["items"][0]["metadata"]["name"] == "a"
    assert yaml.safe_load(alice.ok("status", "a", "-o", "yaml"))["status"]["phase"] == "Succeeded"
    header, row = alice.ok("status").splitlines()
    assert header.split() == ["NAME", "PHASE", "TASKS", "LIVE", "EXPOSED", "AGE"]
    assert row.split()[:5] == ["a", "Succeeded", "1/1", "0", "–"]  # noqa: RUF001
    assert "JOB" in alice.ok("status", "a", "-o", "wide").splitlines()[0]


def test_how_commands_end(team: Team, alice: Terminal, user: UserMaker) -> None:
    assert alice.run("status", "absent").code == 3
    mallory = user("mallory", may=False)
    denied = mallory.run("status")
    assert denied.code == 4
    assert "mallory may not list workflowruns.runkeys.dev in namespace" in denied.err
    wrong = write(alice, {"kind": "WorkflowRun", "spec": {"tasks": [{"name": "a"}], "extra": 1}})
    invalid = alice.run("run", "-f", wrong)
    assert invalid.code == 5
    assert "spec.tasks.0.template: Field required" in invalid.err
    gone = alice.run("status", KUBECONFIG=str(alice.folder / "nothing"))
    assert gone.code == 6
    (alice.folder / "dead").write_text(
        (alice.folder / "kubeconfig").read_text().replace(team.cluster.server, "https://127.0.0.1:9")
    )
    unreachable = alice.run("status", KUBECONFIG=str(alice.folder / "dead"))
    assert unreachable.code == 6
    assert "https://127.0.0.1:9 cannot be reached" in unreachable.err


def test_a_run_whose_secret_stays_ends_with_8(team: Team, alice: Terminal) -> None:
    alice.ok("run", "-f", write(alice, run(team.namespace, command=python(FINISHES_WHEN_TOLD))))
    made = team.run()
    team.wait_running(made)
    name = team.object_name(made)

    def finalizers(names: list[str]) -> None:
        with team.without_policies("names"):
            team.client.patch("secrets", name, team.namespace, {"metadata": {"finalizers": names}})

    finalizers(["example.com/held"])
    team.tell_to_finish(made)
    try:
        done = alice.run("watch", "job")
        assert done.code == 8, done
        assert "Released: no, the Secret was deleted, but other finalizers keep it" in done.out
    finally:
        finalizers([])


def test_the_swapped_key_stops_everything_that_seals(team: Team, alice: Terminal) -> None:
    file = alice.folder / "b.yaml"
    value = canary()
    file.write_text(
        f"kind: SecretBinding\nmetadata: {{name: own}}\nspec:\n  secrets:\n  - {{name: t, value: {value}}}\n"
    )
    first = alice.run("-n", team.namespace, "seal", "-f", "b.yaml")
    assert first.code == 0, first
    assert (
        f"key {team.client.get('configmaps', 'runkeys-public-keys', team.namespace)['data']['current']}"
        not in (first.err)
    )
    assert "is trusted; fingerprint" in first.err
    theirs = PrivateKey.generate().public
    real = team.client.get("configmaps", "runkeys-public-keys", team.namespace)["data"]["current"]
    team.operator.stop()
    team.client.patch("configmaps", "runkeys-public-keys", team.namespace, {"data": {"current": theirs.text}})
    swapped = alice.run("-n", team.namespace, "seal", "-f", "b.yaml")
    assert (swapped.code, swapped.out) == (4, "")
    assert theirs.fingerprint in swapped.err
    assert alice.run("config", "trust-key", "0000-0000").code == 4
    assert alice.run("config", "trust-key", theirs.fingerprint).code == 0
    assert alice.run("-n", team.namespace, "seal", "-f", "b.yaml").code == 0
    assert value not in swapped.err
    team.client.patch("configmaps", "runkeys-public-keys", team.namespace, {"data": {"current": real}})
