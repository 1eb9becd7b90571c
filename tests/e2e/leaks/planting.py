"""Puts two canaries into every place, by the way on which values would get there, in several encodings.

A search that does not find these proves nothing. What they were planted in is deleted again where it can be: history
is searched, not only what is there.
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pytest

from testing.cluster.client import ApiError, Object
from testing.cluster.node import NodeCluster
from testing.namespace import TASK_IMAGE, python, run

from .canaries import Canary, Mint, forms

NAME = "planted"
FORMS = (
    *("raw", "hex", "HEX", "json", "json-utf8", "json-go", "url", "url-path", "url-query", "url-lower"),
    *("repr", "repr-unquoted", "repr-bytes", "repr-bytes-unquoted"),
    *(f"{name}+{place}" for name in ("base64", "base64url") for place in range(3)),
)
"""In which they are planted: what fits into a variable and an address. That all others are found unit tests show."""


class Planting:
    """Plants in a namespace of its own, which no operator serves."""

    def __init__(self, node: NodeCluster, namespace: str, mint: Mint) -> None:
        self.node, self.namespace = node, namespace
        self.canaries: tuple[Canary, ...] = (mint.plain("planted"), mint.awkward("planted, awkward"))
        self.told: list[tuple[str, str]] = []

    @cached_property
    def text(self) -> str:
        """Both canaries in the forms of FORMS."""
        found = [forms(canary.text.encode()) for canary in self.canaries]
        return " ".join(form.decode() for each in found for name, form in each.items() if name in FORMS)

    def begin(self) -> None:
        """Plant whatever is searched at the end, and have a container start that goes on until then."""
        for manifest in self._objects():
            self.node.client.create(manifest)
        for manifest in self._objects():
            kind = f"{manifest['kind'].lower()}s"
            self.node.client.delete(kind, NAME, self.namespace)
        self.node.client.create(self._secret("mounted"))
        self.node.client.create(self._pod())
        with pytest.raises(ApiError) as refused:  # the answer quotes what was asked for
            self.node.client.create(self._object("v1", "ConfigMap", labels={"no-label": self.text}))
        self.told.append(("whoever planted", refused.value.message))
        where = f"/api/v1/namespaces/{self.namespace}/configmaps"
        self.node.client.request("GET", where, query={"note": self.text})

    def end(self) -> None:
        """Wait until the container has printed."""
        self.node.client.wait_for("pods", "live", self.namespace, _runs)

    def _objects(self) -> Iterator[Object]:
        yield self._object("v1", "ConfigMap", data={"text": self.text})
        yield self._secret(NAME)
        involved = {"kind": "ConfigMap", "name": NAME, "namespace": self.namespace}
        yield self._object("v1", "Event", involvedObject=involved, message=self.text)
        yield self._object("coordination.k8s.io/v1", "Lease")
        pod = {"containers": [{"name": "main", "image": TASK_IMAGE}], "nodeSelector": {"no": "node"}}
        yield self._object("v1", "Pod", spec=pod)
        template = {"spec": {"restartPolicy": "Never", "containers": pod["containers"]}}
        yield self._object("batch/v1", "Job", spec={"suspend": True, "template": template})
        yield self._object("runkeys.dev/v1alpha1", "WorkflowRun", spec=run(self.namespace)["spec"])

    def _secret(self, name: str) -> Object:
        return self._object("v1", "Secret", name, stringData={"text": self.text})

    def _pod(self) -> Object:
        code = "import os, time; print(os.environ['PLANTED'], flush=True); time.sleep(3600)"
        container = {
            "name": "main",
            "image": TASK_IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": [*python(code), self.text],
            "env": [{"name": "PLANTED", "valueFrom": {"secretKeyRef": {"name": "mounted", "key": "text"}}}],
            "volumeMounts": [{"name": "mounted", "mountPath": "/mounted"}],
        }
        volume = {"name": "mounted", "secret": {"secretName": "mounted"}}
        spec = {"terminationGracePeriodSeconds": 1, "containers": [container], "volumes": [volume]}
        return self._object("v1", "Pod", "live", spec=spec)

    def _object(
        self,
        version: str,
        kind: str,
        name: str = NAME,
        labels: dict[str, str] | None = None,
        **fields: Any,
    ) -> Object:
        metadata: dict[str, Any] = {
            "name": name,
            "namespace": self.namespace,
            "annotations": {"text": self.text},
        }
        if labels:
            metadata["labels"] = labels
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def _runs(pod: Object) -> bool:
    return bool(pod["status"]["phase"] == "Running")


@contextmanager
def served(text: Callable[[], str]) -> Iterator[str]:
    """A server that answers every request with a text; gives its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join(10)
