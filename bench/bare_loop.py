"""The floor: a loop that watches what the operator watches and makes its calls in its order, nothing else.

No check, no plan, no queue, no model: whatever it is faster than the operator is what those cost. Run as a process
of its own, as the operator is: ``python -m bench.bare_loop KUBECONFIG NAMESPACE [--jobs TEMPLATE]``.

With a template, the JSON of some run's Job, it sees to the whole life of every run, in five writes and seven reads:

=====================  =====================================  ==============================================
seen by a watch        reads                                  writes
=====================  =====================================  ==============================================
a run                  GET run, binding, source               POST Job
its pod bound          GET run, binding and pod, then source  PATCH status (the intent), then POST Secret
its pod ended                                                 DELETE Secret
its Job complete                                              PATCH status (final)
=====================  =====================================  ==============================================

Without one, somebody else makes the Jobs, and nobody waits for a final status. It ends with an error as soon as
anything is not as expected.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from runkeys.api.run_status import FINAL_PHASES
from runkeys.names import LABEL_RUN, attempt_name

Json = dict[str, Any]
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_TRIES = 100
_CONDITIONS = (
    "Authorized", "SecretsReady", "SecretsReleased", "Complete", "Failed", "Reconciling", "Stalled",
)  # fmt: skip


class JobTemplate:
    """The Job of one run, as text in which names and uid are replaced: no model is made for a run."""

    def __init__(self, job: Json) -> None:
        self._text = json.dumps(job, separators=(",", ":"))
        run = job["metadata"]["ownerReferences"][0]
        # The Job's name holds that of the run, so it goes first.
        self._names = job["metadata"]["name"], run["name"], run["uid"]
        self._task: str = job["metadata"]["labels"]["runkeys.dev/task"]

    def of(self, run: str, uid: str) -> bytes:
        """The JSON of the Job of the run with this name and uid."""
        text = self._text
        for old, new in zip(self._names, (attempt_name(run, uid, self._task, 1), run, uid), strict=True):
            text = text.replace(old, new)
        return text.encode()


class Loop:
    """Makes the Secret of each run whose pod got a node, and deletes it when the pod has ended."""

    def __init__(
        self, server: str, http: aiohttp.ClientSession, namespace: str, template: JobTemplate | None
    ) -> None:
        self._http = http
        self._core = f"{server}/api/v1/namespaces/{namespace}"
        self._batch = f"{server}/apis/batch/v1/namespaces/{namespace}"
        self._ours = f"{server}/apis/runkeys.dev/v1alpha1/namespaces/{namespace}"
        reviews = f"{server}/apis/authorization.k8s.io/v1/namespaces/{namespace}"
        self._reviews = f"{reviews}/localsubjectaccessreviews"
        self._namespace = namespace
        self._template = template
        self._watches = 0
        self._group = asyncio.TaskGroup()
        self._started: set[str] = set()  # uids of runs
        # All by the names of Jobs. What was made: the run's version, and when its Secret was.
        self._made: dict[str, asyncio.Task[tuple[str, datetime]]] = {}
        self._dropped: set[str] = set()
        self._gone: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._finished: set[str] = set()

    async def run(self) -> None:
        """Go on until the process is ended, or something fails."""
        watches: list[tuple[str, Json, Callable[[Json], None]]] = [
            (
                f"{self._core}/pods",
                {"labelSelector": LABEL_RUN, "fieldSelector": "spec.nodeName!="},
                self._on_pod_event,
            )
        ]
        if self._template is not None:
            going_on = ",".join(f"status.phase!={phase}" for phase in FINAL_PHASES)
            watches += [
                (f"{self._ours}/workflowruns", {"fieldSelector": going_on}, self._on_run_event),
                (f"{self._batch}/jobs", {"labelSelector": LABEL_RUN}, self._on_job_event),
            ]
        self._watches = len(watches)
        async with self._group:
            for url, query, saw in watches:
                self._group.create_task(self._watch(url, query, saw))

    async def _watch(self, url: str, query: Json, saw: Callable[[Json], None]) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        said = ""
        for _ in range(_TRIES):
            async with self._http.get(url, params={**query, "watch": "1"}, timeout=timeout) as events:
                if (
                    events.status != 200
                ):  # rights and kinds are new: not every part of the server knows them yet
                    said = await events.text()
                    await asyncio.sleep(0.1)
                    continue
                self._watches -= 1
                if not self._watches:
                    print("serving", flush=True)
                async for line in events.content:
                    saw(json.loads(line)["object"])
            break
        raise RuntimeError(f"the watch of {url} ended: {said}")

    # what the watches show

    def _on_run_event(self, run: Json) -> None:
        uid = run["metadata"]["uid"]
        if uid not in self._started:
            self._started.add(uid)
            self._group.create_task(self._start(run["metadata"]["name"], uid))

    def _on_pod_event(self, pod: Json) -> None:
        job = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        if job not in self._made:
            self._made[job] = self._group.create_task(self._make(job, pod["metadata"]))
        if pod["status"]["phase"] in ("Succeeded", "Failed") and job not in self._dropped:
            self._dropped.add(job)
            self._group.create_task(self._drop(job))

    def _on_job_event(self, job: Json) -> None:
        name = job["metadata"]["name"]
        conditions = {item["type"] for item in job.get("status", {}).get("conditions", ())}
        if "Complete" in conditions and name not in self._finished:
            self._finished.add(name)
            self._group.create_task(self._finish(name, job["metadata"]))

    # what is done about it

    async def _start(self, run: str, uid: str) -> None:
        assert self._template is not None
        found = await self._call("GET", f"{self._ours}/workflowruns/{run}")
        await self._call("GET", f"{self._ours}/secretbindings/keys")
        await self._call("POST", self._reviews, self._may_use(found))
        await self._call("GET", f"{self._core}/secrets/source")
        await self._call("POST", f"{self._batch}/jobs", self._template.of(run, uid))

    async def _make(self, job: str, pod: Json) -> tuple[str, datetime]:
        labels, run_url = pod["labels"], f"{self._ours}/workflowruns/{pod['labels'][LABEL_RUN]}"
        run, _ = await asyncio.gather(
            self._call("GET", run_url), self._call("GET", f"{self._ours}/secretbindings/keys")
        )
        await self._call("GET", f"{self._core}/pods/{pod['name']}")
        await self._call("POST", self._reviews, self._may_use(run))
        source = await self._call("GET", f"{self._core}/secrets/source")
        uid, now = pod["ownerReferences"][0]["uid"], datetime.now(UTC)
        intent = _patch(run["metadata"]["resourceVersion"], job, uid, now)
        answer = await self._call("PATCH", f"{run_url}/status", intent)
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": uid, "controller": True}
        ours = {
            name: labels[name] for name in labels if not name.startswith(("batch.", "job-", "controller-"))
        }
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "runkeys.dev/run-secret",
            "immutable": True,
            "metadata": {"name": job, "labels": ours, "ownerReferences": [owner]},
            "data": {"SECRET_API_TOKEN": source["data"]["token"]},
        }
        await self._call("POST", f"{self._core}/secrets", _encoded(secret))
        return answer["metadata"]["resourceVersion"], now

    def _may_use(self, run: Json) -> bytes:
        """Return the review that asks whether the run's requester may use the binding. Its answer is not used."""
        requester = run["spec"]["requester"]
        attributes = {
            "verb": "use",
            "group": "runkeys.dev",
            "version": "v1alpha1",
            "resource": "secretbindings",
            "namespace": self._namespace,
            "name": "keys",
        }
        return _encoded(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "LocalSubjectAccessReview",
                "metadata": {"namespace": self._namespace},
                "spec": {
                    "user": requester["username"],
                    "groups": requester["groups"],
                    "resourceAttributes": attributes,
                },
            }
        )

    async def _drop(self, job: str) -> None:
        await self._made[job]
        options = _encoded({"kind": "DeleteOptions", "apiVersion": "v1"})
        await self._call("DELETE", f"{self._core}/secrets/{job}", options)
        self._gone[job].set()

    async def _finish(self, job: str, metadata: Json) -> None:
        await self._gone[job].wait()
        version, created = await self._made[job]
        final = _patch(version, job, metadata["uid"], created, datetime.now(UTC))
        await self._call("PATCH", f"{self._ours}/workflowruns/{metadata['labels'][LABEL_RUN]}/status", final)

    async def _call(self, method: str, url: str, data: bytes | None = None) -> Json:
        """The answer's JSON; to a write its metadata only."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json" if data is None else _METADATA_ONLY}
        if data is not None:
            headers["Content-Type"] = kind
        async with self._http.request(method, url, data=data, headers=headers) as response:
            answer: Json = json.loads(await response.read())
        if response.status >= 300:
            raise RuntimeError(f"{method} {url}: {answer}")
        return answer


def _encoded(body: Json) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _patch(version: str, job: str, uid: str, created: datetime, deleted: datetime | None = None) -> bytes:
    """A status of the size of the operator's: the intent, or the final one when the Secret was ``deleted``."""
    done = deleted is not None
    second = f"{deleted or created:%Y-%m-%dT%H:%M:%SZ}"
    state = "Succeeded" if done else "Running"
    condition = {
        "status": "True",
        "reason": state,
        "message": "",
        "lastTransitionTime": second,
        "observedGeneration": 1,
    }
    exposure: Json = {"created": f"{created:%Y-%m-%dT%H:%M:%S.%fZ}", "estimated": not done}
    attempt: Json = {"number": 1, "job": job, "jobUID": uid, "startTime": second, "exposures": [exposure]}
    status: Json = {
        "observedGeneration": 1,
        "phase": state,
        "tasksDone": f"{int(done)}/1",
        "live": int(not done),
        "startTime": second,
        "conditions": [{"type": kind, **condition} for kind in _CONDITIONS],
        "tasks": [{"name": "work", "state": state, "reason": "", "message": "", "attempts": [attempt]}],
    }
    if deleted is not None:
        exposure["deleted"] = f"{deleted:%Y-%m-%dT%H:%M:%S.%fZ}"
        attempt["endTime"] = status["completionTime"] = second
        status["exposed"] = f"{(deleted - created).total_seconds():.1f}s"
    return _encoded({"metadata": {"resourceVersion": version}, "status": status})


async def main(config: Json, namespace: str, template: JobTemplate | None) -> None:
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    trust = ssl.create_default_context(cafile=cluster["certificate-authority"])
    headers = {"Authorization": f"Bearer {user['token']}"}
    # As many requests at once as aiohttp's default; more are only queued by the server instead.
    connector = aiohttp.TCPConnector(ssl=trust, limit=100)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as http:
        await Loop(cluster["server"], http, namespace, template).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.bare_loop")
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("namespace")
    parser.add_argument("--jobs", type=Path, help="JSON of some run's Job: make one like it for each run")
    given = parser.parse_args()
    example = given.jobs and JobTemplate(json.loads(given.jobs.read_text()))
    asyncio.run(main(json.loads(given.kubeconfig.read_text()), given.namespace, example))
