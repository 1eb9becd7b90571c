"""Chart, Dockerfile and examples say what the code says, wherever two files hold the same thing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

import runkeys
from runkeys.api import SecretBinding, WorkflowRun
from runkeys.planning.access import Subject, denial
from scripts import chart_values

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "runkeys"
EXAMPLES = ROOT / "examples"


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["version"] == runkeys.__version__
    assert chart["appVersion"] == runkeys.__version__


def test_every_value_of_the_chart_is_explained() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    top = [number for number, line in enumerate(lines) if re.match(r"[a-zA-Z]", line)]
    # The one comment above nodeSelector is for the lines below it too.
    unexplained = [lines[n] for n in top if not lines[n - 1].startswith("#")]

    assert [line.partition(":")[0] for line in unexplained] == [
        "tolerations",
        "affinity",
    ]


def test_the_table_of_values_is_that_of_the_values() -> None:
    """`make chart-docs` mends this."""
    readme = (CHART / "README.md").read_text()
    values = (CHART / "values.yaml").read_text()

    assert chart_values.written(readme, values) == readme
    assert chart_values.written(readme, values + "# New.\nother: 1\n") != readme
    assert all(value.text for value in chart_values.values_of(values))


def test_what_is_missing_is_filled_in_from_the_values() -> None:
    """`make chart-docs` mends this."""
    values = (CHART / "values.yaml").read_text()

    assert (CHART / "files" / "defaults.yaml").read_text() == chart_values.defaults(values)


def test_every_template_fills_it_in_first() -> None:
    templates = [path for path in (CHART / "templates").rglob("*") if path.suffix in (".yaml", ".txt")]

    without = [path.name for path in templates if '{{- include "runkeys.defaults" . -}}' not in first(path)]
    assert (len(templates) > 10, without) == (True, [])


def first(template: Path) -> str:
    """What comes before anything that could ask for a value."""
    return re.split(r"\.Values|\{\{-? *(?:if|with|range|\$)", template.read_text(), maxsplit=1)[0]


def test_docker_sees_only_what_the_dockerfile_copies() -> None:
    dockerfile = (ROOT / "operator" / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(\S+)", dockerfile, re.MULTILINE)
    ignore = (ROOT / ".dockerignore").read_text().splitlines()

    assert "*" in ignore
    assert sorted(line[1:] for line in ignore if line.startswith("!")) == sorted(copied)
    assert all((ROOT / path).exists() for path in copied)


def test_the_example_binding_admits_the_example_run() -> None:
    [binding] = map(SecretBinding.parse, documents(EXAMPLES / "hello" / "binding.yaml"))
    [run] = map(WorkflowRun.parse, documents(EXAMPLES / "hello" / "run.yaml"))
    [task] = run.spec.tasks
    pod_images = [container["image"] for container in task.template["spec"]["containers"]]

    assert [reference.name for reference in run.spec.bindings] == [binding.metadata.name]
    assert all(secret.secret and binding.entry(secret.secret) for secret in task.secrets)
    assert (
        denial(binding, Subject(run.metadata.labels, run.spec.service_account_name, pod_images, "alice"))
        is None
    )


def test_the_example_role_grants_the_example_secret_to_the_charts_account() -> None:
    [binding] = map(SecretBinding.parse, documents(EXAMPLES / "hello" / "binding.yaml"))
    role, role_binding = documents(EXAMPLES / "source-role.yaml")

    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [
                entry.secret_key_ref.name
                for entry in binding.spec.secrets
                if entry.secret_key_ref is not None
            ],
            "verbs": ["get"],
        }
    ]
    assert role_binding["roleRef"]["name"] == role["metadata"]["name"]
    assert role_binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "runkeys", "namespace": "runkeys-system"}
    ]
