"""A fake node whose pods run without a kubelet, by kwok: load without the cost of containers.

A pod says in annotations after how many seconds it starts, and for how long it runs. Nothing keeps such a pod from
starting without its Secret, so it is given the time to get one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from testing.cluster import build
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster

NODE = "fake"
_MARK = "kwok.x-k8s.io/node"
_START, _RUN = "kwok-bench/start", "kwok-bench/run"


def pod_template(start: float, run: float) -> dict[str, Any]:
    """A pod template for the fake node: starts after ``start`` s there, and ends after ``run`` s more."""
    return {
        "metadata": {"annotations": {_START: f"{start:g}s", _RUN: f"{run:g}s"}},
        "spec": {
            "nodeSelector": {_MARK: NODE},
            "tolerations": [{"key": _MARK, "operator": "Exists"}],
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "fake", "command": ["true"]}],
        },
    }


@contextmanager
def fake_node(node: NodeCluster) -> Iterator[None]:
    """A fake node for thousands of pods, beside the real one."""
    build.ensure(("kwok",), out=sys.stderr)
    stages = node.scratch / "kwok-stages.yaml"
    stages.write_text(yaml.safe_dump_all(_stages()))
    manifest: Object = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {_MARK: NODE}, "annotations": {_MARK: NODE}},
        "spec": {"taints": [{"key": _MARK, "value": NODE, "effect": "NoSchedule"}]},
    }
    node.client.create(manifest)
    command = [
        str(build.program("kwok")),
        f"--config={stages}",
        f"--kubeconfig={node.kubeconfig}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={_MARK}={NODE}",
        "--node-lease-duration-seconds=40",
    ]
    with (node.paths.logs / "kwok.log").open("wb") as log:
        kwok = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        node.client.wait_for("nodes", NODE, None, _is_ready, what="Ready")
        yield
    finally:
        kwok.kill()
        kwok.wait(10)


def _is_ready(node: Object) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _stages() -> list[dict[str, Any]]:
    started = "startedAt: {{ $now | Quote }}"
    return [
        _stage(
            "node-ready",
            "Node",
            [(".status.phase", "NotIn", ["Running"])],
            """
            {{ $now := Now }}
            phase: Running
            allocatable: {cpu: 1k, memory: 1Ti, pods: 100k}
            capacity: {cpu: 1k, memory: 1Ti, pods: 100k}
            conditions:
            {{ range NodeConditions }}
            - type: {{ .type | Quote }}
              status: {{ .status | Quote }}
              reason: {{ .reason | Quote }}
              message: {{ .message | Quote }}
              lastHeartbeatTime: {{ $now | Quote }}
              lastTransitionTime: {{ $now | Quote }}
            {{ end }}
            """,
        ),
        # As a kubelet does at once when it has a pod: before that there is no Secret for it.
        _stage(
            "pod-taken",
            "Pod",
            [(".metadata.deletionTimestamp", "DoesNotExist", []), (".status.startTime", "DoesNotExist", [])],
            "startTime: {{ Now | Quote }}",
        ),
        _stage(
            "pod-start",
            "Pod",
            [
                (".metadata.deletionTimestamp", "DoesNotExist", []),
                (".status.startTime", "Exists", []),
                (".status.phase", "In", ["Pending"]),
            ],
            _pod_status("Running", f"running: {{{started}}}"),
            after=_START,
        ),
        _stage(
            "pod-end",
            "Pod",
            [(".metadata.deletionTimestamp", "DoesNotExist", []), (".status.phase", "In", ["Running"])],
            _pod_status(
                "Succeeded",
                "terminated: {exitCode: 0, reason: Completed, "
                f"finishedAt: {{{{ $now | Quote }}}}, {started}}}",
            ),
            after=_RUN,
        ),
        # As a kubelet does: only a pod that has ended goes, and only that lets its Job's finalizer go.
        _stage(
            "pod-killed",
            "Pod",
            [(".metadata.deletionTimestamp", "Exists", []), (".status.phase", "In", ["Pending", "Running"])],
            _pod_status(
                "Failed", f"terminated: {{exitCode: 137, finishedAt: {{{{ $now | Quote }}}}, {started}}}"
            ),
        ),
        _stage(
            "pod-gone",
            "Pod",
            [(".metadata.deletionTimestamp", "Exists", []), (".status.phase", "In", ["Succeeded", "Failed"])],
        ),
    ]


def _pod_status(phase: str, state: str) -> str:
    return f"""
            {{{{ $now := Now }}}}
            phase: {phase}
            containerStatuses:
            {{{{ range .spec.containers }}}}
            - name: {{{{ .name | Quote }}}}
              image: {{{{ .image | Quote }}}}
              ready: {"true" if phase == "Running" else "false"}
              restartCount: 0
              state: {{{state}}}
            {{{{ end }}}}
            """


def _stage(
    name: str, kind: str, when: list[tuple[str, str, list[str]]], status: str = "", after: str = ""
) -> dict[str, Any]:
    """Objects of ``kind`` that match ``when`` get ``status``, or are deleted; ``after`` what an annotation says."""
    expressions = [
        {"key": key, "operator": operator, **({"values": values} if values else {})}
        for key, operator, values in when
    ]
    delay = (
        {"delay": {"durationFrom": {"expressionFrom": f'.metadata.annotations["{after}"]'}}} if after else {}
    )
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": expressions},
            "next": {"statusTemplate": status} if status else {"delete": True},
            **delay,
        },
    }
