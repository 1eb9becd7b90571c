"""The key-value store against a real API server."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from typing import Any

import pytest

from testing.namespace import Team
from tests.e2e.sdk.conftest import UserMaker, ok, python
from tests.unit.cli.terminal import Terminal, environment

pytestmark = pytest.mark.e2e


def called(who: Terminal, call: str) -> Any:
    """What a call returns, or the error that it raises."""
    code = (
        "import json; from runkeys import kv\n"
        f"try: print(json.dumps(kv.{call}))\n"
        "except ValueError as error: print(json.dumps({'ValueError': str(error)}))"
    )
    return json.loads(ok(who, code))


def test_rows_42_43_values_are_set_read_listed_and_deleted(team: Team, writer: Terminal) -> None:
    assert called(writer, "list_keys()") == []
    assert "no key 'absent'" in called(writer, "get_key_value('absent')")["ValueError"]
    assert "no key 'absent'" in called(writer, "delete_key('absent')")["ValueError"]
    values: dict[str, Any] = {
        "foo": "bar",
        "a b/ü?": {"n": [1, None, 2.5, "ü"]},
        "x" * 300: None,
        "sha256.x": True,
    }
    ids = {key: called(writer, f"set_key_value({key!r}, {value!r})") for key, value in values.items()}
    assert all(str(uuid.UUID(found)) == found for found in ids.values())
    assert len(set(ids.values())) == len(values)
    for key, value in values.items():
        assert called(writer, f"get_key_value({key!r})") == value
    assert called(writer, "list_keys()") == sorted(values)
    assert called(writer, "set_key_value('foo', 'other')") == ids["foo"]
    assert called(writer, "get_key_value('foo')") == "other"
    assert called(writer, "delete_key('foo')") is True
    assert "no key 'foo'" in called(writer, "delete_key('foo')")["ValueError"]
    stored = team.client.get("configmaps", "runkeys-kv", team.namespace)["data"]
    assert len(stored) == len(values) - 1


WRITES = """
import sys
from runkeys import kv
name = sys.argv[1]
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    kv.set_key_value(f"{name}-{number}", number)
    kv.set_key_value("both", f"{name}-{number}")
    if number % 4 == 3:
        kv.delete_key(f"{name}-{number}")
"""


def test_row_44_two_writers_lose_nothing(team: Team, writer: Terminal) -> None:
    """Not even the first write, which makes the ConfigMap."""
    writers = {
        name: subprocess.Popen(
            [sys.executable, "-c", WRITES, name],
            cwd=writer.folder,
            env=environment(writer.folder, **writer.more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    }
    for process in writers.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in writers.values():
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in writers.values():
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    expected = {f"{name}-{number}" for name in writers for number in range(40) if number % 4 != 3}
    stored = team.client.get("configmaps", "runkeys-kv", team.namespace)["data"]
    assert set(stored) == {*expected, "both"}
    assert all(json.loads(stored[key])["value"] == int(key.rpartition("-")[2]) for key in expected)
    assert json.loads(stored["both"])["value"] in ("a-39", "b-39")


def test_row_44_without_the_right_the_reason_is_told(team: Team, user: UserMaker) -> None:
    done = python(user("reader"), "from runkeys import kv; kv.set_key_value('k', 1)")
    assert done.code == 1
    assert f"system:serviceaccount:{team.namespace}:reader" in done.err
    assert "may not patch configmaps runkeys-kv in namespace" in done.err
