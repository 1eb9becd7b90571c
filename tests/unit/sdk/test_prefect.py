"""Names of Prefect 1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runkeys import kv
from runkeys.compat.prefect import (
    EnvVarSecret,
    Flow,
    Parameter,
    PrefectSecret,
    Secret,
    context,
    set_key_value,
    task,
)
from testing.namespace import canary


@pytest.mark.parametrize(
    ("stored", "value"), [('{"x": 42}', {"x": 42}), ("42", 42), ("null", None), ("abc", "abc")]
)
def test_row_37_json_is_decoded(in_task: Callable[..., None], stored: str, value: Any) -> None:
    in_task({"S": "SECRET_S"}, SECRET_S=stored)
    assert Secret("S").get() == value


def settings(path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path.write_text(text)
    monkeypatch.setenv("PREFECT__USER_CONFIG_PATH", str(path))


def test_row_38_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_task: Callable[..., None]
) -> None:
    in_task({"S": "SECRET_S"}, SECRET_S="task")
    assert Secret("S").get() == "task"
    monkeypatch.setenv("PREFECT__CONTEXT__SECRETS__S", "variable")
    assert Secret("S").get() == "variable"
    settings(tmp_path / "c.toml", monkeypatch, '[context.secrets]\nS = "file"\n')
    assert Secret("S").get() == "file"
    with context(secrets={"S": "context"}):
        assert Secret("S").get() == "context"
    assert Secret("S").get() == "file"


def test_row_38_the_file_is_the_one_of_prefect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".prefect").mkdir()
    (tmp_path / ".prefect" / "config.toml").write_text('[context.secrets]\nMYSECRET = "MY SECRET VALUE"\n')
    assert Secret("MYSECRET").get() == "MY SECRET VALUE"


def test_row_38_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_task: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match="no cluster: no config_name was given"):
        Secret("S").get()
    monkeypatch.setenv("PREFECT__CLOUD__USE_LOCAL_SECRETS", "true")
    with pytest.raises(ValueError, match="use_local_secrets"):
        Secret("S").get()
    monkeypatch.delenv("PREFECT__CLOUD__USE_LOCAL_SECRETS")
    settings(tmp_path / "c.toml", monkeypatch, "[cloud]\nuse_local_secrets = true\n")
    with pytest.raises(ValueError, match="use_local_secrets"):
        Secret("S").get()
    settings(tmp_path / "c.toml", monkeypatch, "")
    in_task({"other": "SECRET_OTHER"})
    with pytest.raises(KeyError, match="task fit did not get a secret 'S'"):
        Secret("S").get()


def test_a_config_file_that_is_no_toml_is_named_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = canary()
    settings(tmp_path / "c.toml", monkeypatch, f'[context.secrets]\nS = "{value}\n')
    with pytest.raises(ValueError, match=r"c\.toml is not TOML") as caught:
        Secret("S").get()
    assert value not in str(caught.value)
    assert caught.value.__context__ is None


def test_row_39_not_while_a_flow_is_built() -> None:
    with context(secrets={"S": "v"}):
        with Flow("f"), pytest.raises(ValueError, match="not while it is built"):
            Secret("S").get()
        assert Secret("S").get() == "v"


def test_row_40_a_variable_by_its_full_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EnvVarSecret("FOO").run() is None
    with pytest.raises(ValueError, match="variable FOO is not set"):
        EnvVarSecret("FOO", raise_if_missing=True).run()
    monkeypatch.setenv("FOO", "42")
    assert EnvVarSecret("FOO").run() == "42"
    assert EnvVarSecret("FOO", cast=int).run() == 42
    value = canary()
    monkeypatch.setenv("FOO", value)
    with pytest.raises(ValueError, match="does not accept") as caught:
        EnvVarSecret("FOO", cast=int).run()
    assert value not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("value", ["x" * 9_999, {"k": "ü" * 2_000}, object(), float("nan")])
def test_row_41_a_value_that_is_too_long_or_no_json(value: Any) -> None:
    with pytest.raises(ValueError, match=r"at most 10000|is not JSON"):
        set_key_value("k", value)


def test_keys_become_keys_of_a_config_map() -> None:
    assert kv._field("plain-Key_1.json") == "plain-Key_1.json"
    odd = ["a b", "ü", "x/y", "..", ".hidden", "x" * 300, "sha256." + "0" * 64]
    fields = [kv._field(key) for key in odd]
    assert len(set(fields)) == len(odd)
    assert all(field.startswith("sha256.") and len(field) == 71 for field in fields)
    assert kv._field(odd[-1]) != odd[-1], "what looks hashed is hashed too, so that no two keys meet"


@task
def log_in(credentials: str, shout: bool = False) -> str:
    return credentials.upper() if shout else credentials


@task
def count(text: str) -> int:
    return len(text)


def test_row_45_a_secret_as_an_argument_is_read_when_the_task_runs() -> None:
    with Flow("example") as flow:
        secret = PrefectSecret("MYSECRET")
        result = log_in(credentials=secret, shout=True)
        count(result)
    assert "value" not in repr(vars(flow))
    for value in ("value one", "value two!"):
        with context(secrets={"MYSECRET": value}):
            assert flow.run() == {"log_in": value.upper(), "count": len(value)}
    with context(secrets={"MYSECRET": "now"}):
        assert log_in(PrefectSecret("MYSECRET")) == "now", "outside of a flow a task runs at once"


def test_row_45_the_name_may_come_from_a_parameter() -> None:
    with Flow("example") as flow:
        name = Parameter("name", default="ONE")
        log_in(PrefectSecret(name))
    with context(secrets={"ONE": "1a", "TWO": "2b"}):
        assert flow.run() == {"log_in": "1a"}
        assert flow.run(name="TWO") == {"log_in": "2b"}
        with pytest.raises(ValueError, match="no parameter nmae"):
            flow.run(nmae="TWO")
