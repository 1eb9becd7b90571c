"""``secrets``: in a task, and on a laptop that has no cluster. With a cluster: tests/e2e/sdk."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from runkeys import config, secrets
from runkeys._task import environment
from runkeys.compat import orquestra
from runkeys.problems import Invalid
from testing.namespace import canary
from tests.unit.sdk.conftest import Service

InTask = Callable[..., None]


def test_row_21_the_signatures_are_those_that_code_calls() -> None:
    for name, positional in (
        ("get", ["name"]),
        ("list", []),
        ("set", ["name", "value"]),
        ("delete", ["name"]),
    ):
        found = inspect.signature(getattr(secrets, name)).parameters
        assert [item.name for item in found.values() if item.kind is item.POSITIONAL_OR_KEYWORD] == positional
        named = {item.name: item.default for item in found.values() if item.kind is item.KEYWORD_ONLY}
        assert named == {"workspace_id": None, "config_name": None}
        assert inspect.iscoroutinefunction(getattr(secrets, f"{name}_async"))
    assert orquestra.secrets is secrets


def test_the_decorator_of_orquestra_leaves_the_function_as_it_is() -> None:
    def use() -> int:
        return 7

    assert orquestra.task(use) is orquestra.task(resources=1)(use) is orquestra.task()(use) is use


def test_row_22_in_a_task_config_name_is_ignored(in_task: InTask) -> None:
    value = canary()
    in_task({"n": "SECRET_N"}, SECRET_N=value)
    assert secrets.get("n") == value
    assert secrets.get("n", config_name="nope", workspace_id="nope") == value


def test_row_22_reading_it_again_works_although_the_variable_is_gone(in_task: InTask) -> None:
    value = canary()
    in_task({"n": "SECRET_N"}, SECRET_N=value)
    assert [secrets.get("n"), secrets.get("n"), asyncio.run(secrets.get_async("n"))] == [value] * 3
    assert "SECRET_N" not in os.environ


def test_row_22_exact_variables_files_and_names_of_the_binding(in_task: InTask, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "sa.json").write_text(" {}\n")
    (tmp_path / "secrets" / "raw").write_bytes(b"\xff\x00")
    carried = {"api": "api_token", "ibmq-token": "api_token", "sa": "file:sa.json", "raw": "file:raw"}
    in_task(carried, api_token="x y ", RUNKEYS_RUNTIME_DIR=str(tmp_path))
    assert secrets.get("api") == secrets.get("ibmq-token") == "x y "
    assert secrets.get("sa") == " {}\n"
    with pytest.raises(ValueError, match="not UTF-8 text"):
        secrets.get("raw")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("ibm_token", "- {name: ibm_token, secret: ibm_token}"),
        ("my secret?", '- {name: "my secret?", secret: "my secret?"}'),
    ],
)
def test_line_7_a_secret_that_the_task_did_not_declare(in_task: InTask, name: str, line: str) -> None:
    in_task({"a": "SECRET_A", "b": "SECRET_B"}, SECRET_A="1", SECRET_B="2")
    with pytest.raises(secrets.NotFoundError) as caught:
        secrets.get(name, config_name="lab")
    message = str(caught.value)
    assert "task fit" in message
    assert "it has: a, b" in message
    assert line in message


def test_line_7_a_process_that_comes_later_is_told_why_it_is_not_there(service: Service) -> None:
    code = (
        "import subprocess, sys; from runkeys import secrets; secrets.get('t');"
        "code = \"from runkeys import secrets; secrets.get('t')\";"
        "print(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stderr)"
    )
    ended = service.python(
        "-c",
        code,
        RUNKEYS_TASK="fit",
        RUNKEYS_SECRETS='{"t":"SECRET_T"}',
        SECRET_T="x",
        KUBERNETES_SERVICE_HOST="x",
    )
    assert "another process has already taken it" in ended.out


def test_line_7_list_in_a_task_says_what_it_was_given(in_task: InTask) -> None:
    in_task({"b": "SECRET_B", "a": "file:a"})
    assert secrets.list() == ["a", "b"]


@pytest.mark.parametrize("call", [lambda: secrets.set("a", "b"), lambda: secrets.delete("a")])
def test_line_7_set_and_delete_in_a_pod_need_its_account(in_task: InTask, call: Callable[[], None]) -> None:
    in_task({})
    with pytest.raises(secrets.UnauthorizedError, match="automountServiceAccountToken: true"):
        call()


def test_a_pod_of_another_engine_has_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    monkeypatch.setenv("RUNKEYS_MASKING", "off")
    monkeypatch.setenv("SECRET_API_TOKEN", "x")
    assert secrets.get("apiToken", config_name="nope") == "x"
    with pytest.raises(secrets.NotFoundError, match="variable SECRET_OTHER"):
        secrets.get("other", config_name="nope")


def kubeconfig(path: Path, *contexts: str, current: str = "") -> None:
    """A kubeconfig with these contexts, of clusters that do not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {"cluster": {"server": "https://192.0.2.1:6443"}}
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", **entry}],
        "users": [{"name": "u", "user": {"token": "none"}}],
        "contexts": [
            {"name": name, "context": {"cluster": "c", "user": "u", "namespace": f"of-{name}"}}
            for name in contexts
        ],
    }
    if current:
        document["current-context"] = current
    path.write_text(yaml.safe_dump(document))


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A laptop's home folder, with nothing in it."""
    home = Path(os.environ["HOME"])
    home.mkdir()
    # The library reads where kubeconfigs are when it is imported.
    monkeypatch.setenv("KUBECONFIG", str(home / "kubeconfig"))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(home / "kubeconfig")
    )
    return home


