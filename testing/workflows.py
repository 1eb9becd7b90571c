"""Workflows of several tasks for the tests: the code of their containers, and readers of their status."""

from __future__ import annotations

from typing import Any

from runkeys.names import attempt_name
from testing.cluster.client import PATIENCE, Object
from testing.namespace import TASK_IMAGE, Team, python

HANDED_TO_ALL = """
import hashlib, json, os, pathlib, sys, time
runtime = pathlib.Path("/var/runtime")
def sha(data): return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()
def given(name): return json.loads((runtime / "input" / f"{name}.json").read_text())
def write(value): (runtime / "output" / "output.json").write_text(json.dumps(value))
"""
"""Begins the code of each task."""


def container(code: str, name: str = "main", **fields: Any) -> dict[str, Any]:
    """Return a container that runs ``code`` after the helpers above."""
    return {
        "name": name,
        "image": TASK_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": python(HANDED_TO_ALL + code),
        **fields,
    }


def task(
    name: str,
    code: str = "",
    *,
    secret: bool = False,
    pod: dict[str, Any] | None = None,
    others: tuple[dict[str, Any], ...] = (),
    **fields: Any,
) -> dict[str, Any]:
    """Return a task. With ``secret`` it asks for the team's token as SECRET_API_TOKEN."""
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container(code), *others], **(pod or {})}
    asked = {"secrets": [{"name": "api_token", "secret": "token"}]} if secret else {}
    return {"name": name, **asked, "template": {"spec": spec}, **fields}


def make(team: Team, *tasks: dict[str, Any], name: str = "flow", **spec: Any) -> Object:
    """Create a run of these tasks."""
    return team.client.create(
        {
            "apiVersion": "runkeys.dev/v1alpha1",
            "kind": "WorkflowRun",
            "metadata": {"name": name, "namespace": team.namespace, "labels": {"app": "test"}},
            "spec": {"bindings": [{"name": "keys"}], "tasks": list(tasks), **spec},
        }
    )


def object_name(found: Object, name: str, attempt: int = 1) -> str:
    """Return the name of the Job and the Secret of an attempt of a task."""
    metadata = found["metadata"]
    return attempt_name(metadata["name"], metadata["uid"], name, attempt)


def states(found: Object) -> dict[str, str]:
    """Return the state of each task by its name."""
    return {item["name"]: item["state"] for item in found.get("status", {}).get("tasks", [])}


def attempts(found: Object, name: str) -> list[dict[str, Any]]:
    """Return the attempts of a task from the status."""
    tasks = found.get("status", {}).get("tasks", [])
    return next((item.get("attempts", []) for item in tasks if item["name"] == name), [])


def outcomes(found: Object, name: str) -> list[str]:
    """Return the outcomes of a task's attempts; empty for an attempt that has not ended."""
    return [item.get("outcome", "") for item in attempts(found, name)]


def pod_of(team: Team, found: Object, name: str, attempt: int = 1) -> Object:
    """Wait until the pod of an attempt exists, and return it."""
    job = object_name(found, name, attempt)
    team.client.wait_for("jobs", job, team.namespace, bool, what="to be made")
    labels = f"batch.kubernetes.io/job-name={job}"
    for _, pod in team.client.watch("pods", team.namespace, timeout=PATIENCE, labels=labels):
        return pod
    raise AssertionError(f"Job {job} has no pod")


def wait_pod(team: Team, found: Object, name: str, phase: str = "Running", attempt: int = 1) -> Object:
    """Wait until the pod of an attempt is in ``phase``, and return it."""
    pod = pod_of(team, found, name, attempt)["metadata"]["name"]
    return team.client.wait_for("pods", pod, team.namespace, lambda item: item["status"]["phase"] == phase)


def output(team: Team, found: Object, name: str, attempt: int = 1, container: str = "main") -> str:
    """Return the log of the pod of an attempt."""
    pod = pod_of(team, found, name, attempt)["metadata"]["name"]
    return team.client.logs(pod, team.namespace, container)
