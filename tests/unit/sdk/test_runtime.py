"""Services under ``python -m runkeys.runtime``: each test is a process."""

from __future__ import annotations

import json

import pytest

from testing.namespace import canary
from tests.unit.sdk.conftest import Service

TAKES = """
import hashlib
from runkeys import SecretValue

def run(api_token: SecretValue) -> dict:
    return {"sha256": hashlib.sha256(api_token.unwrap().encode()).hexdigest()}
"""


def test_row_09_a_missing_secret_fails_and_says_so_in_the_output(service: Service) -> None:
    service.program(TAKES)
    ended = service.run()
    assert ended.code == 1
    problem = service.output
    assert problem["title"] == "ValueError"
    assert "api_token" in problem["detail"]
    assert "SECRET_API_TOKEN" in problem["detail"]


def test_row_09_in_a_task_it_names_the_task_and_what_it_has(service: Service) -> None:
    service.program(TAKES)
    ended = service.run(RUNKEYS_TASK="fit", RUNKEYS_SECRETS='{"other":"SECRET_OTHER"}', SECRET_OTHER="x")
    assert ended.code == 1
    assert "task fit did not get a secret 'api_token'; it has: other" in service.output["detail"]


@pytest.mark.parametrize("value", ["", "v ", " two\nlines\n"])
def test_row_10_a_value_is_taken_exactly(service: Service, value: str) -> None:
    service.program(
        "from runkeys import SecretValue\n"
        "def run(t: SecretValue) -> dict:\n"
        "    return {'codes': [ord(sign) for sign in t.unwrap()]}\n"
    )
    assert service.run(SECRET_T=value).code == 0
    assert service.output == {"codes": [ord(sign) for sign in value]}


def test_row_11_an_optional_one_may_be_missing(service: Service) -> None:
    service.program("""
from typing import Optional
from runkeys import SecretValue

def run(a: Optional[SecretValue], b: SecretValue | None, c: SecretValue | None = None, d: SecretValue = "default"):
    return {"found": [a, b, c, d]}
""")
    assert service.run().code == 0
    assert service.output == {"found": [None, None, None, "default"]}
    assert service.run(SECRET_A="aaaa", SECRET_B="bbbb").code == 0
    assert service.output == {"found": ["[redacted]", "[redacted]", None, "default"]}


def test_row_12_later_annotations_annotated_ones_and_subclasses_are_seen(service: Service) -> None:
    service.program("""
from __future__ import annotations
from typing import Annotated
from runkeys import SecretValue

class Token(SecretValue):
    pass

def run(plain: SecretValue, noted: Annotated[SecretValue, "x"], special: Token, both: Annotated[Token, 1] | None):
    return {"types": [type(item).__name__ for item in (plain, noted, special, both)]}
""")
    ended = service.run(SECRET_PLAIN="1", SECRET_NOTED="2", SECRET_SPECIAL="3", SECRET_BOTH="4")
    assert ended.code == 0, ended.err
    assert service.output == {"types": ["SecretValue", "SecretValue", "Token", "Token"]}


def test_row_11_a_secret_in_a_union_is_a_secret(service: Service) -> None:
    service.program("""
from typing import Union
from runkeys import SecretValue

def run(a: Union[SecretValue, str], b: str | SecretValue | None) -> dict:
    return {"types": [type(item).__name__ for item in (a, b)]}
""")
    service.give("a", "never this one")
    assert service.run().code == 1
    assert "variable SECRET_A is not set" in service.output["detail"]
    assert service.run(SECRET_A="aaaa").code == 0
    assert service.output == {"types": ["SecretValue", "NoneType"]}


def test_row_13_unwrapping_twice_is_a_problem_document(service: Service) -> None:
    service.program(
        "from runkeys import SecretValue\ndef run(t: SecretValue):\n    t.unwrap()\n    return {'t': t.unwrap()}\n"
    )
    assert service.run(SECRET_T=canary()).code == 1
    problem = service.output
    assert {key: problem[key] for key in ("type", "status", "title")} == {
        "type": "about:blank",
        "status": 500,
        "title": "ValueError",
    }
    assert "locked" in problem["detail"]


