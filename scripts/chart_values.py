"""Writes from values.yaml the table of values in the chart's README, and the defaults that the chart fills in.

`python -m scripts.chart_values`
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CHART = Path(__file__).resolve().parents[1] / "helm" / "runkeys"
_BEGIN, _END = "<!-- values: written by `make chart-docs` from values.yaml -->\n", "<!-- end of values -->\n"
_PASSED_ON = ("resources", "runAsUser", "topologySpreadConstraints")
"""Values that the chart passes on as they are: null says that Kubernetes or the cluster chooses."""
_KEY = re.compile(r"( *)([A-Za-z]\w*):")


class Value(NamedTuple):
    """One row: the path as `--set` spells it, the default, and what the comment above it says."""

    path: str
    default: Any
    text: str


def values_of(text: str) -> list[Value]:
    """Every value that is no map of others. A comment is for the lines below it, up to the next empty line."""
    defaults: Any = yaml.safe_load(text)
    found: list[Value] = []
    path: list[str] = []
    comment: list[str] = []
    fresh = True
    for line in text.splitlines():
        stripped = line.strip()
        key = _KEY.match(line)
        if not stripped:
            comment, fresh = [], True
        elif stripped.startswith("#"):
            comment = [*([] if fresh else comment), stripped.removeprefix("#").strip()]
            fresh = False
        elif key:
            path = [*path[: len(key[1]) // 2], key[2]]
            fresh = True
            if not isinstance(_at(defaults, path[:-1]), dict):
                continue  # inside of a list, which is one value
            value = _at(defaults, path)
            if not (isinstance(value, dict) and value):
                found.append(Value(".".join(path), value, " ".join(comment)))
    return found


def _at(defaults: Any, path: list[str]) -> Any:
    for key in path:
        defaults = defaults[key] if isinstance(defaults, dict) else None
    return defaults


def table(values: list[Value]) -> str:
    """The rows as Markdown."""
    rows = ["| value | default | |", "|---|---|---|"]
    for path, default, text in values:
        shown = json.dumps(default, ensure_ascii=False)
        cells = [f"`{path}`", f"`{shown}`", text]
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def written(readme: str, values: str) -> str:
    """The README with the table of these values in its place."""
    before, rest = readme.split(_BEGIN)
    return before + _BEGIN + "\n" + table(values_of(values)) + "\n" + _END + rest.split(_END)[1]


def defaults(values: str) -> str:
    """What stands for a value that is missing (`files/defaults.yaml`)."""
    found = {key: value for key, value in yaml.safe_load(values).items() if key not in _PASSED_ON}
    return "# Generated from values.yaml by `make chart-docs`. Do not edit.\n" + yaml.safe_dump(
        found, sort_keys=False
    )


if __name__ == "__main__":
    file = CHART / "README.md"
    values = (CHART / "values.yaml").read_text()
    file.write_text(written(file.read_text(), values))
    (CHART / "files" / "defaults.yaml").write_text(defaults(values))
