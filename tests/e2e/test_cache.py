"""What is made once and kept: any number of processes may ask for it at once, in an empty folder.

Each is told to begin by its standard input, when all of them are there.
"""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from testing.cluster.cache import CHECKOUT, forget_unused, made_once

pytestmark = pytest.mark.e2e

AT_ONCE = 4
SECONDS = 500
IMAGES = """
from testing.cluster import images
makers = (images.task_image, images.pause_image)
found = sorted((str(path := make()), path.stat().st_ino) for make in makers)
"""
PROGRAMS = """
from testing.cluster import build
build.ensure(("cni",))
found = sorted((str(path), path.stat().st_ino) for path in map(build.program, build.GROUPS["cni"].programs))
"""
GO_PROGRAM = """
from testing.cluster.golang import build_module
from tests.e2e.test_sealing_go import SOURCE
found = [(str(path := build_module(SOURCE)), path.stat().st_ino)]
"""


@contextmanager
def waiting(command: Sequence[str | Path], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that begins once it reads a line."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=CHECKOUT, env=os.environ | environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def all_at_once(command: Sequence[str | Path], environment: dict[str, str]) -> list[str]:
    """What each of some processes printed that began at the same moment."""
    with ExitStack() as ends:
        processes = [ends.enter_context(waiting(command, environment)) for _ in range(AT_ONCE)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("begin\n")
            process.stdin.flush()
        answers = [process.communicate(timeout=SECONDS) for process in processes]
        told = [errors for process, (_, errors) in zip(processes, answers, strict=True) if process.returncode]
        assert not told, told
        return [output for output, _ in answers]


def python(code: str) -> list[str]:
    begin = "import sys; print('here', flush=True); sys.stdin.readline()"
    return [sys.executable, "-c", f"{begin}\n{code}\nprint(found)"]


def shell(script: Path, *arguments: str | Path) -> list[str | Path]:
    return ["sh", "-c", 'echo here; read -r _; exec "$@"', "sh", script, *arguments]


@pytest.mark.parametrize("code", [IMAGES, PROGRAMS, GO_PROGRAM], ids=["images", "programs", "go-program"])
def test_all_get_the_same_files_and_each_is_made_once(tmp_path: Path, code: str) -> None:
    cache = tmp_path / "cache"
    answers = all_at_once(python(code), {"RUNKEYS_CACHE": str(cache), "PYTHONPATH": f"operator:{CHECKOUT}"})
    assert len(set(answers)) == 1, answers
    for name, _ in ast.literal_eval(answers[0]):
        path = Path(name)
        assert path.is_relative_to(cache)
        if path.suffix == ".tar":
            with tarfile.open(path) as archive:
                assert "manifest.json" in archive.getnames()
        else:
            assert os.access(path, os.X_OK)
    assert [path for path in cache.rglob("*") if ".new" in path.name] == []


def test_the_python_environment_is_made_once(tmp_path: Path) -> None:
    [pinned] = re.findall(
        r"^iniconfig==.*(?:\n    .*)*", (CHECKOUT / "requirements" / "dev.txt").read_text(), re.MULTILINE
    )
    lock = tmp_path / "lock.txt"
    lock.write_text(f"{pinned}\n")
    answers = all_at_once(
        shell(CHECKOUT / "scripts" / "venv", lock), {"RUNKEYS_CACHE": str(tmp_path / "cache")}
    )
    assert len(set(answers)) == 1, answers
    environment = Path(answers[0].strip())
    subprocess.run([environment / "bin" / "python", "-c", "import iniconfig"], check=True, timeout=180)


def test_system_packages_are_installed_by_one_at_a_time(tmp_path: Path) -> None:
    """With programs in place of Debian's, of which the one that installs refuses to run twice at once."""
    programs = {
        "dpkg-query": 'test -e "$FAKE/installed" && printf installed',
        "apt-get": 'mkdir "$FAKE/busy" || exit 100; sleep 0.2; rmdir "$FAKE/busy"; echo "$*" >>"$FAKE/calls"\n'
        'case "$*" in *install*) touch "$FAKE/installed";; esac',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "FAKE": str(tmp_path)}
    all_at_once(shell(CHECKOUT / "scripts" / "system-packages", "node"), environment)
    assert len((tmp_path / "calls").read_text().splitlines()) == 2, "one update and one installation"


def test_what_is_killed_in_the_middle_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from testing.cluster.cache import made_once
def make(path):
    path.write_text("half")
    print("half", flush=True)
    sys.stdin.readline()
found = made_once(Path({str(tmp_path / "file")!r}), make)
"""
    with waiting(python(code), {}) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("begin\n")
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(2)] == ["here\n", "half\n"]
        process.send_signal(signal.SIGKILL)
    made = made_once(tmp_path / "file", lambda path: path.write_text("whole"))
    assert made.read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "file"]


def test_all_clear_away_at_once(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from testing.cluster.cache import forget_unused
for number in range(300):
    forget_unused(Path({str(tmp_path)!r}), f"{{number}}-*", keep=0)
found = "cleared"
"""
    for number in range(300):
        for part in range(3):
            (tmp_path / f"{number}-{part}").touch()
            os.utime(tmp_path / f"{number}-{part}", (part, part))
    assert all_at_once(python(code), {}) == ["cleared\n"] * AT_ONCE
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_just_asked_for_is_kept(tmp_path: Path) -> None:
    for number in range(4):
        made_once(tmp_path / f"layer-{number}", lambda path: path.touch())
        os.utime(tmp_path / f"layer-{number}", (number, number))
    made_once(tmp_path / "layer-0", lambda path: path.touch())
    forget_unused(tmp_path, "layer-*", keep=2)
    assert sorted(path.name for path in tmp_path.glob("layer-*")) == ["layer-0", "layer-3"]


def test_a_program_that_does_not_build_ends_what_is_built_beside_it(tmp_path: Path) -> None:
    """With a compiler that fails for one program once it is at work on the other, which it never ends."""
    compiler = tmp_path / "go"
    compiler.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "env*) echo go9.9.9 ;;\n"
        '*unwell*) until test -e "$FAKE/begun"; do sleep 0.01; done; echo no such package; exit 1 ;;\n'
        '*) touch "$FAKE/begun"; exec sleep 100000 ;;\n'
        "esac\n"
    )
    compiler.chmod(0o755)
    code = """
from testing.cluster import build
names = ("endless", "unwell")
build.GROUPS.update({name: build.Group(name, {name: f"example.com/{name}"}, pins="cni") for name in names})
try:
    build.ensure(names)
except build.BuildError as error:
    found = str(error)
"""
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"operator:{CHECKOUT}",
        "FAKE": str(tmp_path),
        "RUNKEYS_CACHE": str(tmp_path / "cache"),
    }
    with waiting(python(code), environment) as process:
        answer, told = process.communicate("begin\n", timeout=SECONDS)
    assert process.returncode == 0, told
    assert re.match(r"here\nunwell did not build\.(.|\n)*no such package", answer)
    assert "unwell …" in told
    assert "endless …" in told
    assert not [
        path for path in (tmp_path / "cache").rglob("*endless*") if path.suffix != ".log" and path.is_file()
    ]