def write_config(text: str) -> None:
    path = config.config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_row_23_no_config_name_and_no_default(home: Path) -> None:
    with pytest.raises(secrets.ConfigNameNotFoundError, match="no config_name was given"):
        secrets.get("n")
    kubeconfig(home / "kubeconfig", "lab")
    for call in (
        lambda: secrets.get("n"),
        secrets.list,
        lambda: secrets.set("n", "v"),
        lambda: secrets.delete("n"),
    ):
        with pytest.raises(secrets.ConfigNameNotFoundError):
            call()


@pytest.mark.usefixtures("home")
def test_row_24_no_file_in_which_it_could_be() -> None:
    with pytest.raises(secrets.ConfigFileNotFoundError, match="config_name 'lab'"):
        secrets.get("n", config_name="lab")


def test_row_24_an_unknown_name_is_told_with_those_that_there_are(home: Path) -> None:
    kubeconfig(home / "kubeconfig", "prod", "dev", current="dev")
    write_config('[configs.lab]\ncontext = "dev"\n')
    with pytest.raises(
        secrets.ConfigNameNotFoundError, match="no configuration 'nope'; there are: dev, lab, prod"
    ):
        secrets.get("n", config_name="nope")


def test_a_name_is_one_of_config_toml_or_a_context(home: Path) -> None:
    kubeconfig(home / "kubeconfig", "prod", "dev", current="dev")
    assert config.resolve().context == "dev"
    assert config.resolve("prod").client().namespace == "of-prod"
    assert config.resolve("prod").client("mine").namespace == "mine"
    write_config(
        'default = "lab"\n[configs.lab]\ncontext = "prod"\nnamespace = "team-a"\nbindings = ["shared"]\n'
    )
    assert config.resolve() == config.Config("lab", "prod", "team-a", bindings=("shared",))
    assert config.resolve("dev").client().namespace == "of-dev"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = [", "cannot be read"),
        ("other = 1", "found other"),
        ("[configs]\nlab = 1", "configs.lab must be a table"),
        ("[configs.lab]\ncontxt = 'a'", "contxt is not known; the known keys are bindings, context"),
        ("[configs.lab]\ncontext = 1", r"configs.lab.context must be a string"),
        ("[configs.lab]\nbindings = 'a'", "must be a list of strings"),
    ],
)
@pytest.mark.usefixtures("home")
def test_a_config_file_that_cannot_be_meant_is_named(text: str, says: str) -> None:
    write_config(text)
    with pytest.raises(Invalid, match=says) as caught:
        config.resolve("lab")
    assert "config.toml" in str(caught.value)


@pytest.mark.parametrize("value", [42, b"bytes", None, ["x"]])
def test_row_29_a_value_that_is_no_text(value: Any) -> None:
    with pytest.raises(secrets.ValidationError, match="must be a str") as caught:
        secrets.set("n", value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["", "x" * 254, 7])
def test_decision_1_names_are_1_to_253_characters(name: Any) -> None:
    for call in (lambda: secrets.get(name), lambda: secrets.set(name, "v"), lambda: secrets.delete(name)):
        with pytest.raises(secrets.ValidationError, match="1 to 253 characters"):
            call()


def test_on_a_laptop_a_variable_counts_unless_a_config_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_N", "local")
    assert secrets.get("n") == "local"
    assert home.is_dir()
    with pytest.raises(secrets.ConfigFileNotFoundError):
        secrets.get("n", config_name="lab")


def test_line_8_a_local_task_may_name_a_config_for_what_it_was_not_given(
    home: Path, in_task: InTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_task({"n": "SECRET_N"}, SECRET_N="from the env file", RUNKEYS_RUNTIME_DIR=str(home))
    assert environment.is_local()
    assert secrets.get("n", config_name="lab") == "from the env file"
    with pytest.raises(secrets.ConfigFileNotFoundError):
        secrets.get("other", config_name="lab")
    with pytest.raises(secrets.NotFoundError, match="task fit did not get"):
        secrets.get("other")
    monkeypatch.delenv("RUNKEYS_RUNTIME_DIR")
    with pytest.raises(secrets.NotFoundError, match="task fit did not get"):
        secrets.get("other", config_name="lab")


def test_without_the_library_of_the_cluster_it_says_what_to_install(service: Service) -> None:
    (service.folder / "kubernetes.py").write_text("raise ImportError('not here')")
    kubeconfig(service.folder / "kube", "lab")
    code = "import sys; sys.path.insert(0, '.'); from runkeys import secrets; secrets.list(config_name='lab')"
    ended = service.python("-c", code, KUBECONFIG=str(service.folder / "kube"))
    assert ended.code == 1
    assert "pip install 'runkeys[cli]'" in ended.err
