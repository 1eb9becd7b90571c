"""The gate for skips and the summary of `tests/conftest.py`, tried on small runs of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
LISTED = "test_it.py::test_*  no engine answers"
TESTS = """
import pytest

def test_passes():
    pass

def test_skips():
    pytest.skip("no engine answers")
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("RUNKEYS_SEED", raising=False)
    monkeypatch.delenv("RUNKEYS_PROOF", raising=False)
    monkeypatch.setenv("CI", "true")
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makefile(".txt", **{"allowed-skips": ""})
    pytester.makeini("[pytest]\nmarkers =\n e2e\n proof\n")
    return pytester


def test_unlisted_skip_fails_in_ci(run: pytest.Pytester) -> None:
    run.makepyfile(test_it=TESTS)
    result = run.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["skipped: no engine answers", "*allowed-skips.txt does not list*"])


def test_unlisted_skip_fails_in_a_worker_too(run: pytest.Pytester) -> None:
    run.makepyfile(test_it=TESTS)
    run.runpytest_subprocess("-n2").assert_outcomes(passed=1, failed=1)


def test_listed_skip_passes_and_says_why(run: pytest.Pytester) -> None:
    run.makefile(".txt", **{"allowed-skips": LISTED})
    run.makepyfile(test_it=TESTS)
    result = run.runpytest_subprocess()
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["slowest*", "* s  test_it.py::*", "skipped 1: no engine answers", "seed 1 *"]
    )


def test_listed_test_with_another_reason_fails(run: pytest.Pytester) -> None:
    run.makefile(".txt", **{"allowed-skips": LISTED})
    run.makepyfile(test_it="import pytest\n\ndef test_skips():\n    pytest.skip('tired')\n")
    run.runpytest_subprocess().assert_outcomes(failed=1)


def test_expected_failure_is_a_skip(run: pytest.Pytester) -> None:
    run.makepyfile(test_it="import pytest\n\n@pytest.mark.xfail\ndef test_it():\n    raise ValueError\n")
    run.runpytest_subprocess().assert_outcomes(failed=1)


def test_file_that_skips_itself_fails(run: pytest.Pytester) -> None:
    run.makepyfile(test_it="import pytest\n\npytest.importorskip('no_such_module')\n")
    result = run.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    assert result.ret != 0


def test_skip_passes_on_a_laptop_and_is_named(run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI")
    run.makepyfile(test_it=TESTS)
    result = run.runpytest_subprocess()
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["skipped 1: no engine answers (not in *"])


def test_seed_is_the_one_given(run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNKEYS_SEED", "4711")
    run.makepyfile(test_it="import os\n\ndef test_seed():\n    assert os.environ['RUNKEYS_SEED'] == '4711'\n")
    result = run.runpytest_subprocess("-n2")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["seed 4711 *"])


def test_long_tests_start_first(run: pytest.Pytester) -> None:
    run.makepyfile(
        test_it="import pytest\n\ndef test_short():\n    pass\n\n@pytest.mark.proof\ndef test_long():\n    pass\n"
    )
    result = run.runpytest_subprocess("-v")
    result.stdout.fnmatch_lines(["*test_long*", "*test_short*"])
