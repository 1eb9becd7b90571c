"""JSON that others wrote, however deep or odd: a run that has it comes to an end, and says why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys._text import documents
from runkeys._text.documents import MAX_DEPTH, is_too_deep, shallow
from runkeys.api import WorkflowRun
from runkeys.planning.memory import Memory
from runkeys.planning.observation import Observation
from runkeys.planning.refusal import Reason
from runkeys.planning.status import State
from runkeys_operator.controllers.runs.record import Record
from tests.unit.planning.objects import bound_to, make_run, template
from tests.unit.planning.test_workflow import begun, plain, secret
from tests.unit.planning.world import World

DEEP = 9_000


def nested(levels: int, bottom: Any = 1) -> Any:
    """Objects and lists by turns."""
    found = bottom
    for level in range(levels):
        found = [found] if level % 2 else {"a": found}
    return found


def text(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    ("levels", "too_deep"), [(0, False), (1, False), (MAX_DEPTH, False), (MAX_DEPTH + 1, True), (DEEP, True)]
)
def test_what_is_too_deep_stays_so_when_it_is_cut(levels: int, too_deep: bool) -> None:
    document = nested(levels)
    assert is_too_deep(document) is too_deep
    assert is_too_deep(shallow(document)) is too_deep
    assert (shallow(document) is document) is not too_deep
    assert len(json.dumps(shallow(document))) <= 5 * (MAX_DEPTH + 2)


def test_of_an_answer_only_what_is_too_deep_is_left_out() -> None:
    odd = '"brackets ]}{[ in a string \\" and \\\\"'
    answer = f'{{"before":[{odd},{{"x":{text(DEEP)}}},{text(DEEP)}],{odd}:[[],{{}}],"after":1}}'
    found = documents.read(answer.encode())
    assert list(found) == ["before", json.loads(odd), "after"]
    assert (found["before"][0], found[json.loads(odd)], found["after"]) == (json.loads(odd), [[], {}], 1)
    assert is_too_deep(found["before"][1]["x"])
    assert is_too_deep(found["before"][2])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    )
)
def test_what_stands_beside_something_deep_is_read_as_it_is(document: Any) -> None:
    beside = json.dumps(document)
    assert documents.read(f"[{beside},{text(DEEP)},{beside}]")[::2] == [document, document]


@pytest.mark.parametrize(
    "broken", ["[" * DEEP, '{"a":' * DEEP, text(DEEP)[:-1], f"[{text(DEEP)}", '["' * DEEP]
)
def test_a_text_that_is_no_json_is_said_to_be_none(broken: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        documents.read(broken)


# runs


def deep_run(**spec: Any) -> WorkflowRun:
    """As it is read: from text, since nothing here could write it."""
    raw = make_run(**spec).model_dump(mode="json", by_alias=True, exclude_none=True)
    marked = json.dumps(raw).replace('"DEEP"', text(5_000))
    return WorkflowRun.parse(documents.read(marked))


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"input": {"x": "DEEP"}}, "spec.input", Reason.INVALID),
        (
            {"tasks": [plain("a"), secret("b", template=template(affinity="DEEP"))]},
            "spec.tasks[1].template",
            Reason.TEMPLATE_REFUSED,
        ),
    ],
)
def test_a_run_that_is_too_deep_fails_and_gives_up_its_sealed_input(
    spec: dict[str, Any], field: str, reason: str
) -> None:
    asks = secret("z", secrets=[{"name": "x", "input": "x"}])
    spec = {"tasks": [plain("a")], **spec}
    spec["tasks"] = [*spec["tasks"], asks]
    world = World(run=deep_run(sealedInput={"x": "rk1.x"}, requester={"username": "alice"}, **spec))
    world.reconcile()
    assert world.run.status.phase == State.FAILED
    failed = [item for item in world.run.status.tasks if item.state == State.FAILED]
    assert {item.reason for item in failed} == {reason}
    assert f"{field}: is nested more than {MAX_DEPTH} levels deep" in failed[0].message
    assert not world.run.spec.sealed_input
    assert not world.jobs


def test_a_run_that_is_too_deep_is_kept_between_two_passes() -> None:
    run = deep_run(input={"x": "DEEP"}, tasks=[secret("a", template=template(affinity="DEEP"))])
    record = Record(Observation(run, bound_to(), {}, (), Memory()))
    record.pack()
    assert record.observation().run.spec.input_is_too_deep


def test_as_deep_as_may_be_is_handed_on_as_it_is() -> None:
    given_input = {"x": nested(MAX_DEPTH - 1)}
    handed = [{"name": "p", "from": "input.x"}, {"name": "q", "from": "tasks.a.output"}]
    world = begun(plain("a", recordOutput=True), plain("b", "a", input=handed), input=given_input)
    world.outputs["a"] = text(MAX_DEPTH)
    world.complete("a")
    world.crash()
    world.complete("b")
    assert world.run.status.phase == State.SUCCEEDED
    assert world.run.status.tasks[0].output == json.loads(text(MAX_DEPTH))


# outputs


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (text(MAX_DEPTH + 1), f"is nested more than {MAX_DEPTH} levels deep"),
        (text(300), f"is nested more than {MAX_DEPTH} levels deep"),
        ("[" * 4000, f"is nested more than {MAX_DEPTH} levels deep"),
        ("[NaN]", "holds NaN, which is not JSON"),
        ("-Infinity", "holds -Infinity, which is not JSON"),
        ("1e999", "holds a number that is too large"),
        ("9" * 4000, "holds a number that is too large"),
        (
            str(2**63),
            "holds a whole number of more than 64 bits, which the API server rounds; write it as a string",
        ),
        (
            str(-(2**63) - 1),
            "holds a whole number of more than 64 bits, which the API server rounds; write it as a string",
        ),
        ('"\\ud800"', "holds half of a character"),
        ("{", "is not JSON"),
    ],
)
def test_an_output_that_no_status_can_hold_fails_the_task(written: str, told: str) -> None:
    world = begun(plain("a", recordOutput=True))
    world.outputs["a"] = written
    world.complete("a")
    task = world.run.status.tasks[0]
    assert (world.run.status.phase, task.reason) == (State.FAILED, Reason.OUTPUT_INVALID)
    assert told in task.message
