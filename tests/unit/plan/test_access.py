"""Who is admitted by a binding: default deny, OR across rules, AND inside one."""

from __future__ import annotations

from typing import Any

import pytest

from runkeys.access import Subject, denial, image_matches
from tests.unit.plan.objects import make_binding

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
