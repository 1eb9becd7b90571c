"""The floor for chains of tasks: a loop that makes each Job when the one before it is complete, nothing else.

``python -m bench.chain_loop KUBECONFIG NAMESPACE TEMPLATE WIDTH LENGTH``: so many chains of so many Jobs, side by side.
Their names are ``chain-<column>-<place>``.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp

Json = dict[str, Any]
LABEL = "bench/chain"


async def main(config: Json, namespace: str, template: str, width: int, length: int) -> None:
    """Go on until all chains are at their end, or something fails."""
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    jobs = f"{cluster['server']}/apis/batch/v1/namespaces/{namespace}/jobs"
    trust = ssl.create_default_context(cafile=cluster["certificate-authority"])
    headers = {"Authorization": f"Bearer {user['token']}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=trust)) as http:

        async def make(column: int, place: int) -> None:
            body = template.replace("COLUMN", str(column)).replace("PLACE", str(place))
            async with http.post(jobs, data=body.encode()) as response:
                if response.status >= 300:
                    raise RuntimeError(await response.text())

        left, done = width * length, set[str]()
        timeout = aiohttp.ClientTimeout(total=None)
        query = {"labelSelector": LABEL, "watch": "1"}
        async with http.get(jobs, params=query, timeout=timeout) as events, asyncio.TaskGroup() as group:
            for column in range(width):
                group.create_task(make(column, 0))
            async for line in events.content:
                job = json.loads(line)["object"]
                name = job["metadata"]["name"]
                complete = any(item["type"] == "Complete" for item in job["status"].get("conditions", ()))
                if not complete or name in done:
                    continue
                done.add(name)
                left -= 1
                column, place = (int(part) for part in name.split("-")[1:])
                if place + 1 < length:
                    group.create_task(make(column, place + 1))
                if not left:
                    return


if __name__ == "__main__":
    kubeconfig, where, body, *size = sys.argv[1:]
    asyncio.run(
        main(json.loads(Path(kubeconfig).read_text()), where, Path(body).read_text(), *map(int, size))
    )
