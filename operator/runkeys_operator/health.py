"""The probes: `/healthz` while the event loop turns, `/readyz` once all is in place or for a standby; `/metrics`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from runkeys_operator.errors import StartError
from runkeys_operator.leader_election import Lease
from runkeys_operator.process import metrics


class Health:
    """What the probes answer. A dead background task needs no answer: it ends the process."""

    def __init__(self, lease: Lease | None) -> None:
        self.ready = False
        metrics.ready.set_function(lambda: float(self.ready))
        metrics.leader.set_function(lambda: float(lease is None or (lease.leads and lease.holds)))
        self.problem = "starting"
        """Why it is not ready."""
        self._lease = lease

    @asynccontextmanager
    async def served(self, port: int) -> AsyncIterator[None]:
        """Answer on `port`, on all addresses; 0 answers nowhere."""
        if not port:
            yield
            return
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)])
        app.add_routes([web.get("/metrics", self._metrics)])
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, port=port).start()
            except OSError as error:
                raise StartError(f"cannot listen on port {port}: {error.strerror or error}") from None
            yield
        finally:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        ready, text = self._state()
        return web.Response(status=200 if ready else 503, text=f"{text}\n")

    def _state(self) -> tuple[bool, str]:
        lease = self._lease
        if lease is not None and lease.follows and not lease.leads:
            return True, "standby"
        if not self.ready:
            return False, self.problem
        if lease is not None and not lease.holds:
            return False, "leader, but it could not renew its lease"
        return True, "ready" if lease is None else "leader"

    async def _metrics(self, request: web.Request) -> web.Response:
        text, content_type = metrics.page(request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": content_type})
