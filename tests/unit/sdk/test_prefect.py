"""Names of Prefect 1."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
    delete_key,
    get_key_value,
    list_keys,
    set_key_value,
    task,
)
from runkeys.config import ConfigFileNotFoundError
from runkeys.problems import Invalid
from testing.namespace import canary
from tests.unit.sdk.conftest import Service


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
    settings(tmp_path / "c.toml", monkeypatch, '[context.secrets]\nS = "file"\n')
    assert Secret("S").get() == "file"
    monkeypatch.setenv("PREFECT__CONTEXT__SECRETS__S", "variable")
    assert Secret("S").get() == "variable"
    with context(secrets={"S": "context"}):
        assert Secret("S").get() == "context"
        with context(secrets={"S": None}):
            assert Secret("S").get() is None
    assert Secret("S").get() == "variable"


CASTS = [
    ("true", True),
    ("FALSE", False),
    ("42", 42),
    ("1.5", 1.5),
    ("{'a': [1]}", {"a": [1]}),
    ('{"a": true}', {"a": True}),
    ("None", None),
    ("null", None),
    ("'quoted'", "quoted"),
    ("007", "007"),
    ("pa$$w0rd ${HOME} \\n", "pa$$w0rd ${HOME} \\n"),
]


@pytest.mark.parametrize(("text", "value"), CASTS)
def test_row_38_text_of_variable_and_file_is_cast_as_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, value: Any
) -> None:
    settings(tmp_path / "c.toml", monkeypatch, f"[context.secrets]\nS = {json.dumps(text)}\nT = 7\n")
    assert (Secret("S").get(), Secret("T").get()) == (value, 7)
    monkeypatch.setenv("PREFECT__CONTEXT__SECRETS__V", text)
    assert Secret("V").get() == value


def test_row_38_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_task: Callable[..., None]) -> None:
    assert not Secret("S").exists()
    monkeypatch.setenv("PREFECT__CONTEXT__SECRETS__V", "x")
    settings(tmp_path / "c.toml", monkeypatch, '[context.secrets]\nF = "x"\n')
    with context(secrets={"C": None}):
        assert [Secret(name).exists() for name in "CVFS"] == [True, True, True, False]
    in_task({"S": "SECRET_S", "gone": "SECRET_GONE"}, SECRET_S="x")
    assert [Secret(name).exists() for name in ("S", "absent")] == [True, False]
    assert Secret("S").get() == "x"
    assert Secret("S").exists(), "also when its variable has been taken"
    monkeypatch.setenv("PREFECT__CLOUD__USE_LOCAL_SECRETS", "true")
    assert not Secret("absent").exists()


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
    assert EnvVarSecret().run("FOO") is None
    assert EnvVarSecret(raise_if_missing=True, name="BAR", tags=["x"]).raise_if_missing
    with pytest.raises(ValueError, match="variable FOO is not set"):
        EnvVarSecret("FOO", raise_if_missing=True).run()
    with pytest.raises(ValueError, match="variable FOO is not set"):
        EnvVarSecret("BAR", None, True).run(name="FOO")
    with pytest.raises(ValueError, match="EnvVarSecret needs a name"):
        EnvVarSecret().run()
    monkeypatch.setenv("FOO", "42")
    assert EnvVarSecret("FOO").run() == "42"
    assert EnvVarSecret("FOO", int).run() == EnvVarSecret("FOO", cast=int).run() == 42
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


@task(name="both")
def pair(items: list[Any], **more: Any) -> Any:
    return items, more


def test_row_45_secrets_and_results_inside_of_lists_tuples_and_dictionaries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FOO", "foo")
    with Flow("example") as flow:
        secret, size = PrefectSecret("S"), count("four")
        pair([secret, (size, {"k": secret})], deep={"x": [EnvVarSecret("FOO"), 1]})
    with context(secrets={"S": "value"}):
        assert flow.run() == {
            "count": 4,
            "both": (["value", (4, {"k": "value"})], {"deep": {"x": ["foo", 1]}}),
        }
        assert pair([PrefectSecret("S")]) == (["value"], {}), "outside of a flow, too"


def test_a_task_that_is_called_twice_keeps_both_results() -> None:
    with Flow("example") as flow:
        for text in ("a", "bb", "ccc"):
            count(text)
        log_in("x")
    assert flow.run() == {"count": 1, "count-2": 2, "count-3": 3, "log_in": "x"}


def test_a_parameter_that_is_not_given_is_named() -> None:
    with Flow("example") as flow:
        pair([Parameter("shots"), Parameter("note", default=None), Parameter("seed", required=False)])
    with pytest.raises(ValueError, match="flow example needs the parameter shots"):
        flow.run()
    assert flow.run(shots=3) == {"both": ([3, None, None], {})}


def test_options_of_tasks() -> None:
    made: Any = task(name="x", tags=["a"])(lambda: 1)
    assert made() == made.run() == 1
    for call in (
        lambda: task(max_retries=3),
        lambda: PrefectSecret("S", result=1),
        lambda: EnvVarSecret("S", timeout=1),
        lambda: Parameter("x", trigger=1),
    ):
        with pytest.raises(TypeError, match="is an option of Prefect's tasks that does not exist here"):
            call()


def test_row_42_the_store_without_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNKEYS_KV_FILE", str(tmp_path / "made" / "kv.json"))
    assert list_keys() == []
    first = set_key_value(key="foo", value="bar")
    assert str(uuid.UUID(first)) == first == set_key_value("foo", {"a": [1]})
    set_key_value("a b/ü", None)
    assert (get_key_value(key="foo"), get_key_value("a b/ü")) == ({"a": [1]}, None)
    assert list_keys() == ["a b/ü", "foo"]
    assert delete_key(key="foo") is True
    for call in (get_key_value, delete_key):
        with pytest.raises(ValueError, match="there is no key 'foo' in "):
            call("foo")
    with pytest.raises(ValueError, match="at most 10000"):
        set_key_value("k", "x" * 9_999)
    with pytest.raises(ConfigFileNotFoundError):
        get_key_value("foo", config_name="lab")
    (tmp_path / "made" / "kv.json").write_text("[")
    with pytest.raises(Invalid, match=r"kv\.json is not a JSON object"):
        list_keys()


def test_row_44_two_writers_of_the_file_lose_nothing(service: Service) -> None:
    code = "import sys; from runkeys import kv; [kv.set_key_value(f'{sys.argv[1]}{n}', n) for n in range(40)]"
    file = str(service.folder / "kv.json")
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda who: service.python("-c", code, who, RUNKEYS_KV_FILE=file), "ab"))
    assert [item.code for item in ended] == [0, 0], ended
    assert len(json.loads(Path(file).read_text())) == 80
