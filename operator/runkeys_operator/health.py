"""The probes and the metrics: `/healthz` while the event loop runs, `/readyz` if ready or a standby, `/metrics`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from runkeys_operator.errors import StartError
from runkeys_operator.leader_election import Lease
from runkeys_operator.process import metrics


class Health:
    """The answers to the probes. A background task that fails needs none: it ends the process.

    :ivar ready: whether every watch has been opened and the last resync did not fail.
    :ivar problem: why it is not ready.
    """

    def __init__(self, lease: Lease | None) -> None:
        self.ready = False
        metrics.ready.set_function(lambda: float(self.ready))
        metrics.leader.set_function(lambda: float(lease is None or (lease.leads and lease.holds)))
        self.problem = "starting"
        self._lease = lease

    @asynccontextmanager
    async def served(self, port: int) -> AsyncIterator[None]:
        """Serve on `port`, on all addresses; 0 serves nothing.

        :raises StartError: the port cannot be used.
        """
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
