"""The floor for leases: a loop that makes the same calls to the store, in the same order, and no others.

No record, no check, no plan: whatever it is faster than the operator is what those cost. It gives a credential to pods
with the label ``app=bare``, in a Secret of the name of their Job, and takes it away when they have ended. Run as a
process of its own, as the operator is: ``python -m bench.bare_lease_loop KUBECONFIG SETTINGS``, both files with JSON.

====================  ==========================================================================
seen by the watch     calls
====================  ==========================================================================
a pod bound           POST token, log in, renew, read the credential, POST Secret
its container ended   DELETE Secret, revoke by accessor, look the lease up until it is not known
====================  ==========================================================================
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp

Json = dict[str, Any]
_PAUSE = 0.01


class Loop:
    """Leases for each pod, and revokes."""

    def __init__(self, config: Json, settings: Json) -> None:
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server = cluster["server"]
        self._trust = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._headers = {"Authorization": f"Bearer {user['token']}"}
        self._settings = settings
        self._core = f"{self._server}/api/v1/namespaces/{settings['namespace']}"
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
        query = {"labelSelector": "app=bare", "fieldSelector": "spec.nodeName!=", "watch": "1"}
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
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": ["bao"],
                "expirationSeconds": 600,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            },
        }
        answer = await self._call("POST", f"{self._core}/serviceaccounts/{account}/token", request)
        auth = await self._login(self._settings["role"], answer["status"]["token"])
        token = auth["client_token"]
        await self._ask(
            "POST", "auth/token/renew-self", token, {"increment": f"{self._settings['seconds']}s"}
        )
        _, made = await self._ask("GET", self._settings["path"], token)
        value = f"{made['data']['username']}:{made['data']['password']}".encode()
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "immutable": True,
            "metadata": {"name": metadata["labels"]["batch.kubernetes.io/job-name"]},
            "data": {"SECRET_API_TOKEN": base64.b64encode(value).decode()},
        }
        await self._call("POST", f"{self._core}/secrets", secret)
        return {"accessor": auth["accessor"], "lease": made["lease_id"]}

    async def _revoke(self, name: str, pod: Json) -> None:
        made = await self._begun[name]
        secret = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        await self._call("DELETE", f"{self._core}/secrets/{secret}")
        await self._ask("POST", "auth/token/revoke-accessor", self._revoker, {"accessor": made["accessor"]})
        while True:
            status, _ = await self._ask(
                "POST", "sys/leases/lookup", self._revoker, {"lease_id": made["lease"]}
            )
            if status == 400:
                return
            await asyncio.sleep(_PAUSE)

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

    async def _call(self, method: str, url: str, body: Json | None = None) -> Json:
        async with self._api.request(method, url, json=body) as response:
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
