"""Models to structural schemas: what is kept, what is turned into CEL, what is refused."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from runkeys.api.common import ApiModel, cel, list_map
from runkeys.api.structural import Schema, SchemaError, structural_schema

FREE = {"x-kubernetes-preserve-unknown-fields": True}


class Key(ApiModel):
    """A key.

    Its second paragraph
    has two lines with ``code``.
    """

    model_config = ConfigDict(json_schema_extra=cel(("self.name != 'x'", "must not be x")))

    name: Annotated[str, Field(min_length=1, max_length=63)] = Field(description="Its name.")


def spec_field(annotation: Any, **field: Any) -> Schema:
    """Return the schema of ``spec.value`` of a model with that one field."""
    field.setdefault("description", "A value.")
    inner = type("Spec", (ApiModel,), {"__annotations__": {"value": annotation}, "value": Field(**field)})
    outer = type(
        "Root", (ApiModel,), {"__annotations__": {"spec": inner}, "spec": Field(description="Wanted.")}
    )
    assert issubclass(outer, BaseModel)
    schema = structural_schema(outer.model_json_schema())
    value: Schema = schema["properties"]["spec"]["properties"]["value"]
    return value


def rule(expression: str, message: str) -> Schema:
    return {"rule": expression, "message": message, "reason": "FieldValueForbidden"}


def test_a_plain_field_keeps_its_limits_default_and_description() -> None:
    assert spec_field(int, default=3, ge=1, le=5) == {
        "description": "A value.",
        "type": "integer",
        "default": 3,
        "minimum": 1,
        "maximum": 5,
    }
    assert spec_field(str, min_length=1, max_length=9) == {
        "description": "A value.",
        "type": "string",
        "minLength": 1,
        "maxLength": 9,
    }


def test_an_optional_field_is_its_type_without_null() -> None:
    assert spec_field(str | None, default=None, max_length=9) == {
        "description": "A value.",
        "type": "string",
        "maxLength": 9,
    }


@pytest.mark.parametrize("annotation", [Key, Key | None])
def test_a_reference_is_inlined_and_rules_of_model_and_field_both_hold(annotation: Any) -> None:
    schema = spec_field(
        annotation, default=None, json_schema_extra=cel(("self.name != 'y'", "must not be y"))
    )

    assert schema == {
        "description": "A value.",
        "type": "object",
        "properties": {
            "name": {"description": "Its name.", "type": "string", "minLength": 1, "maxLength": 63}
        },
        "required": ["name"],
        "x-kubernetes-validations": [
            rule("self.name != 'x'", "must not be x"),
            rule("self.name != 'y'", "must not be y"),
        ],
    }


def test_a_list_of_models_says_how_it_merges_and_describes_its_items() -> None:
    schema = spec_field(list[Key], max_length=4, json_schema_extra=list_map("name"))

    assert schema["maxItems"] == 4
    assert schema["x-kubernetes-list-type"] == "map"
    assert schema["x-kubernetes-list-map-keys"] == ["name"]
    assert schema["items"]["description"] == "A key.\n\nIts second paragraph has two lines with `code`."


def test_a_map_keeps_the_schema_and_number_of_its_values() -> None:
    assert spec_field(dict[str, Annotated[str, Field(max_length=63)]], max_length=8) == {
        "description": "A value.",
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": {"type": "string", "maxLength": 63},
    }


def test_free_content_stays_free_where_it_is_marked() -> None:
    assert spec_field(dict[str, Any], json_schema_extra=FREE) == {
        "description": "A value.",
        "type": "object",
        **FREE,
    }


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("annotation", "expression", "message"),
    [
        (Literal["a", "b"], "self in ['a', 'b']", "must be one of: a, b"),
        (Literal["a", "b"] | None, "self in ['a', 'b']", "must be one of: a, b"),
        (Literal["it's", "b\\c"], r"self in ['it\'s', 'b\\c']", r"must be one of: it's, b\c"),
        (Literal["only"], "self in ['only']", "must be only"),
        (Literal[1, 2], "self in [1, 2]", "must be one of: 1, 2"),
        (Literal[True], "self in [true]", "must be True"),
        (Colour, "self in ['red', 'blue']", "must be one of: red, blue"),
    ],
)
def test_a_choice_becomes_a_cel_rule_with_a_fixed_message(
    annotation: Any, expression: str, message: str
) -> None:
    schema = spec_field(annotation, default=None)

    assert schema["x-kubernetes-validations"] == [rule(expression, message)]
    assert not {"enum", "const"} & set(schema)


def test_a_choice_is_named_in_the_description_unless_it_is_there() -> None:
    assert spec_field(Literal["a1", "b1"])["description"] == "A value. One of: a1, b1."
    assert spec_field(Literal["a1", "b1"], description="a1 or b1.")["description"] == "a1 or b1."


def test_a_default_object_comes_without_nulls() -> None:
    class Status(ApiModel):
        """Found."""

        seen: int = Field(default=-1, description="Generation.")
        when: datetime | None = Field(default=None, description="Time.")

    class Root(ApiModel):
        """Root."""

        status: Status = Field(default=Status(), description="Found.")

    status = structural_schema(Root.model_json_schema())["properties"]["status"]

    assert status["default"] == {"seen": -1}
    assert status["properties"]["when"] == {"description": "Time.", "type": "string", "format": "date-time"}


class Loop(ApiModel):
    """A model in itself."""

    again: Loop | None = Field(default=None, description="Itself.")


@pytest.mark.parametrize(
    ("annotation", "field", "message"),
    [
        (str, {"pattern": "^a$"}, "spec.value has a pattern: .* CEL rule"),
        (str, {"min_length": 2}, "spec.value has a minLength over 1"),
        (datetime, {}, "spec.value has format date-time"),
        (int, {"gt": 0}, "spec.value uses exclusiveMinimum"),
        (tuple[int, str], {"max_length": 2}, "spec.value uses prefixItems"),
        (int | str, {}, "spec.value may be of several types"),
        (Any, {}, "spec.value has no type"),
        (dict[str, Any], {}, "spec.value takes any content"),
        (list[str], {}, r"spec.value is a list without a limit.*max_length"),
        (list[Annotated[str, Field(pattern="a")]], {"max_length": 1}, r"spec.value\[\] has a pattern"),
        (dict[str, str], {}, "spec.value is a map without a limit"),
        (str, {"description": ""}, "spec.value has no description"),
        (Loop, {}, "spec.value.again contains Loop within itself"),
        (
            str,
            {"json_schema_extra": {"x-kubernetes-validations": [{"rule": "a", "messageExpression": "self"}]}},
            "spec.value has a CEL rule of another shape",
        ),
        (str, {"json_schema_extra": {"x-kubernetes-nonsense": 1}}, "spec.value uses x-kubernetes-nonsense"),
    ],
)
def test_what_a_crd_cannot_or_must_not_say_is_an_error_that_names_the_field(
    annotation: Any, field: dict[str, Any], message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        spec_field(annotation, **field)
