"""The floor: a loop that watches the same pods and makes the operator's calls in the operator's order, nothing else.

No check, no plan, no queue, no model: whatever it is faster than the operator is what those cost. Run as a process
of its own, as the operator is: ``python -m bench.bare_loop KUBECONFIG NAMESPACE``.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

Json = dict[str, Any]
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_CONDITIONS = (
    "Authorized", "SecretsReady", "SecretsReleased", "Complete", "Failed", "Reconciling", "Stalled",
)  # fmt: skip


class Loop:
    """Makes the Secret of each run whose pod got a node, and deletes it when the pod has ended."""

    def __init__(self, server: str, http: aiohttp.ClientSession, namespace: str) -> None:
        self._http = http
        self._core = f"{server}/api/v1/namespaces/{namespace}"
        self._batch = f"{server}/apis/batch/v1/namespaces/{namespace}"
        self._ours = f"{server}/apis/runkeys.dev/v1alpha1/namespaces/{namespace}"
        self._tasks: dict[tuple[str, str], asyncio.Task[Any]] = {}

    async def run(self) -> None:
        """Go on until the process is ended."""
        query = {"labelSelector": "runkeys.dev/run", "fieldSelector": "spec.nodeName!=", "watch": "1"}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._http.get(f"{self._core}/pods", params=query, timeout=timeout) as events:
            print("serving", flush=True)
            async for line in events.content:
                pod = json.loads(line)["object"]
                ended = pod["status"]["phase"] in ("Succeeded", "Failed")
                key = (pod["metadata"]["name"], "gone" if ended else "made")
                if key not in self._tasks:
                    self._tasks[key] = asyncio.create_task(self._drop(pod) if ended else self._make(pod))

    async def _make(self, pod: Json) -> None:
        labels, core = pod["metadata"]["labels"], self._core
        job = labels["batch.kubernetes.io/job-name"]
        run_url = f"{self._ours}/workflowruns/{labels['runkeys.dev/run']}"
        run = await self._call("GET", run_url)
        await asyncio.gather(
            self._call("GET", f"{self._ours}/secretbindings/keys"),
            self._call("GET", f"{self._batch}/jobs/{job}"),
            self._call("GET", f"{core}/pods/{pod['metadata']['name']}"),
        )
        uid = pod["metadata"]["ownerReferences"][0]["uid"]
        version = {"resourceVersion": run["metadata"]["resourceVersion"]}
        await self._call("PATCH", f"{run_url}/status", {"metadata": version, "status": _status(job, uid)})
        source = await self._call("GET", f"{core}/secrets/source")
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": uid, "controller": True}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "runkeys.dev/run-secret",
            "immutable": True,
            "metadata": {"name": job, "ownerReferences": [owner]},
            "data": {"SECRET_API_TOKEN": source["data"]["token"]},
        }
        await self._call("POST", f"{core}/secrets", secret)

    async def _drop(self, pod: Json) -> None:
        job = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        await self._call(
            "DELETE", f"{self._core}/secrets/{job}", {"kind": "DeleteOptions", "apiVersion": "v1"}
        )

    async def _call(self, method: str, url: str, body: Json | None = None) -> Json:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Accept": _METADATA_ONLY if method in ("POST", "DELETE") else "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = kind
            data = json.dumps(body, separators=(",", ":")).encode()
        async with self._http.request(method, url, data=data, headers=headers) as response:
            answer: Json = json.loads(await response.read())
        if response.status >= 300:
            raise RuntimeError(f"{method} {url}: {answer}")
        return answer


def _status(job: str, uid: str) -> Json:
    """A status of the size of the operator's."""
    now = datetime.now(UTC)
    condition = {
        "status": "True",
        "reason": "Running",
        "message": "",
        "lastTransitionTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "observedGeneration": 1,
    }
    exposure = {"created": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}", "estimated": True}
    attempt = {"number": 1, "job": job, "jobUID": uid, "exposures": [exposure]}
    return {
        "observedGeneration": 1,
        "phase": "Running",
        "tasksDone": "0/1",
        "live": 1,
        "startTime": condition["lastTransitionTime"],
        "conditions": [{"type": kind, **condition} for kind in _CONDITIONS],
        "tasks": [{"name": "work", "state": "Running", "reason": "", "message": "", "attempts": [attempt]}],
    }


async def main(config: Json, namespace: str) -> None:
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    trust = ssl.create_default_context(cafile=cluster["certificate-authority"])
    headers = {"Authorization": f"Bearer {user['token']}"}
    async with aiohttp.ClientSession(
        headers=headers, connector=aiohttp.TCPConnector(ssl=trust, limit=0), raise_for_status=False
    ) as http:
        await Loop(cluster["server"], http, namespace).run()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]))
