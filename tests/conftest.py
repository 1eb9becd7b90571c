"""What every test run shows at its end, and what it refuses.

- A skip that `tests/allowed-skips.txt` does not list fails the run in CI: a test that quietly stops
  running proves nothing.
- Long proofs run a sample; its seed is printed and `RUNKEYS_SEED` runs the same sample again.
- Long tests start first, so that the short ones fill the gaps between the workers.
"""

from __future__ import annotations

import os
import random
import re
import signal
from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).parent
IN_CI = os.environ.get("CI", "").lower() not in {"", "0", "false"}
SLOWEST = 10
pytest_plugins = ["pytester"]
HAS_FAILED = pytest.StashKey[bool]()
"""Whether the set-up or the call of a test has failed, for fixtures that end after it."""

# No deadline: machines are noisy, and a slow example is no wrong one.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("full", deadline=None, max_examples=5_000, print_blob=True)
FULL = os.environ.get("RUNKEYS_PROOF") == "full"
settings.load_profile("full" if FULL else "ci" if IN_CI else "local")


def pytest_configure() -> None:
    """Choose the seed, and take interrupts, before any worker process starts, so that all of them have the same."""
    # What a shell starts in the background ignores interrupts, and so would every command that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # CI takes the same sample each time, so that a change fails for what it changed.
    os.environ.setdefault("RUNKEYS_SEED", "1" if IN_CI else str(random.SystemRandom().randrange(1_000_000)))


def pytest_report_header() -> str:
    """Name the seed at the top too: a run that hangs never gets to its end."""
    return f"seed: {os.environ['RUNKEYS_SEED']}, proofs: {'full' if FULL else 'samples'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a cluster, and put the long tests first."""
    for item in items:
        if item.path.is_relative_to(HERE / "e2e"):
            item.add_marker(pytest.mark.e2e)
    items.sort(
        key=lambda item: (item.get_closest_marker("proof") is None, item.get_closest_marker("e2e") is None)
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip or an expected failure that nobody reviewed into a failure, and let fixtures know of failures."""
    report = yield
    _refuse_unlisted(report)
    item.stash[HAS_FAILED] = report.failed or item.stash.get(HAS_FAILED, False)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file that skips itself while it is read."""
    report = yield
    _refuse_unlisted(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the slowest tests, the skips with their reasons, and the seed; pytest's own line follows."""
    write = terminalreporter.write_line
    seconds: defaultdict[str, float] = defaultdict(float)
    for report in (r for reports in terminalreporter.stats.values() for r in reports):
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid] += report.duration
    if seconds:
        write("slowest, with set-up and clean-up:")
        for nodeid, took in sorted(seconds.items(), key=lambda entry: -entry[1])[:SLOWEST]:
            write(f"  {took:7.2f} s  {nodeid}")

    skips = [r for kind in ("skipped", "xfailed") for r in terminalreporter.stats.get(kind, [])]
    for (reason, listed), count in sorted(Counter((_reason(r), _is_allowed(r)) for r in skips).items()):
        write(
            f"skipped {count}: {reason}"
            + ("" if listed else " (not in tests/allowed-skips.txt: fails in CI)")
        )
    write(f"seed {os.environ['RUNKEYS_SEED']} (RUNKEYS_SEED runs the same samples again)")


def _refuse_unlisted(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not (IN_CI and report.skipped) or _is_allowed(report):
        return
    reason = _reason(report)
    report.outcome = "failed"
    report.longrepr = f"skipped: {reason}\nCI fails on a skip that tests/allowed-skips.txt does not list."
    if hasattr(report, "wasxfail"):
        del report.wasxfail


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if hasattr(report, "wasxfail"):
        return f"expected to fail: {report.wasxfail}".removesuffix(": ")
    # pytest gives a skip as (file, line, "Skipped: why").
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _is_allowed(report: pytest.TestReport | pytest.CollectReport) -> bool:
    return any(
        pattern.fullmatch(report.nodeid) and reason in _reason(report) for pattern, reason in _allowed_skips()
    )


def _allowed_skips() -> list[tuple[re.Pattern[str], str]]:
    allowed = []
    for line in (HERE / "allowed-skips.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            glob, reason = re.split(r"\s{2,}", line.strip(), maxsplit=1)
            # Only `*` is special: the brackets of a parametrised test's name are meant as they are.
            allowed.append((re.compile(re.escape(glob).replace(r"\*", ".*")), reason))
    return allowed
