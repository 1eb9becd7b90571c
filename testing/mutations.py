"""Runs in which one part is something else: any JSON at any place. For proofs that nothing stumbles over it."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]

ODD: list[Any] = [
    *(None, True, False, 0, -1, 5, 0.5, 2**53 + 1, -0.0, 1e300),
    *(
        "",
        "x",
        "$(SECRET_API_TOKEN)",
        "/var/runtime/secrets",
        "rk-x",
        "runkeys-secrets",
        "1e999999999",
        "é\u0000☃",
    ),
    *([], [None], [[]], [{}], ["x"], [5], {}, {"": None}, {"name": 5}, {"name": []}, {"x": {"y": []}}),
]
"""Values that fit in few places."""


def rich_pod(image: str = "a/b:1") -> dict[str, Any]:
    """A pod spec in which each part that Runkeys looks at is there, and is allowed."""
    container = {
        "name": "main",
        "image": image,
        "command": ["true"],
        "args": ["x"],
        "env": [
            {"name": "A", "value": "b"},
            {"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "envFrom": [{"prefix": "C_", "configMapRef": {"name": "none", "optional": True}}],
        "volumeMounts": [{"name": "work", "mountPath": "/work", "subPath": "a"}],
        "resources": {"requests": {"cpu": "1m"}, "limits": {"memory": "64Mi"}},
        "securityContext": {"readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "File",
        "terminationMessagePath": "/dev/termination-log",
        "ports": [{"containerPort": 80}],
    }
    helper = {"name": "early", "image": image, "command": ["true"], "volumeMounts": container["volumeMounts"]}
    projected = {"sources": [{"configMap": {"name": "none", "optional": True}}]}
    return {
        "containers": [container],
        "initContainers": [helper],
        "volumes": [
            {"name": "work", "emptyDir": {"sizeLimit": "1Mi"}},
            {"name": "more", "projected": projected},
        ],
        "securityContext": {"runAsUser": 65532},
        "terminationGracePeriodSeconds": 1,
        "restartPolicy": "Never",
        "hostPID": False,
        "tolerations": [{"key": "a", "operator": "Exists"}],
    }


def rich_template(image: str = "a/b:1") -> dict[str, Any]:
    """A pod template with ``rich_pod``."""
    return {"metadata": {"labels": {"a": "b"}, "annotations": {"c/d": "e"}}, "spec": rich_pod(image)}


def places(document: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the path of every value in a document."""
    if at:
        yield at
    if isinstance(document, dict | list):
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from places(value, (*at, key))


def changed(document: Any, path: Path, value: Any) -> Any:
    """Return a copy of a document with another value at a path."""
    found = copy.deepcopy(document)
    parent = found
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = copy.deepcopy(value)
    return found


def any_value(chance: random.Random, depth: int = 3) -> Any:
    """Return any JSON: an odd value, or a small document of such."""
    kind = chance.randrange(6) if depth else 0
    if kind == 4:
        return [any_value(chance, depth - 1) for _ in range(chance.randrange(3))]
    if kind == 5:
        names = ("name", "spec", "containers", "env", "secret", "sources", "valueFrom", "exec")
        return {chance.choice(names): any_value(chance, depth - 1) for _ in range(chance.randrange(3))}
    return chance.choice(ODD)
