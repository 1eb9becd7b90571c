"""What a later version has written can be read: in an upgrade two versions share what is stored."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from runkeys.api import SecretBinding, SecretReveal, SecretStore, WorkflowRun
from runkeys.kv import _parsed
from runkeys.planning.plan import plan
from runkeys.planning.status import Outcome, State
from runkeys_operator.checks.admission import Record
from tests.unit.api.test_status_limits import models
from tests.unit.planning.objects import make_run
from tests.unit.planning.test_plan import next_actions, with_secret
from tests.unit.planning.world import World

KINDS: tuple[type[BaseModel], ...] = (WorkflowRun, SecretBinding, SecretReveal, SecretStore)


def parts(kind: type[BaseModel], field: str) -> set[type[BaseModel]]:
    """All models of what is wanted, or of what is found."""
    annotation = kind.model_fields[field].annotation
    found = [item for item in (annotation, *get_args(annotation)) if isinstance(item, type)]
    return {model for item in found if issubclass(item, BaseModel) for model in models(item)}


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_a_status_bears_what_it_does_not_know_and_nothing_of_a_spec_does(
    kind: type[BaseModel],
) -> None:
    assert {model.model_config.get("extra") for model in parts(kind, "status")} == {"ignore"}
    assert {model.model_config.get("extra") for model in parts(kind, "spec")} == {"forbid"}


def later(found: Any) -> Any:
    """``found`` with something unknown in each object of it."""
    if isinstance(found, list):
        return [later(item) for item in found]
    if isinstance(found, dict):
        return {"ofALaterVersion": {"a": [1]}, **{key: later(value) for key, value in found.items()}}
    return found


def of_later(run: WorkflowRun) -> WorkflowRun:
    raw = {**run.to_wire(), "metadata": run.metadata.model_dump(mode="json", by_alias=True)}
    return WorkflowRun.parse({**raw, "status": later(raw["status"])})


def test_a_run_goes_on_with_a_status_that_a_later_version_wrote() -> None:
    world = with_secret()
    assert world.run.status.tasks[0].attempts[0].exposures
    world.run = of_later(world.run)
    assert next_actions(world) == []
    world.end_pod()
    world.finish_jobs()
    world.reconcile()
    assert (world.run.status.phase, world.run.status.live) == ("Succeeded", 0)
    assert of_later(world.run).status == world.run.status


def test_what_is_wanted_of_it_has_to_be_known() -> None:
    raw = make_run().to_wire()
    with pytest.raises(ValidationError, match="ofALaterVersion"):
        WorkflowRun.parse({**raw, "spec": {**raw["spec"], "ofALaterVersion": True}})


def test_words_of_a_later_version_do_not_stop_a_pass() -> None:
    assert (State("OfALaterVersion"), Outcome("OfALaterVersion")) == (State.PENDING, Outcome.LOST)
    world = with_secret()
    (task,) = world.run.status.tasks
    (attempt,) = task.attempts
    over = attempt.model_copy(update={"outcome": "OfALaterVersion"})
    tasks = [task.model_copy(update={"attempts": [over], "state": "OfALaterVersion"})]
    world.run = world.run.model_copy(update={"status": world.run.status.model_copy(update={"tasks": tasks})})
    world.reconcile()
    assert world.run.status.live == 0


def test_a_run_that_ended_in_a_way_of_a_later_version_stays_as_it_is() -> None:
    world = World(run=make_run(cancel=True))
    world.reconcile()
    status = world.run.status
    tasks = [status.tasks[0].model_copy(update={"state": "OfALaterVersion"})]
    status = status.model_copy(update={"phase": "OfALaterVersion", "tasks": tasks})
    world.run = world.run.model_copy(update={"status": status})
    assert status.finished
    step = plan(world._observe(), world.now)
    assert (step.actions, step.settled) == ((), True)


def test_what_else_is_stored_bears_more_than_it_knows() -> None:
    assert _parsed('{"key":"k","value":1,"ofALaterVersion":2}')["value"] == 1
    kept = (
        '{"periods":[{"begin":"2026-01-05T12:00:00Z","end":null,"namespaces":[],"more":1}],"policies":{},'
        '"seen":"2026-01-05T12:00:00Z","more":1}'
    )
    assert Record.parse(kept) is not None
