"""Help, completion and how long it takes to get there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from runkeys.cli import COMMANDS, cli
from tests.unit.cli.terminal import Terminal, environment


def test_help_of_everything(terminal: Terminal, golden: Callable[[str, str], None]) -> None:
    golden("help", terminal.ok("--help"))


@pytest.mark.parametrize("name", ["run", "seal", "status"])
def test_help_of_a_command(terminal: Terminal, golden: Callable[[str, str], None], name: str) -> None:
    golden(f"help-{name}", terminal.ok(name, "--help"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_explains_itself(name: str) -> None:
    found = cli.get_command(cli.make_context("runkeys", [], resilient_parsing=True), name)
    assert found is not None
    assert found.name == name
    assert found.help


def test_help_imports_neither_models_nor_kubernetes(terminal: Terminal) -> None:
    code = (
        "import sys\nfrom runkeys.cli import cli\ncli.main(['--help'], standalone_mode=False)\n"
        "print(sorted({'pydantic', 'kubernetes', 'cryptography', 'rich', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(terminal.folder),
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_no_word_is_help_and_a_wrong_one_is_told(terminal: Terminal) -> None:
    assert "Usage: runkeys" in terminal.run().err
    wrong = terminal.run("statsu")
    assert wrong.code == 2
    assert "there is no command 'statsu'; did you mean 'status'?" in wrong.err
    assert "there is no command 'xyz'\n" in terminal.run("xyz").err
    assert "there is no command 'sett'; did you mean 'set'?" in terminal.run("secret", "sett").err


def test_global_options_stand_anywhere(terminal: Terminal) -> None:
    for words in (("-q", "config", "show"), ("config", "show", "-q"), ("config", "-q", "show")):
        assert terminal.ok(*words).startswith("folder: ")
    assert terminal.run("config", "show", "-o", "xml").code == 2


@pytest.mark.parametrize("first", [True, False], ids=["before the command", "after it"])
def test_what_is_said_counts_more_than_the_environment(terminal: Terminal, first: bool) -> None:
    said = ("--operator-namespace", "said")
    reseal = ("reseal", "-f", "b.yaml")
    words = (*said, *reseal) if first else (*reseal, *said)
    assert "kubectl -n said exec" in terminal.run(*words, RUNKEYS_OPERATOR_NAMESPACE="set").err
    assert "kubectl -n set exec" in terminal.run(*reseal, RUNKEYS_OPERATOR_NAMESPACE="set").err


def test_global_options_of_groups(terminal: Terminal) -> None:
    assert '"trustedKeys": {}' in terminal.ok("-o", "json", "config", "show")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(terminal: Terminal, shell: str) -> None:
    assert "_RUNKEYS_COMPLETE" in terminal.ok("completion", shell)


def test_completion_in_bash(terminal: Terminal) -> None:
    found = terminal.ok(
        _RUNKEYS_COMPLETE="bash_complete", COMP_WORDS="runkeys s", COMP_CWORD="1"
    ).splitlines()
    assert {"plain,status", "plain,suspend", "plain,secret", "plain,seal"} <= set(found)


def test_completion_for_kubectl(terminal: Terminal) -> None:
    lines = terminal.ok("completion", "kubectl", "--", "sta").splitlines()
    assert lines[0].startswith("status\t")
    assert lines[-1] == ":4"
    assert any(
        line.startswith("--from-failed")
        for line in terminal.ok("completion", "kubectl", "--", "rerun", "--f").splitlines()
    )
    script = terminal.ok("completion", "kubectl")
    assert script.splitlines()[1] == 'exec runkeys completion kubectl -- "$@"'


def test_a_mistake_of_ours_is_told_without_what_it_held(terminal: Terminal) -> None:
    code = (
        "import sys\nimport runkeys.client.trusted_keys\n"
        "def broken(): raise ValueError('canary-in-an-error')\n"
        "runkeys.client.trusted_keys.TrustedKeys.all = lambda _: broken()\n"
        "sys.argv = ['runkeys', 'config', 'show']\nfrom runkeys.cli import main\nmain()"
    )
    command = [sys.executable, "-c", code]
    more = {"RUNKEYS_TRACEBACK": "1"}
    for env, shown in ((environment(terminal.folder), False), (environment(terminal.folder, **more), True)):
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 1
        assert "ValueError" in done.stderr
        assert ("canary-in-an-error" in done.stderr) is shown


def test_output_that_nobody_reads_any_more_is_no_error(terminal: Terminal) -> None:
    pipe = f"{sys.executable} -m runkeys --help | head -1"
    done = subprocess.run(
        ["sh", "-c", pipe],
        env=environment(terminal.folder),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.stderr == ""
