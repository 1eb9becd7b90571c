"""Who is admitted by a binding: default deny, OR across rules, AND inside one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys.planning.access import MAX_IMAGE, MAX_PATTERNS, Subject, _compiled, denial, image_matches
from tests.unit.planning.objects import make_binding

SUBJECT = Subject(
    {"app": "vqe", "team": "a"}, "runner", ["ghcr.io/acme/app:1", "ghcr.io/acme/init:2"], "alice"
)


@pytest.mark.parametrize(
    ("access", "admitted"),
    [
        ([], False),
        ([{"runSelector": {}}], True),
        ([{"runSelector": {"matchLabels": {"app": "vqe"}}}], True),
        ([{"runSelector": {"matchLabels": {"app": "other"}}}], False),
        (
            [{"runSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["vqe"]}]}}],
            True,
        ),
        ([{"runSelector": {"matchExpressions": [{"key": "x", "operator": "Exists"}]}}], False),
        ([{"runSelector": {"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}}], True),
        ([{"runSelector": {"matchExpressions": [{"key": "app", "operator": "Like"}]}}], False),
        ([{"serviceAccountNames": ["runner"]}], True),
        ([{"serviceAccountNames": ["default"]}], False),
        ([{"images": ["ghcr.io/acme/*"]}], True),
        ([{"images": ["ghcr.io/acme/app:*"]}], False),
        ([{"images": ["ghcr.io/acme/app:*", "ghcr.io/acme/init:2"]}], True),
        ([{"serviceAccountNames": ["runner"], "images": ["other/*"]}], False),
        ([{"serviceAccountNames": ["default"]}, {"images": ["ghcr.io/**"]}], True),
    ],
)
def test_access(access: list[dict[str, Any]], admitted: bool) -> None:
    reason = denial(make_binding(access=access), SUBJECT)
    assert (reason is None) == admitted
    if reason is not None:
        assert "keys" in reason, "the message names the binding"


@pytest.mark.parametrize(
    ("pattern", "image", "matches"),
    [
        ("ghcr.io/acme/*", "ghcr.io/acme/app:1", True),
        ("ghcr.io/acme/*", "ghcr.io/acme/team/app:1", False),
        ("ghcr.io/acme/**", "ghcr.io/acme/team/app:1", True),
        ("ghcr.io/*/app:1", "ghcr.io/acme/app:1", True),
        ("ghcr.io/acme/app:1", "ghcr.io/acme/app:10", False),
        ("ghcr.io/acme/app.1", "ghcr.io/acme/appx1", False),
        ("ghcr.io/acme/*", "evil.io/ghcr.io/acme/app", False),
        ("a/b@sha256:0f", "a/b@sha256:0f", True),
        ("a/*@sha256:0f", "a/b@sha256:0f", False),
        ("a/*", "a/b@sha256:0f", True),
    ],
)
def test_image_patterns(pattern: str, image: str, matches: bool) -> None:
    assert image_matches(pattern, image) is matches


@given(st.text("a/*.", max_size=8), st.text("a/.", max_size=8))
def test_a_pattern_means_what_the_expression_of_it_means(pattern: str, image: str) -> None:
    parts = [part if part.startswith("*") else re.escape(part) for part in re.split(r"(\*+)", pattern)]
    expression = "".join({"*": "[^/]*"}.get(part, ".*") if part.startswith("*") else part for part in parts)
    assert image_matches(pattern, image) is (re.fullmatch(expression, image) is not None)


@given(
    st.lists(st.lists(st.text("ab/*", min_size=1, max_size=5), max_size=3), max_size=3),
    st.text("ab/", max_size=5),
)
def test_all_patterns_at_once_are_each_by_itself(rules: list[list[str]], image: str) -> None:
    found = _compiled(tuple(tuple(patterns) for patterns in rules)).rules_for(image)
    each = (any(image_matches(pattern, image) for pattern in patterns) for patterns in rules)
    assert found == {index for index, matches in enumerate(each) if matches}


class Counted(str):
    """An image that counts how often one of its characters is looked at."""

    __slots__ = ("looks",)

    def __iter__(self) -> Iterator[str]:
        self.looks = 0
        for character in str.__iter__(self):
            self.looks += 1
            yield character


@pytest.mark.parametrize("pattern", ["*a" * 6 + "b", "*a" * 255, "**a" * 170, "*" * 512])
def test_each_character_of_an_image_is_looked_at_once(pattern: str) -> None:
    image = Counted("a" * MAX_IMAGE)
    assert image_matches(pattern, image) is pattern.endswith(("a", "*"))
    assert image.looks == MAX_IMAGE


def test_what_is_longer_than_any_image_matches_nothing() -> None:
    assert image_matches("**", "a" * MAX_IMAGE)
    assert not image_matches("**", "a" * (MAX_IMAGE + 1))


def test_too_many_patterns_admit_nobody_and_it_is_said() -> None:
    patterns = [f"ghcr.io/acme/app-{number:03}/{'x' * 480}" for number in range(40)]
    reason = denial(make_binding(access=[{"images": [*patterns, "**"]}]), SUBJECT)
    assert reason is not None
    assert f"more than {MAX_PATTERNS} characters in total" in reason