def test_row_46_a_data_pool_lists_and_opens_its_files(service: Service) -> None:
    service.program("""
from runkeys import DataPool

def run(models: DataPool, other: DataPool | None) -> dict:
    refused = []
    for name in ("absent", "../secret.txt"):
        try:
            models.open(name)
        except FileNotFoundError:
            refused.append(name)
    with models.open("a.txt") as file, models.open("a.txt", "rb") as raw:
        texts = [file.read(), raw.read().decode()]
    files = sorted(models.list_files())
    return {"name": models.name, "files": files, "texts": texts, "refused": refused, "other": other}
""")
    pool = service.runtime / "datapool" / "models"
    (pool / "folder").mkdir(parents=True)
    (pool / "a.txt").write_text("weights")
    (pool.parent / "secret.txt").write_text("not of this pool")
    ended = service.run()
    assert ended.code == 0, ended.err
    assert service.output == {
        "name": "models",
        "files": ["a.txt"],
        "texts": ["weights", "weights"],
        "refused": ["absent", "../secret.txt"],
        "other": None,
    }


def test_row_46_a_missing_pool_is_named(service: Service) -> None:
    service.program("from runkeys import DataPool\ndef run(models: DataPool):\n    return {}\n")
    assert service.run().code == 1
    assert "models" in service.output["detail"]
    assert "dataPools" in service.output["detail"]


MODELS = """
from pydantic import BaseModel

class InputData(BaseModel):
    endpoint: str
    shots: int = 10

class Result(BaseModel):
    endpoint: str
    shots: int

def run(data: InputData) -> Result:
    return Result(endpoint=data.endpoint, shots=data.shots)
"""


def test_row_47_a_model_comes_in_and_goes_out(service: Service) -> None:
    service.program(MODELS)
    service.give("data", {"endpoint": "https://example.org"})
    assert service.run().code == 0
    assert service.output == {"endpoint": "https://example.org", "shots": 10}


def test_row_47_what_does_not_fit_is_named_and_not_shown(service: Service) -> None:
    service.program(MODELS)
    value = canary()
    service.give("data", {"endpoint": [value]})
    ended = service.run()
    assert ended.code == 1
    assert "parameter data" in service.output["detail"]
    assert "endpoint" in service.output["detail"]
    assert value not in ended.out + ended.err + json.dumps(service.output)


def test_row_47_dictionaries_lists_and_scalars_come_in_as_they_are(service: Service) -> None:
    service.program(
        "def run(circuit: dict, names: list[str], shots: int, plain, ratio: float = 0.5, note: str | None = None):\n"
        "    return [circuit, names, shots, plain, ratio, note]\n"
    )
    service.give("circuit", {"qubits": 5})
    service.give("names", ["a", "b"])
    service.give("shots", 7)
    service.give("plain", {"any": [1, None]})
    ended = service.run()
    assert ended.code == 0, ended.err
    assert service.output == [{"qubits": 5}, ["a", "b"], 7, {"any": [1, None]}, 0.5, None]


def test_an_asynchronous_service_is_awaited(service: Service) -> None:
    service.program("async def run(n: int) -> dict:\n    return {'n': n}\n")
    service.give("n", 3)
    assert service.run().code == 0
    assert service.output == {"n": 3}


def test_what_a_service_prints_logs_raises_and_returns_holds_no_value(service: Service) -> None:
    service.program("""
import logging, sys
from runkeys import SecretValue

logging.basicConfig(filename="service.log")

def run(t: SecretValue, how: str):
    value = t.unwrap()
    print("out", value)
    print("err", value, file=sys.stderr)
    logging.warning("log %s", value)
    if how == "raise":
        raise RuntimeError(f"cannot log in with {value}")
    return {"token": value, value: [f"Bearer {value}"]}
""")
    value = canary()
    for how, code in (("return", 0), ("raise", 1)):
        service.give("how", how)
        ended = service.run(SECRET_T=value)
        assert ended.code == code
        logged = (service.folder / "service.log").read_text()
        written = (service.runtime / "output" / "output.json").read_text()
        assert value not in ended.out + ended.err + logged + written
        assert "out [redacted]" in ended.out
        assert "err [redacted]" in ended.err
        assert "log [redacted]" in logged
        assert "[redacted]" in written


