"""One line a record, nothing in it that was not meant to be."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from runkeys_operator.errors import Forbidden
from runkeys_operator.process import logs


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    root, others = logging.getLogger(), [logging.getLogger(name) for name in ("kopf", "aiohttp", "asyncio")]
    before = (root.handlers[:], root.level, [other.level for other in others])
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    for other, level in zip(others, before[2], strict=True):
        other.setLevel(level)


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    log = logs.get_logger("runkeys_operator.controllers.runs.executor", run="team-a/vqe", task=None)
    log.info("made %s", "it", extra={"attempt": 2, "reason": None, "password": "hidden"})
    time, line = capsys.readouterr().err.split(" ", 1)
    assert time.endswith("Z")
    assert line == "INFO    controllers.runs.executor  made it  run=team-a/vqe attempt=2\n"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logs.get_logger("x").bind(run=("a", "b")).warning("one\ntwo", extra={"reason": "Late"})
    entry = json.loads(capsys.readouterr().err)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "x",
        "message": "one\ntwo",
        "run": ["a", "b"],
        "reason": "Late",
    }


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_exception_is_one_line_without_its_text(capsys: pytest.CaptureFixture[str], style: str) -> None:
    logs.configure("info", "json" if style == "json" else "text")
    try:
        int("canary")
    except ValueError:
        logging.getLogger("kopf").exception("broke")
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "broke: ValueError in test_an_exception_is_one_line_without_its_text" in text
    assert "canary" not in text


def test_an_exception_of_ours_speaks_for_itself() -> None:
    assert logs.describe(Forbidden(403, "Forbidden", "by quota")) == "403 Forbidden: by quota"
    assert logs.describe(KeyError("canary")) == "KeyError"


@pytest.mark.parametrize(("level", "shown"), [("info", False), ("debug", True)])
def test_others_are_quiet_unless_one_debugs(
    capsys: pytest.CaptureFixture[str], level: str, shown: bool
) -> None:
    logs.configure(level, "text")
    logging.getLogger("kopf.objects").info("chatter")
    logging.getLogger("kopf.objects").warning("trouble")
    text = capsys.readouterr().err
    assert ("chatter" in text) is shown
    assert "trouble" in text
