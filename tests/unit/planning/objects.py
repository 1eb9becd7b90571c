"""Small builders of runs, bindings, Jobs and pods for the tests of the pure core."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from runkeys.api import SecretBinding, WorkflowRun
from runkeys.planning.bindings import Bindings

START = datetime(2026, 1, 5, 12, 0, 0, tzinfo=UTC)


def later(seconds: float) -> datetime:
    """``seconds`` after the start of the test's time."""
    return START + timedelta(seconds=seconds)


def template(**spec: Any) -> dict[str, Any]:
    """A pod template with one container, changed by ``spec``."""
    return {"spec": {"containers": [{"name": "main", "image": "ghcr.io/acme/app:1"}], **spec}}


def task(**fields: Any) -> dict[str, Any]:
    """A task that asks for one secret, changed by ``fields``."""
    return {
        "name": "work",
        "secrets": [{"name": "api_token", "secret": "token"}],
        "template": template(),
        **fields,
    }


def make_run(*, labels: dict[str, str] | None = None, **spec: Any) -> WorkflowRun:
    """A run of one task in namespace ``team-a``, bound to ``keys``."""
    return WorkflowRun.parse(
        {
            "apiVersion": "runkeys.dev/v1alpha1",
            "kind": "WorkflowRun",
            "metadata": {
                "name": "vqe",
                "namespace": "team-a",
                "uid": "run-uid",
                "generation": 1,
                "resourceVersion": "1",
                "labels": labels if labels is not None else {"app": "vqe"},
                "creationTimestamp": START.isoformat(),
            },
            "spec": {"bindings": [{"name": "keys"}], "tasks": [task()], **spec},
            "status": {"observedGeneration": -1},
        }
    )


def make_binding(name: str = "keys", **spec: Any) -> SecretBinding:
    """A binding that offers ``token`` to runs labelled ``app: vqe``."""
    return SecretBinding.parse(
        {
            "apiVersion": "runkeys.dev/v1alpha1",
            "kind": "SecretBinding",
            "metadata": {"name": name, "namespace": "team-a", "uid": f"{name}-uid"},
            "spec": {
                "secrets": [{"name": "token", "secretKeyRef": {"name": "source", "key": "token"}}],
                "access": [{"runSelector": {"matchLabels": {"app": "vqe"}}}],
                **spec,
            },
        }
    )


def bound_to(*bindings: SecretBinding) -> Bindings:
    """What the operator found when it read ``bindings``."""
    return Bindings({binding.metadata.name: binding for binding in bindings}, {})
