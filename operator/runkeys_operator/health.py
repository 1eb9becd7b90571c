"""The probes: `/healthz` while the event loop turns, `/readyz` once all is known; and `/metrics`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from . import metrics
from .errors import StartError


class Health:
    """What the probes answer. A dead background task needs no answer: it ends the process."""

    def __init__(self) -> None:
        self.ready = False
        metrics.ready.set_function(lambda: float(self.ready))
        self.problem = "starting"
        """Why it is not ready."""

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
        return (
            web.Response(text="ready\n") if self.ready else web.Response(status=503, text=f"{self.problem}\n")
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        text, content_type = metrics.page(request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": content_type})
