"""Commands in messages are whole words of a shell, and what is printed does nothing to a terminal: everywhere."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys._text.words import kubectl, line, log_line, shell, visible
from runkeys.cli import COMMANDS
from runkeys.planning.access import grant, subject_of

OPERATOR = Path(__file__).resolve().parents[2] / "operator"
HOSTILE = "x'; touch pwned; echo '$(id)`id`\\"


@given(st.lists(st.text(), min_size=1))
def test_a_command_has_the_words_that_it_was_made_of(words: list[str]) -> None:
    assert shlex.split(shell(*words)) == words
    assert shlex.split(kubectl("here", *words)) == ["kubectl", "-n", "here", *words]


@pytest.mark.parametrize("name", [HOSTILE, "a b", "$(touch pwned)", "\n touch pwned\n", '"', "keys"])
def test_the_command_that_allows_something_runs_nothing_else(name: str, tmp_path: Path) -> None:
    """With a kubectl that writes down what it is called with."""
    program = tmp_path / "kubectl"
    program.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done > "$CALLS/$$"\n')
    program.chmod(0o755)
    command = grant("use", "team-a", name, subject_of(HOSTILE))
    calls = tmp_path / "calls"
    calls.mkdir()
    subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "CALLS": str(calls)},
        check=True,
    )
    called = [path.read_text().split("\0")[:-1] for path in calls.iterdir()]
    assert ["-n", "team-a", "apply", "-f", "-"] in called
    created = next(call for call in called if "create" in call)
    assert created[2:6] == ["create", "rolebinding", f"use-{name}", f"--role=use-{name}"]
    assert f"--user={HOSTILE}" in created
    assert not (tmp_path / "pwned").exists()


def test_every_command_in_a_message_is_made_in_one_place() -> None:
    """No f-string puts something into the middle of a command."""
    found = [f"{path}:{number}: {text}" for path, number, text in commands_with_parts()]

    assert found == [], "make these with runkeys._text.words"


MADE = {"shell", "kubectl", "grant", "granted", "bound_to_role", "subject_of", "_grant"}
"""What gives a command, or the rest of one; and what stands in capitals is a text of ours."""


def commands_with_parts() -> Iterator[tuple[str, int, str]]:
    for path in sorted(OPERATOR.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.JoinedStr):
                continue
            inside = False
            for part in node.values:
                if isinstance(part, ast.Constant):
                    inside = inside or _begins(str(part.value))
                elif inside and isinstance(part, ast.FormattedValue) and not _is_made(part.value):
                    yield str(path.relative_to(OPERATOR)), part.lineno, ast.unparse(part.value)


BEGINS = re.compile(
    rf"\b(kubectl [-a-z]|helm (upgrade|install)\b|runkeys (-|({'|'.join(COMMANDS)})\b)|python -m )"
)
ENDS = re.compile(r"[`;)]|, (?=[a-z])|: ")


def _begins(text: str) -> bool:
    """Whether a command begins in the text and is not over at its end."""
    begun = [found.end() for found in BEGINS.finditer(text)]
    return bool(begun) and ENDS.search(text, begun[-1]) is None


def _is_made(node: ast.expr) -> bool:
    if isinstance(node, ast.Await):
        node = node.value
    if isinstance(node, ast.Name):
        return node.id.strip("_").isupper()
    if not isinstance(node, ast.Call):
        return False
    return (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in MADE


HABITS = re.compile(
    r"\b(whoever|of which|goes on|go on|(is|are) over|not over|anew|mend|(is|was|were) told|are ours|brought along"
    r"|(was|is|be|were|are) made(?! of)|makes? (a new|no|only)"
    r"|(?<!there )is no (text|YAML|JSON|TOML|folder)|on record)\b"
)
"""Phrases that do not read well aloud, where Kubernetes has a plain word: created, deleted, finished, retried."""


def test_messages_are_in_plain_words() -> None:
    found = [f"{place}: {match[0]!r}" for place, text in texts() for match in HABITS.finditer(text)]

    assert found == [], "say it in Kubernetes' own words"


@pytest.mark.parametrize(
    "text", ["whoever administers it can allow it", "the run goes on", "run x is over", "make a new run"]
)
def test_a_phrase_that_does_not_read_well_is_found(text: str) -> None:
    assert HABITS.search(text)


def texts() -> Iterator[tuple[str, str]]:
    """Texts of the code that people may read, with the place of each: all but docstrings and single words."""
    for path in sorted(OPERATOR.rglob("*.py")):
        tree = ast.parse(path.read_text())
        skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
                skipped |= {id(part) for part in node.values}
                yield f"{path.relative_to(OPERATOR)}:{node.lineno}", "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
                yield f"{path.relative_to(OPERATOR)}:{node.lineno}", node.value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("é 漢 🔑", "é 漢 🔑"),
        ("\x1b[2J\x1b]0;title\x07", "\\u001b[2J\\u001b]0;title\\u0007"),
        ("a\rb\x08\x7f\x9b", "a\\u000db\\u0008\\u007f\\u009b"),
        ("abc\u202edef\u2066\u200b", "abc\\u202edef\\u2066\\u200b"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert line(text).isprintable() or not re.search(
        r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", line(text)
    )


@given(st.dictionaries(st.text(), st.text(), max_size=3))
def test_json_still_says_the_same(data: dict[str, str]) -> None:
    text = json.dumps(data, indent=2, ensure_ascii=False)

    assert json.loads(visible(text)) == data


def test_one_line_stays_one_line() -> None:
    assert line("ok\nReleased: yes\tx") == "ok\\u000aReleased: yes\\u0009x"


def test_a_log_keeps_its_colours_and_nothing_else() -> None:
    assert log_line("\x1b[1;31mred\x1b[0m\x1b[2J\x1b]52;c;eA==\x07\r\n") == (
        "\x1b[1;31mred\x1b[0m\\u001b[2J\\u001b]52;c;eA==\\u0007"
    )
