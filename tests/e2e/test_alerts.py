"""Alert rules and dashboard ask for metrics that there are, and the alerts fire when they must (promtool)."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from runkeys_operator.process import metrics
from testing.cluster import build
from testing.cluster.cache import CHECKOUT

FILES = CHECKOUT / "helm" / "runkeys" / "files"
TESTS = sorted((CHECKOUT / "tests" / "alerts").glob("*.yaml"))

pytestmark = pytest.mark.e2e


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    build.ensure(("prometheus",))
    command = [build.program("promtool"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def there() -> set[str]:
    """Every name of a sample that the operator can give."""
    found = set()
    for family in metrics.REGISTRY.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}
        found |= {f"{family.name}{suffix}" for suffix in suffixes.get(family.type, ("",))}
    return found


def asked(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:runkeys|process)_[a-z_]+", expression))


def test_the_rules_are_good_and_fire_when_they_must() -> None:
    checked = promtool("check", "rules", FILES / "alerts.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr

    tested = promtool("test", "rules", *TESTS)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", [rule["alert"] for rule in rules()])
def test_control_a_rule_that_is_missing_is_missed(alert: str, tmp_path: Path) -> None:
    """Each rule has a test that needs it."""
    fewer = {"groups": [{"name": "runkeys", "rules": [rule for rule in rules() if rule["alert"] != alert]}]}
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(fewer))
    files = []
    for path in TESTS:
        files.append(tmp_path / path.name)
        files[-1].write_text(re.sub(r"rule_files: .*", "rule_files: [alerts.yaml]", path.read_text()))

    tested = promtool("test", "rules", *files)

    assert tested.returncode != 0
    assert alert in tested.stdout + tested.stderr


def test_rules_and_dashboard_ask_for_what_there_is() -> None:
    dashboard = json.loads((FILES / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [rule["expr"] for rule in rules()]

    wanted = set().union(*map(asked, expressions))
    assert len(wanted) > 15
    assert wanted <= there()
    assert "runkeys_no_such_metric" not in there()


def test_the_documentation_names_every_metric() -> None:
    text = (CHECKOUT / "docs" / "metrics.md").read_text()
    names = {re.sub(r"_(bucket|count|sum)$", "", name) for name in there() if not name.startswith("process_")}

    assert {name for name in names if f"`{name}" not in text} == set()
