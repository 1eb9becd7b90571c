"""The reviewed list of what runs on kind."""

from __future__ import annotations

import pytest

from tests.e2e.on_kind import E2E, LIST, listed

# What somebody else's cluster has to do as ours does.
ALWAYS = {
    "cli/test_runs.py",
    "runs/test_main_path.py",
    "runs/test_workflow.py",
    "sealed/test_sealed_bindings.py",
    "test_chart.py",
    "test_crds.py",
    "trust/test_matrix.py",
}


def test_every_file_is_listed_once() -> None:
    files = {str(path.relative_to(E2E)) for path in E2E.rglob("test_*.py")}
    assert set(listed(LIST.read_text())) == files


def test_what_matters_on_other_clusters_runs() -> None:
    reasons = listed(LIST.read_text())
    assert {name for name in ALWAYS if reasons[name]} == set()


def test_a_reason_leaves_a_file_out() -> None:
    assert listed("# why\n\na.py\nb.py  it is slow\n") == {"a.py": "", "b.py": "it is slow"}


def test_nothing_is_listed_twice() -> None:
    with pytest.raises(ValueError, match=r"a\.py is listed twice"):
        listed("a.py\na.py  no\n")
