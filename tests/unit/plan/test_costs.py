"""What the largest runs cost: work grows with what somebody wrote and no faster, and messages do not grow with it.

Calls are counted, not time. Each run here took seconds to half a minute of the event loop once.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from runkeys.access import _compiled, _Patterns
from runkeys.api import SecretBinding, WorkflowRun
from runkeys.observation import Finding, Memory, Observation
from runkeys.plan import plan
from runkeys.refusal import listed
from tests.unit.plan.objects import START, bound_to, make_binding, make_run, task, template

Given = tuple[WorkflowRun, list[SecretBinding]]


def bindings(entries: int) -> list[SecretBinding]:
    return [
        make_binding(
            f"b{number}",
            secrets=[
                {"name": f"b{number}-{entry}", "secretKeyRef": {"name": "s", "key": "k"}}
                for entry in range(entries)
            ],
            access=[{"runSelector": {}}],
        )
        for number in range(8)
    ]


def asking(tasks: int, secrets: int, name: Callable[[int], str]) -> Given:
    """Each task asks for secrets that are in the last of eight bindings, or in none."""
    found = bindings(8 * secrets)
    run = make_run(
        bindings=[{"name": binding.metadata.name} for binding in found],
        tasks=[
            task(
                name=f"t{number}",
                secrets=[{"name": f"p{k}", "secret": name(k), "env": f"E{k}"} for k in range(secrets)],
            )
            for number in range(tasks)
        ],
    )
    return run, found


def taking(tasks: int, inputs: int, source: str, given: dict[str, Any], **fields: Any) -> Given:
    run = make_run(
        bindings=[],
        input=given,
        tasks=[
            task(
                name=f"t{number}",
                secrets=[],
                dependsOn=[f"t{before}" for before in range(number)],
                input=[{"name": f"p{k}", "from": source} for k in range(inputs)] if number else [],
                recordOutput=True,
                **fields,
            )
            for number in range(tasks)
        ],
    )
    return run, []


def with_images(tasks: int, containers: int) -> Given:
    """Each image is matched by the last pattern of each rule, but for the last one, which none matches."""
    rule = {"images": ["*a*a*b", "*a*a*c", "**x"]}
    found = [make_binding("b0", access=[rule] * 8)]
    pods = [
        [{"name": f"c{k}", "image": f"t{number}/i{k}x"} for k in range(containers - 1)]
        + [{"name": "last", "image": "a" * 50}]
        for number in range(tasks)
    ]
    every = [
        task(name=f"t{number}", template={"spec": {"containers": pod}}) for number, pod in enumerate(pods)
    ]
    return make_run(bindings=[{"name": "b0"}], tasks=every), found


LARGE: dict[str, Callable[[int], Given]] = {
    "secrets": lambda size: asking(size, size, lambda k: f"b7-{k}"),
    "secrets that are in no binding": lambda size: asking(size, size, lambda k: f"none-{k}"),
    "input": lambda size: taking(size, size // 2, "input.big", {"big": ["x"] * 2_000}),
    "input that is not there": lambda size: taking(
        size, size // 2, "input.none", {f"key-{number}": 1 for number in range(50 * size)}
    ),
    "output": lambda size: taking(size, size // 2, "tasks.t0.output", {}),
    "images": lambda size: with_images(size, size),
}


def calls(given: Given) -> Counter[str]:
    """How often what is called while a run is planned, until its Jobs are made or it is refused."""
    run, found = given
    checked = Memory(sources=Finding(START, None))
    obs = Observation(run, bound_to(*found), {}, (), checked, fresh=True)
    counted: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_call"):
            counted[frame.f_code.co_name] += 1

    sys.setprofile(count)
    try:
        plan(obs, START)
    finally:
        sys.setprofile(None)
    return counted


@pytest.fixture(autouse=True)
def nothing_is_known() -> None:
    """What another test has looked through."""
    _compiled.cache_clear()


@pytest.mark.parametrize("what", LARGE)
def test_work_grows_no_faster_than_the_run(what: str) -> None:
    small, large = calls(LARGE[what](16)), calls(LARGE[what](32))
    # Twice as many tasks, each with twice as much.
    assert large.total() < 5 * small.total(), (large - small).most_common(5)


def test_each_image_is_looked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the run is planned: before the sources are looked at, and for each Job and Secret."""
    looked_through: Counter[str] = Counter()
    look_through = _Patterns._look_through

    def count(patterns: _Patterns, image: str) -> frozenset[int]:
        looked_through[image] += 1
        return look_through(patterns, image)

    monkeypatch.setattr(_Patterns, "_look_through", count)
    for _ in range(2):
        calls(with_images(16, 16))
        assert set(looked_through.values()) == {1}
    assert len(looked_through) == 16 * 15 + 1


def test_an_input_that_many_take_is_measured_once() -> None:
    assert calls(LARGE["input"](32))["compact"] <= 2


@pytest.mark.parametrize("what", LARGE)
def test_a_message_does_not_grow_with_the_run(what: str) -> None:
    run, found = LARGE[what](64)
    obs = Observation(run, bound_to(*found), {}, (), Memory(), fresh=True)
    status = plan(replace(obs, memory=Memory()), START).status
    for item in status.tasks if status is not None else ():
        assert len(item.message) < 4_000


def test_of_many_names_some_are_told() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([f"{number}" for number in range(1000)]).endswith("18, 19 and 980 more")
    assert len(listed(["x" * 1_000_000] * 1000)) < 2_500


def test_a_pod_of_very_many_containers_is_refused() -> None:
    pod = template(containers=[{"name": f"c{number}", "image": "app"} for number in range(101)])
    run, found = asking(1, 1, lambda k: f"b7-{k}")
    run = make_run(bindings=run.spec.bindings, tasks=[task(template=pod)])
    obs = Observation(run, bound_to(*found), {}, (), Memory(), fresh=True)
    status = plan(obs, START).status
    assert status is not None
    assert "has 101 containers; the pod of a task may have at most 100" in status.tasks[0].message
