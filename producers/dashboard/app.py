"""The application: its addresses, and what becomes of an error."""

import asyncio

from aiohttp import web

from producers.dashboard.access import Access
from producers.dashboard.figures import Figures
from producers.dashboard.headers import add_headers
from promptmill.errors import PromptmillError


ACCESS = web.AppKey("access", Access)


def make_app(access: Access, figures: Figures) -> web.Application:
    """Everything that can be asked for."""
    app = web.Application()
    app[ACCESS] = access
    app.on_response_prepare.append(add_headers)

    async def healthz(_request: web.Request) -> web.Response:
        try:
            await asyncio.to_thread(figures.check)
        except PromptmillError:
            return web.json_response({"status": "the database does not answer"}, status=503)
        return web.json_response({"status": "ok"})

    app.router.add_get("/healthz", healthz)
    return app
