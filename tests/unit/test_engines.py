"""How the engines of other projects are built: from the pinned module, in a copy that can be written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from testing.cluster import engines
from testing.cluster.build import BuildError

SMALL = engines.Engine(
    "small",
    "example.com/small",
    "v1.0.0",
    "h1:right",
    {"tool": "./cmd/tool"},
    links={"os/signal_linux.go": "signal_darwin.go"},
)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module as Go's cache has it, read-only, and a `go` that knows where it is."""
    folder = tmp_path / "module"
    for name in ("os/signal_darwin.go", "cmd/tool/main.go", "docs/page.md", "cmd/docs/kept.go"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    go = tmp_path / "go"
    go.write_text(f"#!/bin/sh\necho '{json.dumps({'Dir': str(folder), 'Sum': 'h1:right'})}'\n")
    go.chmod(0o755)
    monkeypatch.setattr(engines, "go_command", lambda _: go)
    monkeypatch.setenv("RUNKEYS_CACHE", str(tmp_path / "cache"))
    return folder


def test_it_is_built_in_a_copy_with_the_links_that_a_module_cannot_have(module: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    SMALL._copy(copy)
    assert SMALL.source() == module
    found = {str(path.relative_to(copy)): path.read_text() for path in copy.rglob("*.*")}
    assert found == {
        "os/signal_darwin.go": "os/signal_darwin.go",
        "os/signal_linux.go": "os/signal_darwin.go",
        "cmd/tool/main.go": "cmd/tool/main.go",
        "cmd/docs/kept.go": "cmd/docs/kept.go",
    }
    (copy / "cmd" / "tool" / "new.go").write_text("")


@pytest.mark.usefixtures("module")
def test_another_module_than_the_pinned_one_is_not_built() -> None:
    with pytest.raises(BuildError, match=r"h1:right, but h1:other is pinned"):
        replace(SMALL, sum="h1:other").source()
