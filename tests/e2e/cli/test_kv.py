"""`runkeys kv` on a real API server; the SDK finds the same values."""

from __future__ import annotations

import json

import pytest

from testing.namespace import Team
from tests.e2e.cli.conftest import UserMaker
from tests.e2e.sdk.conftest import ok
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e


def test_values_are_set_read_listed_and_deleted(team: Team, writer: Terminal) -> None:
    assert writer.run("kv", "list").err == f"no keys in namespace {team.namespace}\n"
    writer.ok("kv", "set", "best angle", '{"theta": 0.5, "of": [1, null, "ü"]}')
    writer.ok("kv", "set", "shots", stdin="4096\n")
    assert json.loads(writer.ok("kv", "get", "best angle")) == {"theta": 0.5, "of": [1, None, "ü"]}
    assert writer.ok("kv", "list") == "best angle\nshots\n"
    assert json.loads(writer.ok("kv", "list", "-o", "json")) == {"items": ["best angle", "shots"]}
    assert ok(writer, "from runkeys import kv; print(kv.get_key_value('shots'))") == "4096\n"
    writer.ok("kv", "delete", "shots", "best angle")
    for words in (("get", "shots"), ("delete", "shots")):
        absent = writer.run("kv", *words)
        assert (absent.code, absent.out) == (3, "")
        assert f"there is no key 'shots' in namespace {team.namespace}" in absent.err


def test_what_is_no_json_is_refused_and_nothing_is_written(team: Team, writer: Terminal) -> None:
    refused = writer.run("kv", "set", "name", "plain text")
    assert refused.code == 5
    assert "the value of key 'name' is not JSON" in refused.err
    assert "Text needs quotes" in refused.err
    large = writer.run("kv", "set", "name", stdin=json.dumps("x" * 10_000))
    assert large.code == 5
    assert "10002 bytes as JSON; at most 10000" in large.err
    assert team.client.find("configmaps", "runkeys-kv", team.namespace) is None


def test_without_the_right_the_reason_is_told(team: Team, user: UserMaker) -> None:
    done = user("reader").run("kv", "set", "k", "1")
    assert done.code == 4
    assert f"system:serviceaccount:{team.namespace}:reader" in done.err
