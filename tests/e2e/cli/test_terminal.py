"""What a terminal is sent: names are chosen by others, and logs written by programs of others."""

from __future__ import annotations

import re

import pytest

from testing.namespace import Team, python
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e


def test_a_terminal_shows_what_names_and_logs_hold_and_does_not_obey(team: Team, alice: Terminal) -> None:
    escape = "\x1b]0;gone\x07\x1b[2J\u202e"
    shown = "\\u001b]0;gone\\u0007\\u001b[2J\\u202e"
    asked = [{"name": f"a{escape}", "secret": "token", "env": "API_TOKEN"}]
    team.make_run(task={"secrets": asked}, command=python(f"print({escape!r} + '\\x1b[31mred\\x1b[0m')"))
    missing = [{"name": "b", "secret": f"t{escape}\nReleased: yes"}]
    team.make_run("stuck", task={"secrets": missing})
    team.wait_phase("job", "Succeeded")
    team.wait_condition("stuck", "Stalled", reason="SecretNotFound")

    commands: dict[tuple[str, ...], str] = {
        ("status", "job"): f"a{shown}",
        ("status", "stuck"): "Released: yes",
        ("status", "job", "-o", "json"): f"a{shown}",
        ("status", "job", "-o", "yaml"): "u202e",
        ("logs", "job"): f"{shown}\x1b[31mred\x1b[0m",
    }
    for words, part in commands.items():
        on_screen = alice.typed(*words, answers={})
        assert on_screen.code == 0, on_screen
        assert part in on_screen.out, on_screen
        colours = re.sub(r"\x1b\[[0-9;]*m", "", on_screen.out)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", colours), on_screen
        assert "Released: yes" not in on_screen.out.replace(f"{shown}\\u000aReleased: yes", "").splitlines()
