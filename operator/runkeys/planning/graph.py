"""The graph of a run's tasks: their order, and the data they pass on. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runkeys._text.documents import TOO_DEEP, compact
from runkeys.api import Task, WorkflowRun
from runkeys.planning.refusal import Reason, Refusal, listed

ALWAYS = "Always"

MAX_INPUT_BYTES = 200 * 1024
"""Limit for all inputs of a task together: they are annotations of its pod, which may have 256 KiB."""


def graph_refusals(run: WorkflowRun, index: int) -> Iterator[Refusal]:
    """What is wrong with the ``dependsOn`` and ``input`` of task ``index``. Only a new run can fix any of it."""
    task, path = run.spec.tasks[index], f"spec.tasks[{index}]"
    if run.spec.input_is_too_deep:
        message = f"{TOO_DEEP}; create a new run with a flatter one, or with the deep part as a string"
        yield Refusal(Reason.INVALID, "spec.input", message, permanent=True)
    earlier = [item.name for item in run.spec.tasks[:index]]
    last = {item.name for item in run.spec.tasks if item.runs == ALWAYS}
    everywhere = [item.name for item in run.spec.tasks]
    for position, name in enumerate(task.depends_on):
        where = f"{path}.dependsOn[{position}]"
        if name == task.name:
            yield _refusal(where, f"task {name} cannot depend on itself; remove it")
        elif name not in everywhere:
            yield _refusal(
                where, f"there is no task {name!r}; the tasks above are: {listed(earlier) or 'none'}"
            )
        elif name not in earlier:
            yield _refusal(where, f"task {name!r} is listed further down; move it above task {task.name!r}")
        elif name in last and task.runs != ALWAYS:
            yield _refusal(
                where,
                f"task {name!r} has runs: Always and so runs after all others; tasks that depend on it need"
                " runs: Always too",
            )
    before: set[str] | None = None
    for position, item in enumerate(task.input):
        where = f"{path}.input[{position}].from"
        if item.source.startswith("input."):
            key = item.source.removeprefix("input.")
            if key not in run.spec.input:
                there = listed(run.spec.input) or "nothing"
                yield Refusal(
                    Reason.INPUT_NOT_FOUND,
                    where,
                    f"the run's input has no {key!r}; it has: {there}",
                    permanent=True,
                )
        elif not (item.source.startswith("tasks.") and item.source.endswith(".output")):
            near = f"; did you mean input.{item.source}?" if item.source in run.spec.input else ""
            near = f"; did you mean tasks.{item.source}.output?" if item.source in everywhere else near
            yield _refusal(where, f"must be input.<key> or tasks.<task>.output{near}")
        else:
            before = _ancestors(run, task.name) if before is None else before
            yield from _output_refusals(run, task, output_of(item.source), where, before)
    size = _own_size(run, task)
    if size > MAX_INPUT_BYTES:
        yield Refusal(
            Reason.INPUT_TOO_LARGE,
            f"{path}.input",
            f"has {size} bytes in total; a task can get at most {MAX_INPUT_BYTES}: use a data pool for more",
            permanent=True,
        )


def output_of(source: str) -> str:
    """The task named in a reference ``tasks.<task>.output``."""
    return source.removeprefix("tasks.").removesuffix(".output")


def inputs_of(run: WorkflowRun, task: Task, outputs: Mapping[str, Any]) -> dict[str, Any] | Refusal:
    """The inputs of ``task``, by parameter.

    :param outputs: outputs of the finished tasks, by task name; tasks that wrote none are absent.
    """
    found, size = _own_inputs(run, task), _own_size(run, task)
    index = next(i for i, item in enumerate(run.spec.tasks) if item.name == task.name)
    for position, item in enumerate(task.input):
        if item.source.startswith("input."):
            continue
        name, where = output_of(item.source), f"spec.tasks[{index}].input[{position}].from"
        if name not in outputs:
            return Refusal(
                Reason.OUTPUT_MISSING,
                where,
                f"task {name} wrote no /var/runtime/output/output.json, so there is nothing to pass on",
                permanent=True,
            )
        found[item.name] = outputs[name]
        size += len(compact(outputs[name]))
    if size > MAX_INPUT_BYTES:
        return Refusal(
            Reason.INPUT_TOO_LARGE,
            f"spec.tasks[{index}].input",
            f"has {size} bytes in total; a task can get at most {MAX_INPUT_BYTES}: use a data pool for more",
            permanent=True,
        )
    return found


def _own_keys(run: WorkflowRun, task: Task) -> dict[str, str]:
    """Maps each parameter to the key of the run's input that it takes."""
    sources = {item.name: item.source for item in task.input if item.source.startswith("input.")}
    keys = {name: source.removeprefix("input.") for name, source in sources.items()}
    return {name: key for name, key in keys.items() if key in run.spec.input}


def _own_inputs(run: WorkflowRun, task: Task) -> dict[str, Any]:
    return {name: run.spec.input[key] for name, key in _own_keys(run, task).items()}


def _own_size(run: WorkflowRun, task: Task) -> int:
    return sum(run.spec.input_sizes[key] for key in _own_keys(run, task).values())


def _output_refusals(
    run: WorkflowRun, task: Task, name: str, where: str, before: set[str]
) -> Iterator[Refusal]:
    source = next((item for item in run.spec.tasks if item.name == name), None)
    if source is None:
        names = listed([item.name for item in run.spec.tasks])
        yield Refusal(
            Reason.INPUT_NOT_FOUND,
            where,
            f"there is no task {name!r}; the tasks are: {names}",
            permanent=True,
        )
    elif not source.record_output:
        yield Refusal(
            Reason.INPUT_NOT_FOUND,
            where,
            f"task {name} does not keep its output; set recordOutput: true there",
            permanent=True,
        )
    elif name not in before:
        yield _refusal(where, f"task {task.name} does not run after task {name}; add {name} to its dependsOn")


def _ancestors(run: WorkflowRun, name: str) -> set[str]:
    above = {item.name: item.depends_on for item in run.spec.tasks}
    found: set[str] = set()
    left = list(above.get(name, ()))
    while left:
        parent = left.pop()
        if parent not in found:
            found.add(parent)
            left += above.get(parent, ())
    return found


def _refusal(where: str, message: str) -> Refusal:
    return Refusal(Reason.DEPENDENCY_INVALID, where, message, permanent=True)
