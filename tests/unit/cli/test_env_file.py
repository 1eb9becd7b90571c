"""`--env-file`: what shells, editors and password managers make of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runkeys.cli._env_file import read_env_file
from runkeys.problems import Invalid, NotFound
from testing.namespace import canary
from tests.unit.cli.terminal import Terminal, environment

TEXT = "# of the lab\nexport A='1 $B'\r\n\nB=\"x\\ny\"\nC=pa$$w0rd # not part of it\nD=\n"
FOUND = {"A": "1 $B", "B": "x\ny", "C": "pa$$w0rd", "D": ""}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_any_unicode_encoding_with_or_without_a_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / ".env").write_bytes(TEXT.encode(encoding))
    assert read_env_file(str(tmp_path / ".env")) == FOUND


def test_a_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(TEXT,), daemon=True)
    writer.start()
    assert read_env_file(str(path)) == FOUND
    writer.join()


def test_the_output_of_a_command(terminal: Terminal) -> None:
    command = f"{sys.executable} -m runkeys run --local --secret T=t --env-file <(echo t=four) -- sh -c 'echo ${{#T}}'"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=terminal.folder,
        env=environment(terminal.folder),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "4"), done


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A=1\n\nB\n", "line 3: B has no value; write NAME=value"),
        ("A=1\nB='%s\n", "line 2: must be NAME=value"),
        ("A=1\nB=%s\0\n", "line 2: 'B' holds a NUL byte"),
        ("A=1\nB=%s\xfc\n", "line 2 is not text in UTF-8; save it as UTF-8"),
    ],
)
def test_a_line_that_is_none_is_named_and_not_shown(tmp_path: Path, text: str, says: str) -> None:
    value = canary()
    (tmp_path / ".env").write_bytes(text.replace("%s", value).encode("latin-1"))
    with pytest.raises(Invalid) as caught:
        read_env_file(str(tmp_path / ".env"))
    assert says in str(caught.value)
    assert value not in str(caught.value)
    assert caught.value.__context__ is None


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        read_env_file(str(tmp_path / "absent"))
