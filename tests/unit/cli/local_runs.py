"""Manifests for local runs."""

from __future__ import annotations

import secrets
from typing import Any

TOKEN = f"canary-{secrets.token_hex(12)}"


def python(code: str) -> list[str]:
    return ["python3", "-c", code]


def task(name: str = "work", code: str = "print('done')", **fields: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "python:3.13-slim", "command": python(code)}
    return {"name": name, "template": {"spec": {"containers": [container]}}, **fields}


def manifest(*tasks: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "runkeys.dev/v1alpha1",
        "kind": "WorkflowRun",
        "metadata": {"name": "flow"},
        "spec": {"bindings": [{"name": "keys"}], "tasks": list(tasks), **spec},
    }
