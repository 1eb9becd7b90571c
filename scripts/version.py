"""Writes the package's version wherever else it has to be: `python -m scripts.version`. deploy/ follows the chart."""

from __future__ import annotations

import re
from pathlib import Path

from runkeys._version import __version__

CHART = Path(__file__).resolve().parents[1] / "helm" / "runkeys" / "Chart.yaml"


def written(chart: str, version: str) -> str:
    """Chart.yaml with this version, of itself and of what it installs."""
    return re.sub(r"^(version|appVersion): .*$", rf"\1: {version}", chart, flags=re.MULTILINE)


if __name__ == "__main__":
    CHART.write_text(written(CHART.read_text(), __version__))
