"""The shipped examples as somebody tries them on a laptop, without a cluster."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
from pathlib import Path

import pytest

from testing.namespace import canary
from tests.unit.cli.terminal import Terminal
from tests.unit.sdk.conftest import ROOT, Service

ENDPOINT = "https://weather.example/v1"


def example(name: str, tmp_path: Path) -> Terminal:
    """A copy of the example's folder."""
    return Terminal(Path(shutil.copytree(ROOT / "examples" / name, tmp_path / name)), {})


def signature(value: str) -> str:
    return hmac.new(value.encode(), ENDPOINT.encode(), hashlib.sha256).hexdigest()


def test_the_service_by_hand(tmp_path: Path) -> None:
    value = canary()
    service = Service(example("qhub", tmp_path).folder)
    ended = service.python("-m", "src", SECRET_API_TOKEN=value, RUNKEYS_RUNTIME_DIR="")
    assert ended.code == 0, ended.err
    written = json.loads((service.folder / "output" / "output.json").read_text())
    assert written == {"endpoint": ENDPOINT, "signature": signature(value)}


@pytest.mark.parametrize("mapped", [False, True])
def test_the_service_as_a_local_run(tmp_path: Path, mapped: bool) -> None:
    """With the secret in the manifest's own form, and as a mapping."""
    value = canary()
    user = example("qhub", tmp_path)
    words = ["run", "--local", "-f", "workflow.yaml", "--input", "@-", "-o", "json"]
    if mapped:
        text = (user.folder / "workflow.yaml").read_text().splitlines()
        kept = [line for line in text if not line.lstrip().startswith("secrets:")]
        assert len(kept) == len(text) - 1
        (user.folder / "workflow.yaml").write_text("\n".join(kept))
        words += ["--map", '{ "api_token": secret_value("weather_key") }']
    given = {"data": {"endpoint": ENDPOINT}, "$secrets": {"weather_key": value}}
    done = user.run(*words, stdin=json.dumps(given))
    assert done.code == 0, done
    assert value not in done.out + done.err
    [task] = json.loads(done.out)["status"]["tasks"]
    assert task["output"] == {"endpoint": ENDPOINT, "signature": signature(value)}


def test_a_secret_by_name_as_a_local_run(tmp_path: Path) -> None:
    value = canary()
    user = example("orquestra", tmp_path)
    (user.folder / ".env").write_text(f"SECRET_IBM_TOKEN={value}\n")
    done = user.run("run", "--local", "-f", "workflow.yaml", "--env-file", ".env")
    assert done.code == 0, done
    assert f"sha256 {hashlib.sha256(value.encode()).hexdigest()}" in done.out + done.err


def test_the_flow_finds_its_secret_in_the_file_of_prefect(tmp_path: Path) -> None:
    value = canary()
    user = example("prefect", tmp_path)
    (user.folder / ".prefect").mkdir()
    content = json.dumps({"token": value})
    (user.folder / ".prefect" / "config.toml").write_text(f"[context.secrets]\nMYSECRET = '{content}'\n")
    service = Service(user.folder)
    code = (
        "import flow; from runkeys.compat.prefect import PrefectSecret;"
        "print(flow.log_in(credentials=PrefectSecret('MYSECRET')))"
    )
    ended = service.python("-c", code, HOME=str(user.folder), RUNKEYS_RUNTIME_DIR="")
    assert ended.code == 0, ended.err
    assert ended.out.strip() == hashlib.sha256(value.encode()).hexdigest()
