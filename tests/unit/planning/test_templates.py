"""Entries that are made of others: what they resolve to, and what is refused with the field and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys import sealing
from runkeys.api import SecretBinding, SecretKeySelector
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import (
    SealedValue,
    SecretReference,
    StoreValue,
    TaskRequirements,
    TemplateValue,
    read_by,
    reference_to,
    task_requirements,
)
from tests.unit.planning.objects import bound_to, make_binding, make_run, task

USER = {"name": "db-user", "secretKeyRef": {"name": "db", "key": "user"}}
PASSWORD = {"name": "db-password", "sealed": "rk1.x"}


def binding(template: str, *others: dict[str, Any], **spec: Any) -> SecretBinding:
    return make_binding(secrets=[USER, PASSWORD, {"name": "url", "template": template}, *others], **spec)


def resolved(template: str, *others: dict[str, Any]) -> SecretReference | Refusal:
    found = binding(template, *others)
    return reference_to(
        "team-a", found, found.spec.by_name["url"], "spec.tasks[0].secrets[0].secret", variable="URL"
    )


def test_a_template_is_read_from_the_sources_of_its_parts() -> None:
    found = resolved("pg://{{ db-user }}:{{ db-password | url }}@db/{{ db-user }}")
    assert isinstance(found, SecretReference)
    assert isinstance(found.source, TemplateValue)
    assert [part.entry for part in found.source.parts] == ["db-user", "db-password"], "each once"
    assert [part.source for part in found.source.parts] == [
        SecretKeySelector(name="db", key="user"),
        SealedValue("rk1.x", sealing.BindingEntry("team-a", "keys", "db-password")),
    ]


def test_only_what_is_asked_for_is_delivered() -> None:
    run = make_run(tasks=[task(secrets=[{"name": "url", "secret": "url"}])])
    found = task_requirements(run, 0, bound_to(binding("{{ db-user }}:{{ db-password }}", delivery="Sealed")))
    assert isinstance(found, TaskRequirements)
    assert [item.key for item in found.references] == ["SECRET_URL"]
    assert found.references[0].sealed
    assert [item.entry for item in read_by(found.references)] == ["db-user", "db-password"]


STORED = {"store": "bao", "role": "team-a", "path": "kv/data/team-a/api", "field": "token"}


def test_parts_in_a_store_are_read_there() -> None:
    found = resolved("{{ api }}:{{ db-user }}", {"name": "api", "value": STORED})
    assert isinstance(found, SecretReference)
    assert [item.source for item in read_by([found])] == [
        StoreValue("bao", "team-a", "kv/data/team-a/api", "token"),
        SecretKeySelector(name="db", key="user"),
    ]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ db-usr }}", "it refers to 'db-usr', and the binding has no such entry"),
        ("{{ url }}", "it refers to itself"),
        (
            "{{ other }}",
            "it refers to 'other', which is a template too; write its text in place of {{ other }}",
        ),
        ("{{ db-user | toJson }}", "write | json"),
        ("{{ db-user", "has no }}"),
    ],
)
def test_what_is_wrong_names_the_field_and_what_to_do(template: str, said: str) -> None:
    found = resolved(template, {"name": "other", "template": "{{ url }}"})
    assert isinstance(found, Refusal)
    assert (found.reason, found.permanent) == (Reason.BINDING_INVALID, False)
    assert found.field == "spec.tasks[0].secrets[0].secret"
    assert "SecretBinding keys, spec.secrets[2].template, entry 'url': " in found.message
    assert said in found.message


def test_a_wrong_template_keeps_only_those_who_ask_for_it() -> None:
    found = bound_to(binding("{{ nothing }}"))
    assert isinstance(
        task_requirements(make_run(tasks=[task(secrets=[{"name": "a", "secret": "db-user"}])]), 0, found),
        TaskRequirements,
    )
    refused = task_requirements(make_run(tasks=[task(secrets=[{"name": "a", "secret": "url"}])]), 0, found)
    assert isinstance(refused, tuple)
    assert refused[0].reason is Reason.BINDING_INVALID


@given(st.lists(st.text('{} |:"aurl-.', max_size=20), min_size=1, max_size=6))
def test_any_templates_refer_to_sources_or_are_refused(texts: list[str]) -> None:
    """However they refer to each other, there is no cycle, and no template in a template."""
    names = ["a", "u", "r", "l", "a-u", "a.u"]
    made = [
        {"name": name, "template": f"{text}{{{{ db-user }}}}"}
        for name, text in zip(names, texts, strict=False)
    ]
    found = make_binding(secrets=[USER, *made])
    for entry in found.spec.secrets:
        reference = reference_to("team-a", found, entry, "f")
        if isinstance(reference, SecretReference):
            assert all(not isinstance(item.source, TemplateValue) for item in read_by([reference]))
