"""What the operator writes into a task's variables is what the SDK reads."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from runkeys import secrets
from runkeys._task import environment
from runkeys.api import Task
from runkeys.names import SECRETS_VARIABLE, TASK_VARIABLE
from runkeys.planning import manifests


def about(*asked: dict[str, str]) -> dict[str, str]:
    task = Task.model_validate({"name": "fit", "secrets": list(asked), "template": {}})
    return {item["name"]: item["value"] for item in manifests._about(task)}


def test_every_way_to_carry_a_secret_is_found_by_both_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = about(
        {"name": "ibm_token", "input": "ibm_api_token"},
        {"name": "api", "secret": "ibmq-token", "env": "api_token"},
        {"name": "sa", "secret": "gcp", "file": "sa.json"},
    )
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.task() == environment.Task(
        "fit",
        {
            "ibm_token": "SECRET_IBM_TOKEN",
            "ibm_api_token": "SECRET_IBM_TOKEN",
            "api": "api_token",
            "ibmq-token": "api_token",
            "sa": "file:sa.json",
            "gcp": "file:sa.json",
        },
    )


def test_a_name_of_the_task_comes_before_one_of_a_binding(in_task: Callable[..., None]) -> None:
    variables = about({"name": "a", "secret": "b"}, {"name": "b", "secret": "c"})
    in_task(json.loads(variables[SECRETS_VARIABLE]), SECRET_A="value of a", SECRET_B="value of b")
    assert secrets.get("b") == "value of b"
    assert secrets.get("c") == "value of b"


def test_no_name_is_taken_for_a_reference_to_a_variable() -> None:
    """Kubernetes replaces $(NAME) in the value of a variable."""
    variables = about({"name": "x", "secret": "$(PATH)"})
    assert "$" not in variables[SECRETS_VARIABLE]
    assert json.loads(variables[SECRETS_VARIABLE])["$(PATH)"] == "SECRET_X"


def test_a_task_without_secrets_knows_its_name() -> None:
    assert about() == {TASK_VARIABLE: "fit"}
