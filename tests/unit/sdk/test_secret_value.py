"""SecretValue: once out, never shown."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from runkeys import SecretValue
from testing.namespace import canary


class Service(BaseModel):
    t: SecretValue


def test_row_01_unwrap_gives_the_value_once() -> None:
    value = canary()
    secret = SecretValue(value)
    assert secret.unwrap() == value
    with pytest.raises(ValueError, match="Secret is locked and cannot be unwrapped") as caught:
        secret.unwrap()
    assert value not in "".join(traceback.format_exception(caught.value))


def test_row_01_of_many_threads_one_gets_it() -> None:
    secret = SecretValue(canary())

    def take(_: int) -> bool:
        try:
            secret.unwrap()
        except ValueError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(64))) == 1


def test_row_02_is_locked_says_whether_it_was_taken() -> None:
    secret = SecretValue("pw")
    assert secret.is_locked is False
    secret.unwrap()
    assert secret.is_locked is True


def test_row_03_every_text_form_is_redacted() -> None:
    secret = SecretValue("pw")
    assert str(secret) == "[redacted]"
    assert f"{secret}" == "[redacted]"
    assert f"{secret:>20}" == "[redacted]".rjust(20)
    assert f"{secret!r}" == "SecretValue([redacted])"
    assert f"{secret!s:*^14}" == "**[redacted]**"


def test_row_04_a_model_takes_the_wrapped_form_only() -> None:
    value = canary()
    model = Service.model_validate({"t": {"value": value}})
    assert repr(model) == "Service(t=SecretValue([redacted]))"
    assert Service(t=SecretValue(value)).t == SecretValue(value)
    assert model.model_dump() == {"t": "[redacted]"}
    assert json.loads(model.model_dump_json()) == {"t": "[redacted]"}
    assert Service.model_validate_json(json.dumps({"t": {"value": value}})).t.unwrap() == value
    assert model.t.unwrap() == value


@pytest.mark.parametrize(
    "wrap", [str, lambda v: [v], lambda v: {"value": v, "more": 1}, lambda v: {"value": [v]}]
)
def test_row_04_a_refused_one_is_not_in_the_message(wrap: Any) -> None:
    value = canary()
    with pytest.raises(ValidationError) as caught:
        Service.model_validate({"t": wrap(value)})
    assert value not in str(caught.value)
    assert value not in repr(caught.value.errors())
    assert "SecretValue" in str(caught.value)


def test_row_05_equal_if_value_and_lock_state_are() -> None:
    one, other = SecretValue("a"), SecretValue("a")
    assert one == other
    assert one != SecretValue("b")
    assert one != "a"
    one.unwrap()
    assert one != other
    other.unwrap()
    assert one == other
    with pytest.raises(TypeError):
        hash(one)


def test_nothing_else_gives_it_away() -> None:
    value = canary()
    secret = SecretValue(value)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps({"t": secret})
    with pytest.raises(TypeError):
        vars(secret)
    assert copy.deepcopy({"t": secret})["t"] is secret
    assert copy.copy(secret) is secret
    schema = Service.model_json_schema()["properties"]["t"]
    assert schema["properties"]["value"]["writeOnly"] is True


def test_only_text_is_wrapped() -> None:
    with pytest.raises(TypeError, match="str, not int"):
        SecretValue(42)  # type: ignore[arg-type]
