"""``$secrets`` of an input, and the mapping of a task."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys.mapping import (
    add_mapping,
    check_mapping,
    parse_mapping,
    seal_secrets,
    split_secrets,
    task_secrets,
    unused_fields,
)
from runkeys.problems import Invalid
from runkeys.sealing import Keyring, PrivateKey, RunInput, SealError
from testing.namespace import canary


def test_row_15_the_secrets_are_split_off_and_the_document_stays_as_it_was() -> None:
    document = {"circuit": {"qubits": [5]}, "$secrets": {"k": "v"}}
    before = copy.deepcopy(document)
    rest, secrets = split_secrets(document)
    assert rest == {"circuit": {"qubits": [5]}}
    assert secrets == {"k": "v"}
    rest["circuit"]["qubits"].append(6)
    secrets["more"] = "x"
    assert document == before
    assert split_secrets({"a": 1}) == ({"a": 1}, {})


def test_row_16_the_mapping_of_the_documents_is_read() -> None:
    mapping = parse_mapping('{ "ibm_token": secret_value("ibm_api_token") }')
    assert mapping == {"ibm_token": "ibm_api_token"}
    assert task_secrets(mapping) == [{"name": "ibm_token", "input": "ibm_api_token"}]


def test_row_16_white_space_several_entries_and_escapes() -> None:
    assert parse_mapping("{}") == {}
    assert parse_mapping(' {\n"a":secret_value("x"),\t"b" : secret_value ( "y" )\r\n} ') == {
        "a": "x",
        "b": "y",
    }
    assert parse_mapping(r'{"\u00fc\"": secret_value("my secret?")}') == {'ü"': "my secret?"}


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), max_size=4))
def test_row_16_whatever_json_can_write_is_read_back(mapping: dict[str, str]) -> None:
    pairs = ", ".join(
        f"{json.dumps(name)}: secret_value({json.dumps(field)})" for name, field in mapping.items()
    )
    assert parse_mapping(f"{{ {pairs} }}") == mapping


def test_row_17_what_is_sealed_opens_for_that_user_and_place_only() -> None:
    keys = Keyring(PrivateKey.generate())
    value = canary()
    sealed = seal_secrets({"ibm_api_token": value}, "team-a", "alice", keys.public)
    assert value not in json.dumps(sealed)
    assert keys.open(sealed["ibm_api_token"], RunInput("team-a", "alice", "ibm_api_token")) == value.encode()
    for other in (
        RunInput("team-b", "alice", "ibm_api_token"),
        RunInput("team-a", "bob", "ibm_api_token"),
        RunInput("team-a", "alice", "other"),
    ):
        with pytest.raises(SealError):
            keys.open(sealed["ibm_api_token"], other)


def test_row_19_a_field_that_was_not_given_is_refused() -> None:
    with pytest.raises(
        Invalid, match=r"task fit, secret 'ibm_token': .* no field 'absent'; it has: ibm_api_token"
    ):
        check_mapping({"ibm_token": "absent"}, ["ibm_api_token"], "fit")
    check_mapping({"ibm_token": "ibm_api_token"}, ["ibm_api_token"], "fit")


LITERAL = "canary-of-the-mapping"  # the same in each worker, as it is part of the names of tests


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"a"}',
        '{"a": }',
        f'{{"a": "{LITERAL}"}}',
        f'{{"a": {LITERAL}}}',
        f'{{"a": secret_value({LITERAL})}}',
        '{"a": secret_value("x".y)}',
        '{"a": secret_value("x"}',
        '{"a": secret_value("x") "b": secret_value("y")}',
        '{"a": secret_value("x"),}',
        '{"a": secret_value("x")} more',
        '{"a": secret_value("")}',
        '{"": secret_value("x")}',
        '{"a": secret_value("x"), "a": secret_value("y")}',
        "{'a': secret_value('x')}",
        '{"a": Secret_Value("x")}',
        '{"a\n": secret_value("x")}',
        '{"\\ud8": secret_value("x")}',
    ],
)
def test_row_19_anything_else_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_mapping(text, "fit")
    message = str(caught.value)
    assert "task fit" in message
    assert "secret_value(" in message
    assert LITERAL not in message


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"$secrets": {"k": 42}}, r"\$secrets.k: must be a string, not a number"),
        ({"$secrets": {"k": None}}, "not null"),
        ({"$secrets": {"k": {"a": LITERAL}}}, "not an object"),
        ({"$secrets": [LITERAL]}, "must be an object of strings.*not a list"),
        ({"$secrets": LITERAL}, "must be an object of strings"),
        ({"$secrets": {"": LITERAL}}, "empty"),
        ({"task": {"$secrets": {"k": LITERAL}}}, r"^task: \$secrets is allowed only at the top"),
        ({"tasks": [{"in": {"$secrets": {}}}]}, r"^tasks.0.in: "),
    ],
)
def test_row_19_secrets_of_another_shape_or_place_are_refused(document: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        split_secrets(document)
    assert LITERAL not in str(caught.value)


def test_row_19_a_value_that_cannot_be_sealed_is_named_and_not_shown() -> None:
    key = PrivateKey.generate().public
    for value in ("x" * 600_000, "\ud800"):
        with pytest.raises(Invalid, match=r"\$secrets.big: ") as caught:
            seal_secrets({"big": value}, "team-a", "alice", key)
        assert len(str(caught.value)) < 300


def manifest(*tasks: str, **spec: Any) -> dict[str, Any]:
    return {
        "spec": {"input": {"$secrets": {"x": LITERAL}}, "tasks": [{"name": name} for name in tasks], **spec}
    }


def test_row_16_a_mapping_is_written_into_its_task() -> None:
    one = manifest("fit")
    add_mapping(one, '{ "a": secret_value("x") }')
    assert one["spec"]["tasks"] == [{"name": "fit", "secrets": [{"name": "a", "input": "x"}]}]
    two = manifest("fit", "plot", sealedInput={"y": "rk1"})
    add_mapping(two, 'plot={"b=c": secret_value("y")}')
    assert two["spec"]["tasks"] == [
        {"name": "fit"},
        {"name": "plot", "secrets": [{"name": "b=c", "input": "y"}]},
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": secret_value("x")}', "needs the name of its task in front, .*the tasks are: fit, plot"),
        ('other={"a": secret_value("x")}', "task 'other', but the tasks are: fit, plot"),
        ('fit={"a": secret_value("absent")}', "task fit, secret 'a': .* no field 'absent'; it has: x"),
        (f'fit={{"a": "{LITERAL}"}}', "task fit, character 7: after 'a' comes secret_value"),
    ],
)
def test_row_19_a_mapping_that_is_for_nothing_there_is_refused(text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        add_mapping(manifest("fit", "plot"), text)
    assert LITERAL not in str(caught.value)


def test_row_20_fields_that_no_task_gets_are_found() -> None:
    assert unused_fields([{"a": "x"}, {"b": "y"}], ["x", "y", "left", "over"]) == ["left", "over"]
