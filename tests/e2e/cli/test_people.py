"""What people type and have in their files, in front of a real cluster and beside a real kubectl."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from runkeys.cli._documents import read_documents
from testing.cluster import build
from testing.namespace import TASK_IMAGE, Team, canary, python
from tests.e2e.sdk.conftest import ok as program
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e

SHOWS = "import os, sys; print([os.environ.get('A'), os.environ.get('B'), *sys.argv])"
GIVEN = "pa$$w0rd $(HOME) $$(HOME) $"


def test_36_plain_variables_and_arguments_arrive_as_they_were_given(alice: Terminal) -> None:
    words = ("run", "--image", TASK_IMAGE, "--env", f"A={GIVEN}", "--env", "B=", "--wait")
    for name, file, argv0 in (("cmd", None, "-c"), ("file", "-dash.py", "./-dash.py")):
        if file is not None:
            (alice.folder / file).write_text(SHOWS)
        command = [*python(SHOWS), GIVEN] if file is None else [file, GIVEN]
        done = alice.run(*words, "--name", name, "--", *command)
        assert done.code == 0, done
        assert alice.ok("logs", name).splitlines()[-1] == str([GIVEN, "", argv0, GIVEN])


def test_a_name_that_is_taken_says_what_to_do(alice: Terminal) -> None:
    words = ("run", "--image", TASK_IMAGE, "--name", "taken", "--", "true")
    assert alice.run(*words).code == 0
    done = alice.run(*words)
    assert done.code == 5
    assert '"taken" already exists. Give the new run another name with --name' in done.err


def test_a_name_that_no_variable_can_have_says_how_it_is_used(alice: Terminal) -> None:
    value = canary()
    done = alice.run("secret", "set", "Bad_Name!", stdin=value)
    assert done.code == 0, done
    assert "In a run: --secret 'VARIABLE=Bad_Name!'" in done.err
    code = f"import os, sys; sys.exit(0 if os.environ['VARIABLE'].endswith({value[-6:]!r}) else 3)"
    words = ("run", "--image", TASK_IMAGE, "--secret", "VARIABLE=Bad_Name!", "--wait", "--", *python(code))
    assert alice.run(*words).code == 0


def test_38_a_secret_exists_in_the_cluster_without_being_read(team: Team, alice: Terminal) -> None:
    alice.ok("secret", "set", "mine", stdin=canary())
    (alice.folder / "config").mkdir(exist_ok=True)
    code = "from runkeys.compat.prefect import Secret; print([Secret(n).exists() for n in ('mine', 'token', 'no')])"
    assert program(alice, code).strip() == "[True, False, False]"
    context = next(
        line.partition(": ")[2]
        for line in alice.ok("config", "show").splitlines()
        if line.startswith("context: ")
    )
    (alice.folder / "config" / "config.toml").write_text(
        f'default = "lab"\n[configs.lab]\ncontext = "{context}"\nbindings = ["keys"]\n'
    )
    assert program(alice, code).strip() == "[True, True, False]"
    assert team.client.list("secretreveals", team.namespace) == []


SCALARS = (
    "12:30:00 1e3 1.5e3 -.5 +.5 1_000 0x1F 0b11 0o17 017 089 +12 2026-11-29 2026-11-29T01:02:03Z = yes y off N ~ 1. "
    "'1e3' !!str&nbsp;1e3 !!int&nbsp;7 !Ref&nbsp;x !!binary&nbsp;aGVsbG8= 1.2.3 . +. -x 0x_1 1__0 1e30"
    " 18446744073709551615"
)


@pytest.mark.parametrize("written", [word.replace("&nbsp;", " ") for word in SCALARS.split()])
def test_a_scalar_means_what_it_means_to_kubectl_itself(tmp_path: Path, written: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n  k: {written}\n")
    words = ("label", "--local", "-f", str(path), "a=b", "-o", "json", "--dry-run=client")
    done = subprocess.run([build.program("kubectl"), *words], capture_output=True, timeout=180, check=True)
    there = json.loads(done.stdout)["data"]["k"]
    [document] = read_documents(str(path), path.read_text())
    here = document["data"]["k"]
    if isinstance(there, float) or abs(there if isinstance(there, int) else 0) > 2**60:
        assert here == pytest.approx(there)
    else:
        assert (here, type(here)) == (there, type(there))