def test_a_program_started_by_the_service_does_not_have_the_variable(service: Service) -> None:
    service.program("""
import subprocess, sys
from runkeys import SecretValue

def run(t: SecretValue):
    code = "import os; print('SECRET_T' in os.environ)"
    return {"child": subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()}
""")
    assert service.run(SECRET_T="abcd").code == 0
    assert service.output == {"child": "False"}


def test_a_service_may_say_in_its_own_words_what_went_wrong(service: Service) -> None:
    service.program(
        "from runkeys import HandlerError\n"
        "def run():\n    raise HandlerError('Quota used up', 'try tomorrow', {'left': 0})\n"
    )
    assert service.run().code == 1
    assert service.output == {
        "type": "about:blank",
        "status": 500,
        "title": "Quota used up",
        "detail": "try tomorrow",
        "left": 0,
    }


@pytest.mark.parametrize(
    ("entrypoint", "says"),
    [
        ("src.program", "must be module:function"),
        ("src.absent:run", "no module src.absent"),
        ("src.program:absent", "no function absent"),
        ("src.program:many", "parameter rest must be an ordinary parameter"),
        ("src.program:mixed", "cannot be combined with another type"),
    ],
)
def test_what_cannot_be_run_says_why(service: Service, entrypoint: str, says: str) -> None:
    service.program(
        "from runkeys import DataPool\ndef many(**rest): return 1\ndef mixed(a: DataPool | int): return 1\n"
    )
    assert service.run(entrypoint).code == 1
    assert says in service.output["detail"]


def test_a_service_tried_out_by_hand_finds_input_and_models_in_its_folder(service: Service) -> None:
    """Line 9 of what users do: ``./input`` for documents and data pools, where there is no /var/runtime."""
    service.program(
        "from runkeys import DataPool\n"
        "def run(data: dict, models: DataPool):\n    return {'n': data['n'], 'files': list(models.list_files())}\n"
    )
    (service.folder / "input" / "models").mkdir(parents=True)
    (service.folder / "input" / "models" / "m.bin").touch()
    (service.folder / "input" / "data.json").write_text('{"n": 1}')
    ended = service.run(RUNKEYS_RUNTIME_DIR="")
    assert ended.code == 0, ended.err
    assert json.loads((service.folder / "output" / "output.json").read_text()) == {"n": 1, "files": ["m.bin"]}


def test_the_variables_of_the_qhub_runtime_move_the_folders(service: Service) -> None:
    service.program("def run(data: dict):\n    return data\n")
    for name in ("in", "out"):
        (service.folder / name).mkdir()
    (service.folder / "in" / "data.json").write_text('{"n": 2}')
    ended = service.python(
        "-m", "runkeys.runtime", INPUT_DIRECTORY="in", OUTPUT_DIRECTORY="out", ENTRYPOINT="src.program:run"
    )
    assert ended.code == 0, ended.err
    assert json.loads((service.folder / "out" / "output.json").read_text()) == {"n": 2}


def test_without_a_service_it_says_how_it_is_called(service: Service) -> None:
    ended = service.python("-m", "runkeys.runtime")
    assert ended.code == 2
    assert "MODULE:FUNCTION" in ended.err


def test_importing_runkeys_and_reading_a_secret_loads_nothing_heavy(service: Service) -> None:
    heavy = ("kopf", "kubernetes", "rich", "click", "aiohttp", "pydantic", "asyncio", "cryptography")
    code = (
        "import sys, runkeys; from runkeys import secrets, SecretValue; secrets.get('t');"
        f"print(sorted(set({heavy!r}) & set(sys.modules)))"
    )
    ended = service.python("-c", code, SECRET_T="abcd")
    assert ended.out.strip() == "[]", ended.err
