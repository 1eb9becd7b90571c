"""Results as tables, JSON, YAML or names. Except for colours, tables are the same on a terminal and in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runkeys._text.times import to_seconds
from runkeys._text.words import line, shell
from runkeys.api import AttemptStatus, TaskStatus, WorkflowRun
from runkeys.cli._framework import Settings
from runkeys.cli._printing import data, echo, echo_line
from runkeys.client import released

NOTHING = "–"  # noqa: RUF001 -- a dash is what is meant
_COLORS = {
    "Succeeded": "green",
    "True": "green",
    "ok": "green",
    "Failed": "red",
    "problem": "red",
    "Cancelled": "yellow",
    "Skipped": "yellow",
    "warning": "yellow",
    "Running": "cyan",
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns. The last column is not padded."""
    lines = [list(header), *([line(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in lines) for column in range(len(header))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in lines
    ]


def print_table(settings: Settings, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, coloured on a terminal."""
    print_lines(settings, table(header, rows))


def print_lines(settings: Settings, lines: Sequence[str]) -> None:
    """Print each text as one line, coloured on a terminal."""
    for text in lines:
        echo_line(text, colors(settings))


def colors(settings: Settings) -> Mapping[str, str]:
    """Return the words to colour with their colours; empty if the output is not a terminal."""
    return {} if settings.no_color or not sys.stdout.isatty() else _COLORS


def print_object(settings: Settings, raw: Mapping[str, Any]) -> None:
    """Print an object, or a list of them, as JSON or YAML."""
    if settings.output == "json":
        echo(json.dumps(raw, indent=2, ensure_ascii=False))
        return
    import yaml

    data(yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True))


def as_list(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return several objects as one List."""
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}


def run_name(run: WorkflowRun) -> str:
    """Return the run's name as `-o name` prints it and kubectl accepts it."""
    return f"workflowrun.runkeys.dev/{run.metadata.name}"


def run_lines(run: WorkflowRun, now: datetime, *, wide: bool = False) -> list[str]:
    """Return lines with a run's tasks, its problems, and whether its secrets are released."""
    header = ["TASK", "STATE", "TRY", "SECRETS", "EXPOSED", "TIME"]
    if wide:
        header += ["JOB", "REASON"]
    told = {task.name: task for task in run.status.tasks}
    rows = []
    for task in run.spec.tasks:
        status = told.get(task.name) or TaskStatus(name=task.name, state="Pending")
        last = status.attempts[-1] if status.attempts else None
        row = [
            task.name,
            status.state,
            str(last.number) if last is not None else NOTHING,
            _secrets([item.name for item in task.secrets], status, over=run.status.finished),
            _exposed(status, now),
            _time(status, now),
        ]
        if wide:
            row += [last.job if last is not None else NOTHING, status.reason or NOTHING]
        rows.append(row)
    lines = table(header, rows)
    for item in run.status.tasks:
        if item.message and item.state not in ("Succeeded", "Skipped"):
            lines.append(f"{item.name}: {item.message}")
    lines += _leases(run)
    lines.append(_released(run))
    return lines


def _leases(run: WorkflowRun) -> list[str]:
    """What became of the credentials that stores created for it, each on a line."""
    found = []
    for task in run.status.tasks:
        for attempt in task.attempts:
            for lease in attempt.leases or ():
                if lease.revoked is not None:
                    state = f"revoked at {to_seconds(lease.revoked)}"
                elif lease.expired:
                    state = f"not seen to be revoked; the store ended it by {to_seconds(lease.expires)}"
                else:
                    state = f"open, until {to_seconds(lease.expires)} at the latest"
                found.append(f"Lease of {task.name}: {', '.join(lease.paths)} in {lease.store}, {state}")
    return found


def runs_table(
    runs: Sequence[WorkflowRun], now: datetime, *, namespaces: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row for each run.

    :param namespaces: with the namespace of each.
    """
    first = ["NAMESPACE"] if namespaces else []
    header = [*first, "NAME", "PHASE", "TASKS", "LIVE", "EXPOSED", "AGE"]
    rows = [
        [
            *([run.metadata.namespace] if namespaces else []),
            run.metadata.name,
            run.status.phase or "Pending",
            run.status.tasks_done or f"0/{len(run.spec.tasks)}",
            str(run.status.live),
            run.status.exposed or NOTHING,
            duration((now - run.metadata.creation_timestamp).total_seconds())
            if run.metadata.creation_timestamp is not None
            else NOTHING,
        ]
        for run in runs
    ]
    return header, rows


def duration(seconds: float) -> str:
    """Return a short text for a duration: 0.3s, 41s, 3m20s, 2h05m, 4d3h."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s".replace(".0s", "s")
    total = round(seconds)
    if total < 100:
        return f"{total}s"
    if total < 6000:
        return f"{total // 60}m{total % 60:02}s"
    if total < 172800:
        return f"{total // 3600}h{total % 3600 // 60:02}m"
    return f"{total // 86400}d{total % 86400 // 3600}h"


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def _secrets(names: list[str], status: TaskStatus, *, over: bool) -> str:
    if not names:
        return NOTHING
    exposures = [item for attempt in status.attempts for item in attempt.exposures]
    if any(item.deleted is None for item in exposures):
        state = "live"
    elif _in_its_pod(status):
        state = "in the pod"
    elif exposures or _delivered(status.attempts):
        state = "gone"
    else:
        state = "never created" if over else "not yet"
    return f"{', '.join(names)} {state}"


def _in_its_pod(status: TaskStatus) -> bool:
    """Whether a pod has its values by sealed delivery: they are in its memory, and never were in a Secret."""
    return _delivered(item for item in status.attempts if not item.outcome)


def _delivered(attempts: Iterable[AttemptStatus]) -> bool:
    return any(item.sealed is not None and item.sealed.delivered is not None for item in attempts)


def _exposed(status: TaskStatus, moment: datetime) -> str:
    exposures = [item for attempt in status.attempts for item in attempt.exposures]
    if not exposures and not _delivered(status.attempts):
        return NOTHING
    seconds = sum(((item.deleted or moment) - item.created).total_seconds() for item in exposures)
    return duration(seconds)


def _time(status: TaskStatus, moment: datetime) -> str:
    """How long its attempts took in all, without the pauses between them."""
    taken = [
        max(0.0, ((item.end_time or moment) - item.start_time).total_seconds())
        for item in status.attempts
        if item.start_time is not None
    ]
    return duration(sum(taken)) if taken else NOTHING


def _released(run: WorkflowRun) -> str:
    condition = next((item for item in run.status.conditions if item.type == "SecretsReleased"), None)
    if condition is None:
        return "Released: not known yet; the operator has not processed the run"
    if released(run):
        if condition.reason == "NeverMade":
            if _delivered(attempt for task in run.status.tasks for attempt in task.attempts):
                return "Released: yes, delivered sealed; no Secret was ever created"
            return "Released: yes, no secret was ever created"
        return f"Released: yes, after {run.status.exposed or '0.0s'} in total"
    if run.status.live == 0:
        now = "Released: nothing is in the cluster now; the run"
        if run.spec.suspend:
            return f"{now} is suspended, to continue it: {shell('runkeys', 'resume', run.metadata.name)}"
        return f"{now} has not finished"
    return f"Released: no, {condition.message or 'a Secret of this run may exist'}"
