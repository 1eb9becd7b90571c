"""`runkeys run --local`: the same manifests as processes."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from runkeys.local import LocalRun
from tests.unit.cli.local_runs import TOKEN, manifest, python, task
from tests.unit.cli.terminal import COMMAND, ROOT, Done, Terminal, environment


@pytest.fixture
def run(terminal: Terminal) -> Callable[..., Done]:
    """Run a manifest with an .env file."""

    def execute(made: dict[str, Any], env: str = f"SECRET_TOKEN={TOKEN}\n", *words: str) -> Done:
        (terminal.folder / "flow.yaml").write_text(json.dumps(made))
        (terminal.folder / ".env").write_text(env)
        return terminal.run("run", "--local", "-f", "flow.yaml", "--env-file", ".env", *words)

    return execute


def states(done: Done) -> dict[str, str]:
    rows = [line.split() for line in done.out.splitlines()]
    begin = next(number for number, row in enumerate(rows) if row[:2] == ["TASK", "STATE"])
    return {row[0]: row[1] for row in rows[begin + 1 :] if row and not row[0].endswith(":")}


def test_the_example_workflow_runs_as_it_is(terminal: Terminal, golden: Callable[[str, str], None]) -> None:
    text = (ROOT / "examples/workflow/run.yaml").read_text()
    (terminal.folder / "run.yaml").write_text(text)
    (terminal.folder / ".env").write_text("SECRET_IBMQ_TOKEN=abcdef\nSECRET_ACCOUNT='{\"a\": 1}'\n")
    done = terminal.run("run", "--local", "-f", "run.yaml", "--env-file", ".env")
    assert done.code == 0, done
    assert '[report] {"energy":-1.1,"depth":10}' in done.out
    # How long it took differs each time.
    lines = [line for line in done.out.splitlines() if not line.startswith("[")]
    table = [
        line.rpartition("gone")[0] + "gone" if "gone" in line else line[:43].rstrip() for line in lines[:-1]
    ]
    golden("local-example", "\n".join(table) + "\n")
    assert lines[-1].startswith("Released: yes, after ")


def test_values_arrive_by_variable_by_exact_name_and_as_a_file(run: Callable[..., Done]) -> None:
    code = (
        "import os, pathlib, hashlib\n"
        "folder = pathlib.Path(os.environ['RUNKEYS_RUNTIME_DIR'])\n"
        "found = [os.environ['SECRET_API_TOKEN'], os.environ['TOKEN'],"
        " (folder / 'secrets' / 't.txt').read_text(), open('/var/runtime/secrets/t.txt').read()]\n"
        f"assert [hashlib.sha256(x.encode()).hexdigest() for x in found] == 4 * [{digest(TOKEN)!r}]\n"
        "print('all four', *sorted(x for x in os.environ if x.startswith('SECRET_')))"
    )
    asked = [
        {"name": "api_token", "secret": "token"},
        {"name": "exact", "secret": "token", "env": "TOKEN"},
        {"name": "file", "secret": "token", "file": "t.txt"},
    ]
    done = run(manifest(task(code=code, secrets=asked)))
    assert done.code == 0, done
    assert "all four SECRET_API_TOKEN\n" in done.out


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_printed_values_are_masked(run: Callable[..., Done]) -> None:
    value = f"{TOKEN} first\n{TOKEN} second"
    code = (
        "import base64, os, sys, urllib.parse\n"
        "v = os.environ['SECRET_API_TOKEN']\n"
        "print('plain', v); print('base64', base64.b64encode(b'xy' + v.encode()).decode())\n"
        "print('url', urllib.parse.quote(v)); print('err', v, file=sys.stderr)\n"
        "sys.stdout.write(v[:20]); sys.stdout.flush(); sys.stdout.write(v[20:])"
    )
    done = run(
        manifest(task(code=code, secrets=[{"name": "api_token", "secret": "token"}])),
        f'SECRET_TOKEN="{value}"\n',
    )
    assert done.code == 0, done
    for word in ("plain", "base64", "url", "err"):
        assert any(line.startswith(word) and "[redacted]" in line for line in done.out.splitlines())
    for part in (TOKEN, base64.b64encode(TOKEN.encode()).decode()[:20]):
        assert part not in done.out + done.err


def test_the_environment_of_the_user_gives_no_secret_that_was_not_asked_for(
    terminal: Terminal,
) -> None:
    (terminal.folder / "f.yaml").write_text(
        yaml.safe_dump(manifest(task(code="import os; print(os.environ.get('SECRET_OTHER'))")))
    )
    assert terminal.ok("run", "--local", "-f", "f.yaml", SECRET_OTHER=TOKEN).startswith("None\n")


def test_a_missing_value_is_named_before_anything_starts(run: Callable[..., Done]) -> None:
    asked = [{"name": "api_token", "secret": "token"}, {"name": "db", "secret": "db-password"}]
    done = run(manifest(task("first"), task("second", secrets=asked)), "OTHER=x\n")
    assert (done.code, done.out) == (3, "")
    assert "task second, entry 'token' of SecretBinding keys: SECRET_API_TOKEN=…" in done.err
    assert "task second, entry 'db-password' of SecretBinding keys: SECRET_DB=…" in done.err


def test_what_the_operator_refuses_is_refused_here(run: Callable[..., Done]) -> None:
    asked = [{"name": "ibmToken", "secret": "token"}, {"name": "ibm_token", "secret": "token"}]
    done = run(manifest(task(secrets=asked, dependsOn=["absent"])))
    assert (done.code, done.out) == (5, "")
    assert "spec.tasks[0].secrets[1]" in done.err
    assert "spec.tasks[0].dependsOn[0]: there is no task 'absent'" in done.err


def test_a_failure_skips_what_comes_after_it_and_always_runs(run: Callable[..., Done]) -> None:
    done = run(
        manifest(
            task("a", "raise SystemExit(3)"),
            task("b", dependsOn=["a"]),
            task("c", "print('revoked')", runs="Always"),
        )
    )
    assert done.code == 1
    assert states(done) == {"a": "Failed", "b": "Skipped", "c": "Succeeded"}
    assert "a: container main exited with code 3" in done.out
    assert "[c] revoked" in done.out
    assert done.err.splitlines()[-1] == "Error: run flow is Failed"


def test_a_failure_is_tried_again(run: Callable[..., Done], terminal: Terminal) -> None:
    code = "import pathlib; p = pathlib.Path('again'); e = p.exists(); p.touch(); raise SystemExit(0 if e else 7)"
    done = run(manifest(task(code=code, backoffLimit=1)), "", "-o", "json")
    assert done.code == 0, done
    attempts = json.loads(done.out)["status"]["tasks"][0]["attempts"]
    assert [item["outcome"] for item in attempts] == ["Failed", "Succeeded"]
    assert (terminal.folder / "again").exists()


def test_a_deadline_ends_a_task(run: Callable[..., Done]) -> None:
    done = run(manifest(task(code="import time; time.sleep(600)", activeDeadlineSeconds=1)), "", "-o", "json")
    assert done.code == 1
    assert json.loads(done.out)["status"]["tasks"][0]["reason"] == "DeadlineExceeded"


def test_input_output_and_data_pools(run: Callable[..., Done], terminal: Terminal) -> None:
    reads = "import json; print(sum(json.load(open('/var/runtime/input/x.json'))['n']))"
    writes = "import json; json.dump({'n': [1, 2]}, open('/var/runtime/output/output.json', 'w'))"
    pool = "print(open('/var/runtime/datapool/models/m.txt').read())"
    pools = [{"name": "models", "persistentVolumeClaim": "models"}]
    made = manifest(
        task("a", writes, recordOutput=True),
        task("b", reads, dependsOn=["a"], input=[{"name": "x", "from": "tasks.a.output"}]),
        task("c", reads, input=[{"name": "x", "from": "input.given"}]),
        task("d", pool, dataPools=pools),
        input={"given": {"n": [40, 2]}},
    )
    missing = run(made)
    assert missing.code == 3
    assert "put it into input/models" in missing.err
    (terminal.folder / "input/models").mkdir(parents=True)
    (terminal.folder / "input/models/m.txt").write_text("a model")
    done = run(made)
    assert done.code == 0, done
    assert {"[b] 3", "[c] 42", "[d] a model"} <= set(done.out.splitlines())


def test_a_service_under_the_qhub_runtime_needs_no_variables(terminal: Terminal) -> None:
    """It knows its own three variables only, lists the folders, and writes into one that exists."""
    code = (
        "import json, os\n"
        "found = {name: os.environ[f'{name}_DIRECTORY'] for name in ('INPUT', 'OUTPUT', 'DATAPOOL')}\n"
        "data = json.load(open(os.path.join(found['INPUT'], 'data.json')))\n"
        "files = os.listdir(os.path.join(found['DATAPOOL'], 'models'))\n"
        "json.dump({'n': data['n'], 'files': files}, open(os.path.join(found['OUTPUT'], 'output.json'), 'w'))\n"
    )
    bare = "import os; assert [os.listdir(os.environ[f'{n}_DIRECTORY']) for n in ('INPUT', 'OUTPUT')] == [[], []]"
    (terminal.folder / "input/models").mkdir(parents=True)
    (terminal.folder / "input/models/m.bin").touch()
    service = task(
        "service",
        code,
        recordOutput=True,
        input=[{"name": "data", "from": "input.data"}],
        dataPools=[{"name": "models", "persistentVolumeClaim": "models"}],
    )
    made = manifest(service, task("bare", bare), input={"data": {"n": 3}})
    (terminal.folder / "flow.yaml").write_text(json.dumps(made))
    done = terminal.run("run", "--local", "-f", "flow.yaml", "-o", "json", INPUT_DIRECTORY="elsewhere")
    assert done.code == 0, done
    assert json.loads(done.out)["status"]["tasks"][0]["output"] == {"n": 3, "files": ["m.bin"]}


def test_containers_one_after_another_and_side_by_side(run: Callable[..., Done]) -> None:
    first = {"name": "prepare", "image": "i", "command": python("print('prepared')")}
    other = {
        "name": "side",
        "image": "i",
        "command": python("import os; print('side', os.environ.get('SECRET_T'))"),
    }
    main = {
        "name": "main",
        "image": "i",
        "command": python("import os; print('main', 'SECRET_T' in os.environ)"),
    }
    made = task(secrets=[{"name": "t", "secret": "token"}], containers=["main"])
    made["template"] = {"spec": {"initContainers": [first], "containers": [main, other]}}
    done = run(manifest(made))
    assert done.code == 0, done
    lines = done.out.splitlines()
    assert lines[0] == "prepared"
    assert {"main True", "side None"} <= set(lines)


def test_a_value_that_was_brought_along(terminal: Terminal) -> None:
    made = manifest(
        task(code="import os; print(len(os.environ['SECRET_T']))", secrets=[{"name": "t", "input": "f"}])
    )
    (terminal.folder / "f.yaml").write_text(yaml.safe_dump(made))
    (terminal.folder / "in.json").write_text(json.dumps({"$secrets": {"f": TOKEN}}))
    out = terminal.ok("run", "--local", "-f", "f.yaml", "--input", "@in.json", "-o", "json")
    assert TOKEN not in out
    assert json.loads(out)["spec"].get("sealedInput", {}) == {}
    absent = terminal.run("run", "--local", "-f", "f.yaml")
    assert absent.code == 5
    assert "the run's sealedInput has no 'f'" in absent.err


def test_python_file_with_a_secret_by_exact_name(terminal: Terminal) -> None:
    (terminal.folder / "app.py").write_text(
        "import os, sys\nprint(__file__.endswith('app.py'), sys.argv[1:], len(os.environ['API_TOKEN']))\n"
    )
    (terminal.folder / ".env").write_text(f"github-token={TOKEN}\n")
    out = terminal.ok(
        "run",
        "app.py",
        "--local",
        "--secret",
        "API_TOKEN=github-token",
        "--env-file",
        ".env",
        "--",
        "-x",
        "1",
    )
    assert out.splitlines()[0] == f"True ['-x', '1'] {len(TOKEN)}"


def test_env_file_that_git_would_take_in(terminal: Terminal, run: Callable[..., Done]) -> None:
    made = manifest(task())
    assert "Warning" not in run(made).err
    subprocess.run(["git", "init", "-q"], cwd=terminal.folder, check=True, timeout=180)
    assert "Warning: git does not ignore .env" in run(made).err
    (terminal.folder / ".gitignore").write_text(".env\n")
    assert "Warning" not in run(made).err


def test_interrupted_it_stops_its_tasks_and_still_runs_always(terminal: Terminal) -> None:
    made = manifest(
        task("long", "import time; print('begun', flush=True); time.sleep(600)"),
        task("last", "print('revoked')", runs="Always"),
    )
    (terminal.folder / "f.yaml").write_text(yaml.safe_dump(made))
    process = subprocess.Popen(
        [*COMMAND, "run", "--local", "-f", "f.yaml"],
        cwd=terminal.folder,
        env=environment(terminal.folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "[long] begun\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=180)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "[last] revoked" in out
    assert states(Done(130, out, err)) == {"long": "Cancelled", "last": "Succeeded"}


def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked = [{"name": "t", "secret": "token", "file": "t.txt"}]
    code = f"import os; assert open('/var/runtime/secrets/t.txt').read() == {TOKEN!r}"
    made = LocalRun(manifest(task(code=code, secrets=asked)), {"token": TOKEN}, folder=tmp_path)
    assert made.execute().status.phase == "Succeeded"
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_end_is_made_to(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " print('on', flush=True); time.sleep(600)"
    )
    stubborn = task(code=code)
    stubborn["template"]["spec"]["terminationGracePeriodSeconds"] = 0
    lines: list[str] = []

    def heard(_: str, line: str) -> None:
        lines.append(line)
        made.cancel()

    made = LocalRun(manifest(stubborn), {}, folder=tmp_path, print_line=heard)
    assert made.execute().status.phase == "Cancelled"
    assert lines == ["on"]
