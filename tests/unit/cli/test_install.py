"""`runkeys install`: what it asks helm for. tests/e2e/test_chart_install.py does it."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.unit.cli.terminal import ROOT, Terminal


def test_a_dry_run_prints_the_command(terminal: Terminal) -> None:
    words = (
        "--context",
        "dev",
        "--operator-namespace",
        "keys",
        "-f",
        "my values.yaml",
        "--set",
        "image.tag=1",
    )
    (terminal.folder / ".kube").mkdir()
    (terminal.folder / ".kube" / "config").write_text("contexts: [{name: dev, context: {}}]")
    printed = shlex.split(terminal.ok("install", "--dry-run", *words))
    assert printed[:5] == ["helm", "upgrade", "--install", "runkeys", str(ROOT / "helm" / "runkeys")]
    assert printed[5:8] == ["--namespace", "keys", "--create-namespace"]
    assert printed[-6:] == ["--kube-context", "dev", "--values", "my values.yaml", "--set", "image.tag=1"]


def test_without_helm_it_says_so(terminal: Terminal, tmp_path: Path) -> None:
    done = terminal.run("install", PATH=str(tmp_path))
    assert done.code == 2
    assert "helm is not in the PATH" in done.err
