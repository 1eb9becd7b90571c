"""The floor for leases: a loop that makes the operator's calls in its order, those to the store too, and nothing else.

No check, no plan, no queue, no model: whatever it is faster than the operator is what those cost. Somebody else makes
the Jobs. Run as a process of its own, as the operator is: ``python -m bench.bare_lease_loop KUBECONFIG SETTINGS``, both
files with JSON.

====================  ================================================================================
seen by the watch     calls
====================  ================================================================================
a pod bound           GET run, binding and pod, the review, GET SecretStore, POST token, log in, PATCH
                      status (the record), then renew and read the credential beside PATCH run (the
                      finalizer), PATCH status (the intent), POST Secret
its container ended   DELETE Secret, GET SecretStore, revoke, look the lease up until it is not known,
                      PATCH run
====================  ================================================================================
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from runkeys.names import FINALIZER, LABEL_RUN, LABEL_STORE

from .bare_loop import _encoded, _patch

Json = dict[str, Any]
_PAUSE = 0.01


class Loop:
    """Leases for each pod, and revokes."""

    def __init__(self, config: Json, settings: Json) -> None:
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        server, namespace = cluster["server"], settings["namespace"]
        self._trust = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._headers = {"Authorization": f"Bearer {user['token']}"}
        self._settings = settings
        self._core = f"{server}/api/v1/namespaces/{namespace}"
        self._ours = f"{server}/apis/runkeys.dev/v1alpha1/namespaces/{namespace}"
        self._store_url = f"{server}/apis/runkeys.dev/v1alpha1/secretstores/{settings['store']}"
        self._reviews = (
            f"{server}/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews"
        )
        self._begun: dict[str, asyncio.Task[Json]] = {}
        self._ended: set[str] = set()
        self._group = asyncio.TaskGroup()
        self._revoker = ""

    async def run(self) -> None:
        """Go on until the process is ended, or something fails."""
        store = ssl.create_default_context(cadata=self._settings["ca"])
        self._api = aiohttp.ClientSession(
            headers=self._headers, connector=aiohttp.TCPConnector(ssl=self._trust, limit=100)
        )
        self._store = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=store, limit_per_host=16))
        async with self._api, self._store, self._group:
            login = await self._login(self._settings["revoker"], self._settings["token"])
            self._revoker = login["client_token"]
            await self._watch()

    async def _watch(self) -> None:
        query = {"labelSelector": LABEL_RUN, "fieldSelector": "spec.nodeName!=", "watch": "1"}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._api.get(f"{self._core}/pods", params=query, timeout=timeout) as events:
            print("serving", flush=True)
            async for line in events.content:
                pod = json.loads(line)["object"]
                name = pod["metadata"]["name"]
                if name not in self._begun:
                    self._begun[name] = self._group.create_task(self._lease(pod))
                states = [item["state"] for item in pod["status"].get("containerStatuses", ())]
                if states and all("terminated" in state for state in states) and name not in self._ended:
                    self._ended.add(name)
                    self._group.create_task(self._revoke(name, pod))

    async def _lease(self, pod: Json) -> Json:
        metadata, account = pod["metadata"], pod["spec"]["serviceAccountName"]
        run_url = f"{self._ours}/workflowruns/{metadata['labels'][LABEL_RUN]}"
        job = metadata["labels"]["batch.kubernetes.io/job-name"]
        uid, now = metadata["ownerReferences"][0]["uid"], datetime.now(UTC)
        run, _ = await asyncio.gather(
            self._call("GET", run_url), self._call("GET", f"{self._ours}/secretbindings/leased")
        )
        await self._call("GET", f"{self._core}/pods/{metadata['name']}")
        await self._call("POST", self._reviews, self._may_use(run))
        await self._call("GET", self._store_url)
        answer = await self._call(
            "POST", f"{self._core}/serviceaccounts/{account}/token", self._request(metadata)
        )
        auth = await self._login(self._settings["role"], answer["status"]["token"])
        record = _patch(run["metadata"]["resourceVersion"], job, uid, now)
        run = await self._call("PATCH", f"{run_url}/status", record)
        run, made = await asyncio.gather(
            self._finalizers(run_url, run["metadata"]["resourceVersion"], [FINALIZER]),
            self._read(auth["client_token"]),
        )
        intent = _patch(run["metadata"]["resourceVersion"], job, uid, now)
        await self._call("PATCH", f"{run_url}/status", intent)
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": uid, "controller": True}
        value = f"{made['data']['username']}:{made['data']['password']}".encode()
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "runkeys.dev/run-secret",
            "immutable": True,
            "metadata": {"name": job, "ownerReferences": [owner]},
            "data": {"SECRET_API_TOKEN": base64.b64encode(value).decode()},
        }
        await self._call("POST", f"{self._core}/secrets", _encoded(secret))
        return {"accessor": auth["accessor"], "lease": made["lease_id"], "run": run_url}

    async def _read(self, token: str) -> Json:
        increment = {"increment": f"{self._settings['seconds']}s"}
        await self._ask("POST", "auth/token/renew-self", token, increment)
        _, made = await self._ask("GET", self._settings["path"], token)
        return made

    async def _revoke(self, name: str, pod: Json) -> None:
        made = await self._begun[name]
        secret = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        await self._call("DELETE", f"{self._core}/secrets/{secret}")
        await self._call("GET", self._store_url)
        await self._ask("POST", "auth/token/revoke-accessor", self._revoker, {"accessor": made["accessor"]})
        while True:
            status, _ = await self._ask(
                "POST", "sys/leases/lookup", self._revoker, {"lease_id": made["lease"]}
            )
            if status == 400:
                break
            await asyncio.sleep(_PAUSE)
        run = await self._call("GET", made["run"])
        await self._finalizers(made["run"], run["metadata"]["resourceVersion"], [])

    async def _finalizers(self, url: str, version: str, finalizers: list[str]) -> Json:
        body = {"metadata": {"resourceVersion": version, "finalizers": finalizers}}
        return await self._call("PATCH", url, _encoded(body))

    def _request(self, pod: Json) -> bytes:
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": pod["uid"]}
        return _encoded(
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "metadata": {"labels": {LABEL_STORE: self._settings["store"]}},
                "spec": {"audiences": ["bao"], "expirationSeconds": 600, "boundObjectRef": bound},
            }
        )

    def _may_use(self, run: Json) -> bytes:
        requester, namespace = run["spec"]["requester"], self._settings["namespace"]
        attributes = {
            "verb": "use",
            "group": "runkeys.dev",
            "version": "v1alpha1",
            "resource": "secretbindings",
            "namespace": namespace,
            "name": "leased",
        }
        asked = {
            "user": requester["username"],
            "groups": requester["groups"],
            "resourceAttributes": attributes,
        }
        return _encoded(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "LocalSubjectAccessReview",
                "metadata": {"namespace": namespace},
                "spec": asked,
            }
        )

    async def _login(self, role: str, token: str) -> Json:
        status, answer = await self._ask("POST", "auth/jwt/login", "", {"role": role, "jwt": token})
        if status != 200:
            raise RuntimeError(f"the login with role {role} was answered with {status}")
        auth: Json = answer["auth"]
        return auth

    async def _ask(self, method: str, path: str, token: str, body: Json | None = None) -> tuple[int, Json]:
        headers = {"X-Vault-Token": token} if token else {}
        url = f"{self._settings['address']}/v1/{path}"
        async with self._store.request(method, url, json=body, headers=headers) as response:
            content = await response.read()
            return response.status, json.loads(content) if content else {}

    async def _call(self, method: str, url: str, data: bytes | None = None) -> Json:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": kind} if data is not None else {}
        async with self._api.request(method, url, data=data, headers=headers) as response:
            answer: Json = json.loads(await response.read())
        if response.status >= 300:
            raise RuntimeError(f"{method} {url}: {answer.get('message')}")
        return answer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.bare_lease_loop")
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("settings", type=Path)
    given = parser.parse_args()
    asyncio.run(Loop(json.loads(given.kubeconfig.read_text()), json.loads(given.settings.read_text())).run())
