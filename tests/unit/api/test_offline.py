"""What an API server would refuse is refused without one, in its words: the cases of tests/e2e/test_crds.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runkeys.api import SecretBinding, SecretReveal, SecretStore, WorkflowRun, offline
from runkeys.api.crd import Kind
from testing.cluster.client import Object
from tests.crd_cases import (
    BAD_BINDINGS,
    BAD_REVEALS,
    BAD_RUNS,
    BAD_STORES,
    BINDING,
    CANARY,
    CSI_STORE,
    REVEAL,
    RUN,
    STORE,
    changed,
)
from tests.unit.cli.terminal import environment

CASES = [
    pytest.param(kind, example, *case, id=f"{kind.__name__}: {case[0]}")
    for kind, example, cases in (
        (WorkflowRun, RUN, BAD_RUNS),
        (SecretBinding, BINDING, BAD_BINDINGS),
        (SecretReveal, REVEAL, BAD_REVEALS),
        (SecretStore, STORE, BAD_STORES),
    )
    for case in cases
]


@pytest.mark.parametrize(("kind", "example", "path", "value", "message"), CASES)
def test_what_an_api_server_refuses_is_refused_in_its_words(
    kind: type[Kind], example: Object, path: str, value: Any, message: str
) -> None:
    answer = " ".join(" ".join(offline.refusals(kind, changed(example, path, value))).split())

    assert message in answer
    assert CANARY.lower() not in answer.lower()


@pytest.mark.parametrize(
    ("kind", "example"),
    [
        *((WorkflowRun, RUN), (SecretBinding, BINDING), (SecretReveal, REVEAL)),
        *((SecretStore, STORE), (SecretStore, CSI_STORE)),
    ],
)
def test_a_good_example_is_accepted(kind: type[Kind], example: Object) -> None:
    assert offline.refusals(kind, example) == []


def test_control_without_its_rules_a_kind_refuses_less(monkeypatch: pytest.MonkeyPatch) -> None:
    from runkeys.api import crd

    def without(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: without(item) for key, item in node.items() if key != "x-kubernetes-validations"}
        return [without(item) for item in node] if isinstance(node, list) else node

    bad = changed(RUN, "spec.tasks.0.name", "Upper")
    assert offline.refusals(WorkflowRun, bad)
    original = crd.manifest
    monkeypatch.setattr(crd, "manifest", lambda kind: without(original(kind)))
    offline._schema.cache_clear()
    try:
        assert offline.refusals(WorkflowRun, bad) == []
    finally:
        offline._schema.cache_clear()


@pytest.mark.parametrize("name", ["Upper", "a" * 70, "../x", "a b", "-a", "a\n"])
def test_a_name_that_no_object_can_have_is_refused(name: str) -> None:
    assert offline.refusals(WorkflowRun, changed(RUN, "metadata.name", name))


@pytest.mark.parametrize(
    "labels", [{"a": 1}, {"a": "b c"}, {"a b": "c"}, {"a": "x" * 64}, {"-/a": "b"}, ["a"]]
)
def test_labels_that_no_object_can_have_are_refused(labels: Any) -> None:
    found = offline.refusals(WorkflowRun, changed(RUN, "metadata.labels", labels))

    assert len(found) == 1
    assert found[0].startswith("metadata.labels: Invalid value: ")


def test_a_null_is_refused_unless_there_is_a_default() -> None:
    assert offline.refusals(WorkflowRun, {**RUN, "spec": {**RUN["spec"], "serviceAccountName": None}}) == []
    without = {**RUN, "spec": {**RUN["spec"], "ttlSecondsAfterFinished": None}}
    assert offline.refusals(WorkflowRun, without) == [
        'spec.ttlSecondsAfterFinished: Invalid value: "null": spec.ttlSecondsAfterFinished in body must be of type'
        ' integer: "null"'
    ]


@pytest.mark.parametrize("raw", [{}, {"spec": None}, {"spec": []}, {"spec": {"tasks": 3}}, {"metadata": 3}])
def test_what_is_no_object_of_the_kind_is_refused(raw: Object) -> None:
    assert offline.refusals(WorkflowRun, raw)


@pytest.mark.parametrize("module", ["cel", "yaml"])
def test_without_the_extra_it_says_what_to_install(tmp_path: Path, module: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from runkeys.local import LocalRun\n"
        "from runkeys.problems import Problem\n"
        "try: LocalRun({'spec': {}}, {})\n"
        "except Problem as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
        env=environment(tmp_path),
    )
    assert done.stdout.rstrip().endswith("is not installed; pip install 'runkeys[cli]'")


def test_what_a_task_imports_loads_none_of_it(tmp_path: Path) -> None:
    code = (
        "import runkeys, runkeys.secrets, runkeys.masking, runkeys.runtime, runkeys.local, sys\n"
        "print([name for name in ('cel', 'typer', 'yaml', 'kubernetes') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
        env=environment(tmp_path),
    )
    assert done.stdout == "[]\n"
