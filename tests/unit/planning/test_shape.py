"""A template may be any JSON: it is refused by the name of the field, and planning never raises."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from runkeys.api import WorkflowRun
from runkeys.planning import manifests
from runkeys.planning.readers import readers, shape_of
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import ANYWHERE, TaskRequirements, task_requirements
from testing.mutations import any_value, changed, places, rich_template
from tests.unit.planning.objects import bound_to, make_binding, make_run, task
from tests.unit.planning.world import World

PATH = "spec.tasks[0].template."
RUN = make_run(
    input={"a": {"b": [1]}},
    tasks=[
        task(
            template=rich_template(),
            input=[{"name": "a", "from": "input.a"}],
            env=[{"name": "E", "value": "f"}],
        )
    ],
).to_wire()
PLACES = [path for path in places(RUN) if path[0] != "status"]


def asked(document: dict[str, Any], delivery: str) -> TaskRequirements | tuple[Refusal, ...]:
    return task_requirements(WorkflowRun.parse(document), 0, bound_to(make_binding(delivery=delivery)))


def test_the_run_that_is_changed_below_is_a_good_one() -> None:
    assert isinstance(asked(RUN, "Secret"), TaskRequirements)
    assert isinstance(asked(RUN, "Sealed"), TaskRequirements)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("spec.volumes", True, "must be a list, found a boolean"),
        ("spec.volumes[0]", None, "must be an object, found null"),
        ("spec.volumes[1].projected.sources", 5, "must be a list, found a number"),
        ("spec.securityContext", "x", "must be an object, found a string"),
        ("spec.containers", {}, "must be a list, found an object"),
        ("spec.containers[0].volumeMounts", 5, "must be a list, found a number"),
        ("spec.containers[0].volumeMounts[0].mountPath", [], "must be a string, found a list"),
        ("spec.containers[0].env[0].name", ["A"], "must be a string, found a list"),
        ("spec.containers[0].env[0].value", 5, "must be a string, found a number; put it in quotes"),
        ("spec.containers[0].env[1].valueFrom", "x", "must be an object, found a string"),
        ("spec.initContainers[0].name", True, "must be a string, found a boolean; put it in quotes"),
        (
            "spec.terminationGracePeriodSeconds",
            0.5,
            "must be a whole number, found a number that is not whole",
        ),
        ("metadata.labels.a", 5, "must be a string, found a number; put it in quotes"),
        ("metadata.annotations", "x", "must be an object, found a string"),
        ("metadata", [], "must be an object, found a list"),
    ],
)
def test_the_refusal_names_the_field(field: str, value: Any, message: str) -> None:
    steps = [
        int(step) if step.isdigit() else step for step in field.replace("[", ".").replace("]", "").split(".")
    ]
    document = changed(RUN, ("spec", "tasks", 0, "template", *steps), value)

    found = asked(document, "Secret")

    assert isinstance(found, tuple)
    assert (found[0].field, found[0].message, found[0].reason) == (
        PATH + field,
        message,
        Reason.TEMPLATE_REFUSED,
    )


def test_a_null_is_an_absent_field() -> None:
    for field in ("volumes", "initContainers", "securityContext", "terminationGracePeriodSeconds"):
        path = ("spec", "tasks", 0, "template", "spec", field)
        document = changed(changed(RUN, path, None), ("spec", "tasks", 0, "template", "metadata"), None)

        assert isinstance(asked(document, "Secret"), TaskRequirements), field


def test_a_very_long_list_of_the_wrong_shape_gives_one_refusal() -> None:
    found = asked(
        changed(RUN, ("spec", "tasks", 0, "template", "spec", "volumes"), [None] * 100_000), "Secret"
    )

    assert isinstance(found, tuple)
    assert [item.field for item in found] == [PATH + "spec.volumes[0]"]


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(PLACES) - 1), st.integers()), min_size=1, max_size=3),
    st.sampled_from(["Secret", "Sealed"]),
)
def test_any_json_at_any_place_is_refused_or_planned(changes: list[tuple[int, int]], delivery: str) -> None:
    document = RUN
    for number, seed in changes:
        try:
            document = changed(document, PLACES[number], any_value(random.Random(seed)))
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has taken that place away
    try:
        run = WorkflowRun.parse(document)
    except ValidationError:
        return  # neither the API server nor the operator takes it
    bindings = bound_to(make_binding(delivery=delivery))
    for index in range(len(run.spec.tasks)):
        found = task_requirements(run, index, bindings)
        if isinstance(found, TaskRequirements):
            pod = manifests.job(run, index, 1, found, support=ANYWHERE)["spec"]["template"]["spec"]
            shape_of(pod)
            readers(pod)
        else:
            assert all(item.field and item.message for item in found)
    world = World(run=run, bindings=bindings)
    world.reconcile()
    if not world.jobs and run.metadata.deletion_timestamp is None and not run.status.finished:
        world.tick(60)
        world.reconcile()
        assert world.run.status.conditions or world.run.spec.suspend or world.requests, "it says nothing"
