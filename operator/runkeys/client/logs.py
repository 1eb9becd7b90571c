"""Logs of a run's pods, task by task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runkeys.client.http import READ_SECONDS, Json
from runkeys.names import LABEL_RUN, LABEL_RUN_UID, LABEL_TASK
from runkeys.problems import NotFound

if TYPE_CHECKING:
    from runkeys.api import WorkflowRun
    from runkeys.client.client import Client

_FOLLOW_SECONDS = 3600


@dataclass(frozen=True)
class LogLine:
    """One line of a container's log, without its line break."""

    task: str
    pod: str
    text: str


def read_logs(
    client: Client, name: str, task: str | None, container: str | None, *, follow: bool
) -> Iterator[LogLine]:
    """Yield the lines of all pods of a run, in the order of its tasks. With ``follow``, until the run has finished."""
    run = client.get(name)
    names = [item.name for item in run.spec.tasks]
    if task is not None and task not in names:
        raise NotFound(f"run {name} has no task {task!r}; it has: {', '.join(names)}")
    seen: set[str] = set()
    while True:
        over = run.status.finished
        for pod in _pods(client, run, task, names):
            uid = pod["metadata"]["uid"]
            if uid in seen or not _has_started(pod):
                continue
            seen.add(uid)
            yield from _pod_logs(client, pod, container, follow=follow)
        if over or not follow:
            break
        run = client.after_next_change(run)
    started = any(attempt.start_time for item in run.status.tasks for attempt in item.attempts)
    if seen:
        return
    if run.status.finished and started:
        raise NotFound(
            f"the pods of run {name} and their logs no longer exist: they are kept for"
            f" {run.spec.job_ttl_seconds_after_finished} s after a Job finishes"
            " (spec.jobTtlSecondsAfterFinished)"
        )
    of = f"run {name}" if task is None else f"task {task} of run {name}"
    raise NotFound(f"no pod of {of} has started, so there are no logs: {_why(client, run, task, names)}")


def _why(client: Client, run: WorkflowRun, task: str | None, names: list[str]) -> str:
    """What keeps the pods from starting: as the status says, or as the kubelet does."""
    told = [
        " ".join(part for part in (f"{item.name}:", item.state, item.reason, item.message) if part)
        for item in run.status.tasks
        if task in (None, item.name)
    ]
    told += [
        f"pod {pod['metadata']['name']}: {waiting.get('reason', 'waiting')} {waiting.get('message', '')}".rstrip()
        for pod in _pods(client, run, task, names)
        for item in (pod.get("status") or {}).get("containerStatuses") or []
        if (waiting := (item.get("state") or {}).get("waiting")) is not None
    ]
    return "; ".join(told) or "the run's status does not say why yet"


def _pods(client: Client, run: WorkflowRun, task: str | None, names: list[str]) -> list[Json]:
    selector = f"{LABEL_RUN}={run.metadata.name}" + (f",{LABEL_TASK}={task}" if task else "")
    pods = client.items(f"/api/v1/namespaces/{client.namespace}/pods", labelSelector=selector)
    of_run = [pod for pod in pods if pod["metadata"]["labels"].get(LABEL_RUN_UID) == run.metadata.uid]
    order = {name: number for number, name in enumerate(names)}
    return sorted(
        of_run,
        key=lambda pod: (
            order.get(pod["metadata"]["labels"].get(LABEL_TASK, ""), 0),
            pod["metadata"]["creationTimestamp"],
        ),
    )


def _pod_logs(client: Client, pod: Json, container: str | None, *, follow: bool) -> Iterator[LogLine]:
    name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
    query = {"container": container or pod["spec"]["containers"][0]["name"]}
    if follow:
        query["follow"] = "true"
    path = f"/api/v1/namespaces/{client.namespace}/pods/{name}/log"
    for line in client.lines(path, query, _FOLLOW_SECONDS if follow else READ_SECONDS):
        yield LogLine(labels.get(LABEL_TASK, ""), name, line)


def _has_started(pod: Json) -> bool:
    states = [item.get("state") or {} for item in (pod.get("status") or {}).get("containerStatuses") or []]
    return any("running" in state or "terminated" in state for state in states)
