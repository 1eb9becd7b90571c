"""The command line, and what starting it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runkeys_operator import __main__ as command
from runkeys_operator.leader_election import LeaseName
from runkeys_operator.options import Options

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runkeys_operator.process.logs.configure", lambda *_: None)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The options with which the command would have run the operator."""
    options: list[Options] = []

    def remember(given: Options, _: Any) -> int:
        options.append(given)
        return 0

    monkeypatch.setattr(command, "exit_code", remember)
    return options


def invoke(*arguments: str, **environment: str) -> int:
    return CliRunner(env=environment).invoke(command.main, arguments).exit_code


def test_the_defaults(started: list[Options]) -> None:
    assert invoke() == 0
    assert started == [Options()]


def test_options(started: list[Options]) -> None:
    namespaces = ("--namespace", "b", "--namespace", "a", "--namespace", "b")
    assert invoke(*namespaces, "--workers", "3", "--health-port", "0") == 0
    assert started == [Options(namespaces=("b", "a"), workers=3, health_port=0)]


def test_the_lease(started: list[Options]) -> None:
    assert invoke("--lease", "a-b/c.d", "--lease-seconds", "3", "--identity", "pod") == 0
    assert invoke(RUNKEYS_LEASE="a-b/c.d", RUNKEYS_LEASE_SECONDS="3", RUNKEYS_IDENTITY="pod") == 0
    assert started == [Options(lease=LeaseName("a-b", "c.d"), lease_seconds=3, identity="pod")] * 2


def test_the_environment(started: list[Options]) -> None:
    assert invoke(RUNKEYS_NAMESPACES="a, b", RUNKEYS_SWEEP_SECONDS="5", RUNKEYS_CONTEXT="c") == 0
    assert started == [Options(namespaces=("a", "b"), resync_seconds=5.0, context="c")]


def test_the_resources_of_the_unseal_container(started: list[Options]) -> None:
    assert invoke("--sealed-delivery-resources", '{"limits": {"cpu": 1, "memory": "0.5Gi"}}') == 0
    assert invoke("--sealed-delivery-resources", "{}") == 0
    assert started == [
        Options(sealed_delivery_resources={"limits": {"cpu": "1", "memory": "0.5Gi"}}),
        Options(sealed_delivery_resources={}),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cpu=10m", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        ('{"claims": {}}', "'claims' is neither requests nor limits"),
        ('{"limits": "10m"}', "'limits' is neither requests nor limits with a quantity for each resource"),
        ('{"limits": {"cpu": "ten"}}', "limits.cpu is 'ten', which is not a quantity, such as 10m or 32Mi"),
        ('{"limits": {"cpu": true}}', "limits.cpu is True"),
        ('{"limits": {"memory": "1e9999"}}', "limits.memory is '1e9999'"),
    ],
)
def test_resources_that_would_fail_every_run_are_refused(text: str, says: str) -> None:
    found = CliRunner().invoke(command.main, ["--sealed-delivery-resources", text])
    assert found.exit_code == 2
    assert says in " ".join(found.output.replace("\u2502", " ").split())


def test_an_image_that_no_status_can_tell_is_refused() -> None:
    found = CliRunner().invoke(command.main, ["--sealed-delivery-image", "i" * 1025])
    assert found.exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        *("--namespace A", "--namespace a,b", "--namespace *", "--workers 0", "--health-port 70000", "x"),
        *("--lease a", "--lease a/", "--lease /a", "--lease a/b/c", "--lease A/b", "--lease-seconds 2"),
    ],
)
def test_nonsense_is_refused(started: list[Options], arguments: str) -> None:
    assert invoke(*arguments.split()) == 2
    assert not started


def test_a_kubeconfig_that_is_not_there_is_a_matter_of_usage(tmp_path: Path) -> None:
    assert invoke("--kubeconfig", str(tmp_path / "none"), "--health-port", "0") == 2


def test_it_does_not_load_the_kubernetes_library() -> None:
    code = (
        "import sys, runkeys_operator.__main__; print('kubernetes' in sys.modules);"
        "import kubernetes.client; print('kubernetes' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
        env={"PYTHONPATH": str(ROOT / "operator")},
    )
    assert done.stdout.split() == ["False", "True"]
