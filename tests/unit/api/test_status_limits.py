"""A status is never more than its schema allows, or the API server would refuse it, and so every later one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from annotated_types import MaxLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from runkeys.api import SecretBinding, SecretReveal, SecretStore, WorkflowRun
from runkeys.planning import memory
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.retry import MOST_ATTEMPTS
from runkeys.planning.status import Outcome
from tests.unit.planning.objects import make_run
from tests.unit.planning.test_workflow import plain
from tests.unit.planning.world import World

FIXED = {
    "Condition.type": "named by the operator",
    "Condition.status": "True, False or Unknown",
    "SecretStoreStatus.conditions": "one of each type",
    "SecretRevealStatus.sealed": "of an entry that is no longer than that",
    "WorkflowRunStatus.phase": "one of six",
    "WorkflowRunStatus.tasks_done": "of 64 tasks at most",
    "WorkflowRunStatus.exposed": "seconds",
    "WorkflowRunStatus.conditions": "one of each type",
    "WorkflowRunStatus.tasks": "as in the spec, which has the same limit",
    "TaskStatus.name": "as in the spec, which has the same limit",
    "TaskStatus.state": "one of seven",
    "TaskStatus.attempts": "see below",
    "AttemptStatus.job": "made by the operator",
    "AttemptStatus.job_uid": "given by the API server",
    "AttemptStatus.pod_uid": "given by the API server",
    "AttemptStatus.unsealer": "an option of the operator, which is checked at its start",
    "AttemptStatus.outcome": "one of six",
    "AttemptStatus.release_policy": "one of two",
    "AttemptStatus.exposures": "one",
    "AttemptStatus.leases": "as many as are opened, see planning/leases.py",
    "LeaseStatus.store": "as in the binding, which has the same limit",
    "LeaseStatus.role": "as in the binding, which has the same limit",
    "LeaseStatus.accessor": "one that is longer is not used",
    "LeaseStatus.paths": "a task that needs more is refused",
    "LeaseStatus.ids": "one for each path; one that is longer is not used",
    "SealedDelivery.request": "given by the API server",
    "SecretBindingStatus.conditions": "one of each type",
    "SecretBindingStatus.secrets": "of 512 entries at most",
    "SecretBindingStatus.entries": "as in the spec, which has the same limit",
    "EntryStatus.name": "as in the spec, which has the same limit",
    "EntryStatus.key_id": "of a form that has been checked",
}
"""What has a limit and is not cut, and why it is never longer."""


def models(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield kind
    for field in kind.model_fields.values():
        for part in parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from models(part)


def parts(annotation: Any) -> Iterator[Any]:
    """A type and those that it is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from parts(part)


def limit(field: FieldInfo) -> int | None:
    return next((item.max_length for item in field.metadata if isinstance(item, MaxLen)), None)


def limited() -> dict[str, tuple[type[BaseModel], str, int]]:
    """Everything in a status that has a limit."""
    found = {}
    for kind in (WorkflowRun, SecretBinding, SecretReveal, SecretStore):
        status = kind.model_fields["status"].annotation
        assert isinstance(status, type)
        for model in models(status):
            for name, field in model.model_fields.items():
                if (most := limit(field)) is not None:
                    found[f"{model.__name__}.{name}"] = (model, name, most)
    return found


def test_every_limit_is_kept_by_cutting_or_for_a_reason_that_is_known() -> None:
    assert len(limited()) > len(FIXED)
    assert FIXED.keys() <= limited().keys()


@pytest.mark.parametrize("where", sorted(limited().keys() - FIXED.keys()))
def test_a_text_that_is_too_long_is_cut(where: str) -> None:
    model, name, most = limited()[where]
    given: dict[str, Any] = {
        "type": "Stalled",
        "status": "True",
        "reason": "X",
        "last_transition_time": "2026-01-05T12:00:00Z",
        "name": "x",
        "state": "Failed",
        "number": 1,
        "job": "rk-x",
        "job_uid": "u",
        "ready": False,
    }
    given = {key: value for key, value in given.items() if key in model.model_fields}
    found = getattr(model(**{**given, name: "ü" * (most + 1)}), name)
    assert (len(found), found[-2:]) == (min(most, 4096), "ü…")


def test_whatever_somebody_says_the_run_gets_a_status() -> None:
    world = World(run=make_run(tasks=[plain("a"), plain("b")]))
    said = Refusal(Reason.JOB_REFUSED, "spec.tasks[0].template", "x" * 40_000, permanent=True)
    world.memory = memory.creation_refused(world.memory, "a", world.now, said)
    world.reconcile()
    status = world.run.status
    assert (status.phase, status.tasks[0].reason) == ("Failed", Reason.JOB_REFUSED)
    messages = [item.message for item in status.tasks] + [item.message for item in status.conditions]
    assert {len(message) for message in messages if "xx" in message} == {4096}


def test_a_run_that_is_suspended_again_and_again_comes_to_an_end() -> None:
    world = World(run=make_run(tasks=[plain("a")]))
    for _ in range(MOST_ATTEMPTS + 5):
        for suspend in (False, True):
            spec = world.run.spec.model_copy(update={"suspend": suspend})
            world.run = world.run.model_copy(update={"spec": spec})
            world.tick(3)
            world.reconcile()
    task = world.run.status.tasks[0]
    assert {item.outcome for item in task.attempts} == {Outcome.SUSPENDED}
    assert (world.run.status.phase, task.reason) == ("Failed", Reason.TOO_MANY_ATTEMPTS)
    assert len(task.attempts) == MOST_ATTEMPTS
