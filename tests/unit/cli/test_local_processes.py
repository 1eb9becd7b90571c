"""Processes of local runs: how they end, what ends with them, and what they are given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from runkeys.local import LocalRun
from testing.cluster.client import PATIENCE
from tests.unit.cli.local_runs import TOKEN, manifest, python, task
from tests.unit.cli.terminal import COMMAND, environment

SLEEPER = "import time; open({pid!r}, 'w').write(str(__import__('os').getpid())); time.sleep(3600)"
LEAVING = {
    "in the background": "subprocess.Popen({sleeper}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)",
    "with a session of its own": "subprocess.Popen({sleeper}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,"
    " start_new_session=True)",
    "with the output kept": "subprocess.Popen({sleeper}, start_new_session=True)",
    "as a daemon": "os.fork() or (os.setsid(), os.fork() and os._exit(0),"
    " os.execv(sys.executable, {sleeper}))",
}


def leaving(how: str, pid: Path) -> str:
    """A program that leaves a process behind, and ends when that has written its number."""
    sleeper = [sys.executable, "-c", SLEEPER.format(pid=str(pid))]
    return (
        f"import os, subprocess, sys, time\n{LEAVING[how].format(sleeper=sleeper)}\n"
        f"while not (os.path.exists({str(pid)!r}) and open({str(pid)!r}).read()): time.sleep(0.01)\n"
        "print('done')"
    )


def is_there(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def eventually(what: Any) -> None:
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def executed(folder: Path, *tasks: dict[str, Any], values: dict[str, str] | None = None) -> list[str]:
    """Run them all; they have to succeed. Return what they printed."""
    lines: list[str] = []
    made = LocalRun(
        manifest(*tasks), values or {}, folder=folder, print_line=lambda _, text: lines.append(text)
    )
    run = made.execute()
    assert run.status.phase == "Succeeded", (run.status, lines)
    return lines


@pytest.mark.parametrize("how", LEAVING)
def test_what_a_task_leaves_behind_ends_with_it(tmp_path: Path, how: str) -> None:
    pid = tmp_path / "pid"

    assert executed(tmp_path, task(code=leaving(how, pid))) == ["done"]

    assert not is_there(int(pid.read_text()))


@pytest.mark.parametrize("how", LEAVING)
def test_control_without_the_supervisor_it_goes_on(tmp_path: Path, how: str) -> None:
    pid = tmp_path / "pid"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run(python(leaving(how, pid)), stdout=out, check=True, timeout=PATIENCE)
    number = int(pid.read_text())
    try:
        assert is_there(number)
    finally:
        os.kill(number, signal.SIGKILL)


def test_what_runs_beside_the_first_process_runs_until_that_ends(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "for number in range(3): subprocess.Popen([sys.executable, '-c', 'pass'], start_new_session=True)\n"
        "print(subprocess.run([sys.executable, '-c', 'print(1)'], stdout=-1, text=True).stdout)"
    )
    assert executed(tmp_path, task(code=code)) == ["1", ""]


@contextmanager
def started(folder: Path, *tasks: dict[str, Any], **settings: Any) -> Iterator[subprocess.Popen[str]]:
    (folder / "f.yaml").write_text(yaml.safe_dump(manifest(*tasks)))
    process = subprocess.Popen(
        [*COMMAND, "run", "--local", "-f", "f.yaml"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def test_if_runkeys_is_killed_all_of_it_ends_and_no_file_stays(tmp_path: Path) -> None:
    code = (
        "import os, time; print(os.getpid(), os.environ['RUNKEYS_RUNTIME_DIR'], flush=True); time.sleep(3600)"
    )
    with started(tmp_path, task(code=code)) as process:
        assert process.stdout is not None
        number, folder = process.stdout.readline().split()
        assert Path(folder).is_dir()
        process.kill()
        process.wait()
        eventually(lambda: not is_there(int(number)))
        eventually(lambda: not Path(folder).exists())


POLITE = (
    "import signal, sys, time\n"
    "def end(*_):\n"
    "    print('asked', flush=True); time.sleep(0.5); print('saved', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end); print('begun', flush=True); time.sleep(3600)"
)
STUBBORN = (
    "import os, signal, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True)); print(os.getpid(), flush=True)\n"
    "while True: time.sleep(3600)"
)


def test_interrupted_once_a_task_has_its_grace_period(tmp_path: Path) -> None:
    with started(tmp_path, task(code=POLITE)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert out.splitlines()[:2] == ["asked", "saved"]


def test_interrupted_twice_it_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, task(code=STUBBORN)) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "asked\n"
        assert is_there(number)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert not is_there(number)


def test_when_the_grace_period_has_passed_all_ends(tmp_path: Path) -> None:
    stubborn = task(code=STUBBORN)
    stubborn["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    lines: list[str] = []

    def heard(_: str, line: str) -> None:
        lines.append(line)
        made.cancel()

    made = LocalRun(manifest(stubborn), {}, folder=tmp_path, print_line=heard)
    assert made.execute().status.phase == "Cancelled"
    assert lines[1:] == ["asked"]
    assert not is_there(int(lines[0]))


def test_if_nobody_reads_the_output_the_run_is_stopped_and_always_still_runs(tmp_path: Path) -> None:
    chatty = task("a", "import time\nwhile True: print('x' * 1000, flush=True); time.sleep(0.001)")
    last = task("z", "open('revoked', 'w').close()", runs="Always")
    with started(tmp_path, chatty, last) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=PATIENCE)
    assert (tmp_path / "revoked").exists()


def test_what_printing_raises_comes_out_when_all_has_ended(tmp_path: Path) -> None:
    def refuse(_: str, line: str) -> None:
        raise BrokenPipeError(line)

    before = set(threading.enumerate())
    made = LocalRun(manifest(task(code="print('x')")), {}, folder=tmp_path, print_line=refuse)
    with pytest.raises(BrokenPipeError):
        made.execute()
    for left in set(threading.enumerate()) - before:
        left.join(PATIENCE)  # it may still be on its last line
        assert not left.is_alive()


def test_only_the_containers_own_variables_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_USER", "of the user")
    made = task()
    container = made["template"]["spec"]["containers"][0]
    container["env"] = [
        {"name": "A", "value": "a"},
        {"name": "B", "value": "$(A) $(HOME) $(OF_USER) $$(A) $(C) $x $("},
        {"name": "C", "value": "c"},
        {"name": "HOME", "value": "own"},
    ]
    container["command"] = ["python3", "-c", "import os, sys; print(os.environ['B'], *sys.argv[1:], sep='|')"]
    container["args"] = ["$(A)", "$(C)", "$(HOME)", "$(OF_USER)", "$$(A)", "$$$$"]

    assert executed(tmp_path, made) == ["a $(HOME) $(OF_USER) $(A) $(C) $x $(|a|c|own|$(OF_USER)|$(A)|$$"]


def test_a_variable_of_the_user_with_the_name_of_a_secret_is_for_no_other_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", TOKEN)
    code = "import os; print('API_TOKEN' in os.environ)"
    asks = task("a", code, secrets=[{"name": "t", "secret": "token", "env": "API_TOKEN"}])
    other = task("b", code, dependsOn=["a"])

    assert executed(tmp_path, asks, other, values={"token": TOKEN}) == ["True", "False"]


def test_a_field_of_the_pod_in_a_variable(tmp_path: Path) -> None:
    made = task(code="import os; print(os.environ['NS'], os.environ['APP'], bool(os.environ['ME']))")
    made["template"]["metadata"] = {"labels": {"app": "vqe"}}
    fields = {"NS": "metadata.namespace", "APP": "metadata.labels['app']", "ME": "metadata.name"}
    made["template"]["spec"]["containers"][0]["env"] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()
    ]

    assert executed(tmp_path, made) == ["local vqe True"]


def test_files_with_values_are_for_their_user_alone(tmp_path: Path) -> None:
    code = (
        "import os, stat\n"
        "file = '/var/runtime/secrets/t.txt'; folder = os.path.realpath('/var/runtime/secrets')\n"
        "print(oct(stat.S_IMODE(os.stat(file).st_mode)))\n"
        "while folder != '/' and stat.S_IMODE(os.stat(folder).st_mode) & 0o077: folder = os.path.dirname(folder)\n"
        "print('runkeys-' in os.path.basename(folder) or 'tmp' in os.path.basename(folder))"
    )
    made = task(code=code, secrets=[{"name": "t", "secret": "token", "file": "t.txt"}])

    assert executed(tmp_path, made, values={"token": TOKEN}) == ["0o400", "True"]


def test_a_container_without_the_secret_does_not_find_its_file(tmp_path: Path) -> None:
    looks = {
        "name": "looks",
        "image": "i",
        "command": python("import os; print(os.path.exists('/var/runtime/secrets/t.txt'))"),
    }
    made = task(code="print('main')", secrets=[{"name": "t", "secret": "token", "file": "t.txt"}])
    made["template"]["spec"]["initContainers"] = [looks]

    assert executed(tmp_path, made, values={"token": TOKEN}) == ["False", "main"]


def test_an_output_that_is_no_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    code = "import os; os.mkfifo('/var/runtime/output/output.json'); print('made')"
    made = LocalRun(manifest(task(code=code, recordOutput=True)), {}, folder=tmp_path)

    assert made.execute().status.phase in ("Succeeded", "Failed")


def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    lines: list[str] = []
    made = task()
    made["template"]["spec"]["containers"][0]["command"] = ["/not/there"]
    local = LocalRun(manifest(made), {}, folder=tmp_path, print_line=lambda _, text: lines.append(text))

    assert local.execute().status.phase == "Failed"
    assert lines == ["/not/there cannot be started: No such file or directory"]


def test_lines_arrive_whole_whatever_they_are(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "for part in (b'a', b'b\\nc\\r', b'\\nd\\xc3', b'\\xa9\\xff\\n', b'x' * 300_000, b'\\nend'):\n"
        "    sys.stdout.buffer.write(part); sys.stdout.flush(); time.sleep(0.02)"
    )
    assert executed(tmp_path, task(code=code)) == ["ab", "c", "dé\ufffd", "x" * 300_000, "end"]
