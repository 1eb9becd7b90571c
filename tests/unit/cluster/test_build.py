"""Which programs are built for which cluster, and where they are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.cluster import build


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("RUNKEYS_CACHE", str(tmp_path))
    return tmp_path


def made(group: str) -> Path:
    path = build.GROUPS[group].bin / "kubectl"
    path.parent.mkdir(parents=True)
    path.write_text("")
    return path


def test_every_group_has_its_pins() -> None:
    missing = [str(path) for group in build.GROUPS.values() for path in group.files if not path.is_file()]
    folders = {group.folder.name for group in build.GROUPS.values()}

    assert missing == []
    assert folders <= {path.name for path in build.COMPONENTS.iterdir()}


@pytest.mark.parametrize("group", ["kube", "kubectl"])
def test_kubectl_is_found_in_the_group_that_is_built(group: str) -> None:
    assert build.GROUPS["kube"].bin != build.GROUPS["kubectl"].bin
    path = made(group)

    assert build.program("kubectl") == path


def test_a_cluster_that_is_elsewhere_takes_no_node() -> None:
    programs = {name for group in build.CLIENT_GROUPS for name in build.GROUPS[group].programs}

    assert programs == {"kubectl", "helm"}
    assert programs <= {name for group in build.NODE_GROUPS for name in build.GROUPS[group].programs}
    with pytest.raises(KeyError):
        build.program("no-such-program")
