"""Tables: what they look like in every state of a run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runkeys.api import WorkflowRun
from runkeys.cli._output import duration, run_lines, runs_table, table

START = datetime(2026, 1, 5, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat()


def attempt(
    number: int,
    begin: float,
    end: float | None,
    outcome: str,
    *exposed: tuple[float, float | None],
    sealed: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "number": number,
        "job": f"rk-vqe-{number}",
        "jobUID": str(number),
        "startTime": at(begin),
        **({"endTime": at(end)} if end is not None else {}),
        "outcome": outcome,
        **({"sealed": {"request": "uid", **sealed}} if sealed is not None else {}),
        "exposures": [
            {"created": at(first), **({"deleted": at(last)} if last is not None else {})}
            for first, last in exposed
        ],
    }


def run(phase: str, tasks: list[dict[str, Any]], **status: Any) -> WorkflowRun:
    template = {"spec": {"containers": [{"name": "main", "image": "i"}]}}
    asked = {"run-circuit": [{"name": "ibm_token", "secret": "t"}, {"name": "account", "secret": "a"}]}
    names = ["transpile", "run-circuit", "report"]
    return WorkflowRun.parse(
        {
            "metadata": {"name": "vqe-42", "namespace": "team-a", "creationTimestamp": at(0)},
            "spec": {
                "tasks": [
                    {"name": name, "secrets": asked.get(name, []), "template": template} for name in names
                ]
            },
            "status": {"phase": phase, "tasks": tasks, **status},
        }
    )


def condition(status: str, reason: str, message: str = "") -> list[dict[str, Any]]:
    return [
        {
            "type": "SecretsReleased",
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": at(0),
        }
    ]


DONE = {"name": "transpile", "state": "Succeeded", "attempts": [attempt(1, 0, 8, "Succeeded")]}
STATES = {
    "new": run("Pending", []),
    "running": run(
        "Running",
        [
            DONE,
            {"name": "run-circuit", "state": "Running", "attempts": [attempt(1, 10, None, "", (10, None))]},
            {"name": "report", "state": "Pending"},
        ],
        live=1,
        conditions=condition("False", "Live", "a Secret of this run may exist"),
    ),
    "succeeded": run(
        "Succeeded",
        [
            DONE,
            {
                "name": "run-circuit",
                "state": "Succeeded",
                "attempts": [
                    attempt(1, 10, 20, "Failed", (10, 20.5)),
                    attempt(2, 40, 80, "Succeeded", (40, 71)),
                ],
            },
            {"name": "report", "state": "Succeeded", "attempts": [attempt(1, 81, 281, "Succeeded")]},
        ],
        exposed="41.5s",
        conditions=condition("True", "Released"),
    ),
    "failed": run(
        "Failed",
        [
            DONE,
            {
                "name": "run-circuit",
                "state": "Failed",
                "reason": "SecretNotFound",
                "message": "spec.tasks[1].secrets[0].secret: no secret 't' in quantum; they have: token",
            },
            {
                "name": "report",
                "state": "Skipped",
                "message": "task run-circuit, which comes before it, is Failed",
            },
        ],
        conditions=condition("True", "NeverMade"),
    ),
    "sealed-asked": run(
        "Running",
        [
            DONE,
            {"name": "run-circuit", "state": "Running", "attempts": [attempt(1, 10, None, "", sealed={})]},
        ],
        conditions=condition("False", "NotFinished", "no Secret exists now; the run goes on"),
    ),
    "sealed-running": run(
        "Running",
        [
            DONE,
            {
                "name": "run-circuit",
                "state": "Running",
                "attempts": [
                    attempt(1, 10, 20, "Disrupted", sealed={"delivered": at(11)}),
                    attempt(2, 30, None, "", sealed={"delivered": at(31), "opened": at(32)}),
                ],
            },
        ],
        exposed="0.0s",
        conditions=condition("False", "NotFinished", "no Secret exists now; the run goes on"),
    ),
    "sealed-succeeded": run(
        "Succeeded",
        [
            DONE,
            {
                "name": "run-circuit",
                "state": "Succeeded",
                "attempts": [attempt(1, 10, 20, "Succeeded", sealed={"delivered": at(11), "opened": at(12)})],
            },
            {"name": "report", "state": "Succeeded", "attempts": [attempt(1, 21, 22, "Succeeded")]},
        ],
        exposed="0.0s",
        conditions=condition("True", "NeverMade"),
    ),
    "held": run(
        "Succeeded",
        [
            {
                "name": "run-circuit",
                "state": "Succeeded",
                "attempts": [attempt(1, 0, 9, "Succeeded", (0, None))],
            }
        ],
        live=1,
        conditions=condition("False", "HeldByFinalizer", "other finalizers keep it: example.com/x"),
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_a_run(golden: Callable[[str, str], None], name: str) -> None:
    golden(f"status-{name}", "\n".join(run_lines(STATES[name], START + timedelta(seconds=90))) + "\n")


def test_a_run_wide(golden: Callable[[str, str], None]) -> None:
    lines = run_lines(STATES["failed"], START + timedelta(seconds=90), wide=True)
    golden("status-wide", "\n".join(lines) + "\n")


def test_all_runs(golden: Callable[[str, str], None]) -> None:
    header, rows = runs_table(list(STATES.values()), START + timedelta(hours=3))
    golden("status-all", "\n".join(table(header, rows)) + "\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0.26, "0.3s"),
        (9.96, "10s"),
        (41.2, "41s"),
        (99.9, "1m40s"),
        (200, "3m20s"),
        (5999, "99m59s"),
        (7500, "2h05m"),
        (356400, "4d3h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "open, until 2026-01-05T12:10:00Z at the latest"),
        ({"revoked": at(42)}, "revoked at 2026-01-05T12:00:42Z"),
        ({"expired": True}, "not seen to be revoked; the store ended it by 2026-01-05T12:10:00Z"),
    ],
)
def test_a_lease_is_shown_with_what_became_of_it(changed: dict[str, Any], words: str) -> None:
    lease = {"store": "bao", "role": "r", "accessor": "a", "paths": ["db/creds/a"], "expires": at(600)}
    tried = {**attempt(1, 0, None, ""), "leases": [{**lease, **changed}]}
    found = run("Running", [{"name": "run-circuit", "state": "Running", "attempts": [tried]}])
    assert f"Lease of run-circuit: db/creds/a in bao, {words}" in run_lines(found, START)
