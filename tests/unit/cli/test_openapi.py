"""`runkeys openapi`."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.unit.cli.terminal import Terminal

SERVICE = """
from pydantic import BaseModel

from runkeys import SecretValue


class InputData(BaseModel):
    shots: int


def run(data: InputData, api_token: SecretValue) -> dict:
    return {}
"""


def test_a_service_of_this_folder_is_described(terminal: Terminal) -> None:
    (terminal.folder / "service.py").write_text(SERVICE)
    document = json.loads(terminal.ok("openapi", "service:run", "--title", "Counter", "--api-version", "2"))
    assert document["info"] == {"title": "Counter", "version": "2"}
    body = document["paths"]["/"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["data", "$secrets"]
    assert yaml.safe_load(terminal.ok("openapi", "service:run", "-o", "yaml"))["openapi"] == "3.1.0"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("service", "must be module:function"),
        ("absent:run", "absent"),
        ("broken:run", "broken:run cannot be imported: RuntimeError: not today"),
        ("unfinished:run", "unfinished:run cannot be imported: SyntaxError"),
    ],
    ids=["form", "module", "broken", "syntax"],
)
def test_what_is_not_there_is_told(terminal: Terminal, wrong: str, said: str) -> None:
    (terminal.folder / "broken.py").write_text("raise RuntimeError('not today')")
    (terminal.folder / "unfinished.py").write_text("def run(:")
    done = terminal.run("openapi", wrong)
    assert (done.code, done.out) == (5, "")
    assert said in done.err
