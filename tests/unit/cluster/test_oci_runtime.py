"""The runtime that leaves out the capabilities which root does not have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testing.cluster import oci_runtime
from testing.cluster.oci_runtime import CAPABILITIES, bounding_set, described, lacking, leave_out

ALL = "Name:\tx\nCapBnd:\t000001ffffffffff\nSeccomp:\t0\n"
NO_SYS_RESOURCE = "Name:\tx\nCapBnd:\t000001fffeffffff\nSeccomp:\t0\n"
LAST = 40


def test_the_numbers_are_the_kernels() -> None:
    assert CAPABILITIES.index("CAP_CHOWN") == 0
    assert CAPABILITIES.index("CAP_SYS_ADMIN") == 21
    assert CAPABILITIES.index("CAP_SYS_RESOURCE") == 24
    assert CAPABILITIES.index("CAP_CHECKPOINT_RESTORE") == LAST
    assert len(set(CAPABILITIES)) == LAST + 1


def test_root_that_has_all_lacks_none() -> None:
    assert lacking(ALL, LAST) == []


def test_what_root_lacks_is_named() -> None:
    assert lacking(NO_SYS_RESOURCE, LAST) == ["CAP_SYS_RESOURCE"]


def test_what_an_older_kernel_does_not_know_is_not_lacking() -> None:
    assert lacking("CapBnd:\t0000003fffffffff\n", last=37) == []
    assert "CAP_BPF" not in bounding_set("CapBnd:\t0000003fffffffff\n")


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (
            ["--root", "/r", "--log", "/l", "create", "--bundle", "/b/1", "--pid-file", "p", "id"],
            "/b/1/config.json",
        ),
        (["create", "-b", "/b/2", "id"], "/b/2/config.json"),
        (["run", "--bundle=/b/3", "id"], "/b/3/config.json"),
        (["create", "id"], "config.json"),
        (["--root=/r", "exec", "--process", "/tmp/p", "--detach", "id"], "/tmp/p"),
        (["exec", "-p", "/tmp/q", "id"], "/tmp/q"),
    ],
)
def test_what_describes_the_process(arguments: list[str], file: str) -> None:
    assert described(arguments) == Path(file)


@pytest.mark.parametrize("arguments", [["state", "id"], ["delete", "--force", "id"], ["kill", "id", "9"], []])
def test_other_calls_start_no_process(arguments: list[str]) -> None:
    assert described(arguments) is None


def test_a_bundle_asks_for_what_there_is(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    sets = {"bounding": ["CAP_SYS_RESOURCE", "CAP_CHOWN"], "effective": ["CAP_CHOWN"], "ambient": []}
    process = {"args": ["sh"], "capabilities": sets, "user": {"uid": 0}}
    file.write_text(json.dumps({"ociVersion": "1.0.2", "process": process, "hostname": "h"}))

    leave_out(file, bounding_set(NO_SYS_RESOURCE))

    less = {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "ambient": []}
    assert json.loads(file.read_text()) == {
        "ociVersion": "1.0.2",
        "process": process | {"capabilities": less},
        "hostname": "h",
    }


def test_a_process_file_asks_for_what_there_is(tmp_path: Path) -> None:
    file = tmp_path / "process"
    file.write_text(json.dumps({"args": ["sh"], "capabilities": {"bounding": ["CAP_SYS_RESOURCE"]}}))

    leave_out(file, bounding_set(NO_SYS_RESOURCE))

    assert json.loads(file.read_text()) == {"args": ["sh"], "capabilities": {"bounding": []}}


def test_a_process_without_capabilities_stays(tmp_path: Path) -> None:
    file = tmp_path / "process"
    file.write_text(json.dumps({"args": ["sh"]}))

    leave_out(file, frozenset())

    assert json.loads(file.read_text()) == {"args": ["sh"]}


def test_the_program_rewrites_the_bundle_and_becomes_the_runtime(tmp_path: Path) -> None:
    """With a runtime that prints what it is called with, and this process's own bounding set."""
    runtime = tmp_path / "runc"
    runtime.write_text('#!/bin/sh\necho "$@"\n')
    runtime.chmod(0o755)
    held = bounding_set(Path("/proc/self/status").read_text())
    asked = ["CAP_THAT_NO_KERNEL_HAS", *sorted(held)]
    config = {"ociVersion": "1.0.2", "process": {"args": ["sh"], "capabilities": {"bounding": asked}}}
    (tmp_path / "config.json").write_text(json.dumps(config))

    done = subprocess.run(
        [sys.executable, "-I", "-S", oci_runtime.__file__, runtime, "create", "--bundle", tmp_path, "id"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
        timeout=180,
    )

    assert done.stdout == f"create --bundle {tmp_path} id\n"
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["process"]["capabilities"]["bounding"] == sorted(held)
