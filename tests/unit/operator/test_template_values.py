"""Values of templates in the operator, of sealed parts: read once, bounded, and named when they cannot be had."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from runkeys import sealing
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import SecretReference, reference_to
from runkeys_operator.kube import Kube
from runkeys_operator.values.keys import Keys
from runkeys_operator.values.refused import SourceRefusedError
from runkeys_operator.values.sources import MAX_ATTEMPT_BYTES, Sources
from runkeys_operator.values.stores import Stores
from runkeys_operator.values.values import opened
from testing.namespace import canary
from tests.unit.planning.objects import make_binding

VALUE = canary()


class OpensAll:
    """In place of the cluster's keys: sealed text by its value, and what was opened."""

    def __init__(self, values: dict[str, bytes]) -> None:
        self.values, self.opened = values, list[str]()

    async def open(self, text: str, _: sealing.Context) -> bytes:
        self.opened.append(text)
        if text not in self.values:
            raise sealing.UnknownKeyError("there is no such key")
        return self.values[text]


def resolved(
    templates: dict[str, str], values: dict[str, bytes], **options: Any
) -> tuple[dict[str, bytes], list[str]]:
    """What a task gets that asks for all the templates, and which sealed texts were opened."""
    entries = [{"name": name, "sealed": f"rk1.{name}"} for name in ("a", "b")]
    entries += [{"name": name, "template": text} for name, text in templates.items()]
    binding = make_binding(secrets=entries)
    references = [
        reference_to(
            "team-a",
            binding,
            binding.spec.by_name[name],
            f"spec.tasks[0].secrets[{number}].secret",
            **options,
            file=name,
        )
        for number, name in enumerate(templates)
    ]
    keys = OpensAll({f"rk1.{name}": value for name, value in values.items()})
    kube = cast("Kube", None)  # sealed values need no request
    sources = Sources(kube, cast("Keys", keys), Stores(kube))
    found = asyncio.run(sources.resolve("team-a", cast("list[SecretReference]", references), None))
    return dict(opened(found)), keys.opened


def refusal(*arguments: Any, **options: Any) -> Refusal:
    with pytest.raises(SourceRefusedError) as error:
        resolved(*arguments, **options)
    assert VALUE not in str(error.value)
    context: BaseException | None = error.value
    while context is not None:  # a log of the exception shows these too
        assert VALUE not in repr(context) or context.__suppress_context__
        context = None if context.__suppress_context__ else context.__context__
    return error.value.refusal


def test_only_results_are_delivered_and_each_part_is_opened_once() -> None:
    found, calls = resolved(
        {"x": "{{ a }}-{{ b }}", "y": "{{ b | url }}{{ a }}{{ a }}"}, {"a": b"1", "b": b"/"}
    )
    assert found == {"file.x": b"1-/", "file.y": b"%2F11"}
    assert calls == ["rk1.a", "rk1.b"]


def test_a_result_of_any_bytes_is_for_a_file() -> None:
    assert resolved({"x": "{{ a }}{{ b | base64 }}"}, {"a": b"\xff", "b": b"\0"})[0] == {
        "file.x": b"\xffAA=="
    }


def test_json_of_bytes_names_the_part_and_what_to_do() -> None:
    found = refusal({"x": "{{ b }}{{ a | json }}"}, {"a": VALUE.encode() + b"\xff", "b": b""})
    assert (found.reason, found.permanent) == (Reason.VALUE_NOT_TEXT, False)
    assert "template of entry 'x' of SecretBinding keys: the value of 'a' is not text" in found.message
    assert "use | base64" in found.message


def test_a_result_that_is_too_long_is_refused() -> None:
    found = refusal({"x": "{{ a }}" * 500}, {"a": VALUE.encode() * 100})
    assert found.reason is Reason.VALUE_TOO_LARGE
    assert str(MAX_ATTEMPT_BYTES) in found.message


def test_a_part_that_does_not_open_is_named_with_its_template() -> None:
    found = refusal({"x": "{{ a }}{{ b }}"}, {"a": VALUE.encode()})
    assert found.reason is Reason.UNKNOWN_KEY
    assert "entry 'b' of SecretBinding keys" in found.message
    assert "(the template of entry 'x' needs it)" in found.message
