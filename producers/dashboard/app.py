"""The application: its addresses, and what becomes of an error."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from aiohttp import web

from producers.dashboard import acting, files, reading
from producers.dashboard.access import Access
from producers.dashboard.feed import Feed
from producers.dashboard.figures import Figures
from producers.dashboard.gate import GATE, Gate, Handler, check_where_from
from producers.dashboard.headers import add_headers
from producers.dashboard.health import Health
from promptmill.errors import (
    InvalidInput,
    InvalidTransition,
    NotFound,
    PromptmillError,
    Unavailable,
)
from promptmill.logs import get_logger, scrub, where

log = get_logger(__name__)

_STATUS: tuple[tuple[type[PromptmillError], int], ...] = (
    (NotFound, 404),
    (InvalidTransition, 409),
    (InvalidInput, 422),
    (Unavailable, 503),
)


def make_app(access: Access, figures: Figures, exposition: Callable[[], bytes]) -> web.Application:
    """Everything that can be asked for."""
    app = web.Application(
        middlewares=[tell_errors, check_where_from, check_reading], client_max_size=acting.MOST_BYTES
    )
    app[GATE] = Gate(access)
    app[reading.FEED] = Feed(figures.look)
    app[reading.EXPOSITION] = exposition
    app[acting.SETTINGS] = figures.settings
    app.on_response_prepare.append(add_headers)
    app.cleanup_ctx.append(_looking)
    app.on_shutdown.append(_end_streams)
    _add_pages(app, figures)
    _add_documents(app)
    return app


def _add_pages(app: web.Application, figures: Figures) -> None:
    """The page itself holds no figure, so everybody may have it: it holds the form to sign in."""
    found = files.load()
    health = Health(figures.check)

    async def page(request: web.Request) -> web.Response:
        return found["index.html"].answer(request)

    async def file(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in found:
            raise web.HTTPNotFound
        return found[name].answer(request)

    async def healthz(_request: web.Request) -> web.Response:
        if await health.is_well():
            return web.json_response({"status": "ok"})
        return web.json_response({"status": "the database does not answer"}, status=503)

    app.router.add_get("/", page)
    app.router.add_get("/batch/{name}", page)
    app.router.add_get("/static/{name}", file)
    app.router.add_get("/healthz", healthz)


def _add_documents(app: web.Application) -> None:
    get, post = app.router.add_get, app.router.add_post
    get("/metrics", reading.metrics)
    get("/api/session", acting.session)
    post("/api/session", acting.sign_in)
    app.router.add_delete("/api/session", acting.sign_out)
    get("/api/live", reading.live)
    get("/api/overview", reading.overview)
    get("/api/history", reading.history)
    for name in ("batches", "limits", "workers", "keys", "schedules"):
        get(f"/api/{name}", reading.part)
    get("/api/batches/{name}", reading.batch)
    post(f"/api/batches/{{name}}/{{what:{acting.WHAT}}}", acting.change_batch)
    post("/api/schedules/{name}/run", acting.run_schedule)


async def _looking(app: web.Application) -> AsyncIterator[None]:
    looking = asyncio.create_task(app[reading.FEED].run())
    yield
    looking.cancel()
    with suppress(asyncio.CancelledError):
        await looking


async def _end_streams(app: web.Application) -> None:
    app[reading.FEED].is_ending = True


@web.middleware
async def check_reading(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Figures are for those who may read; actions look for themselves."""
    told = request.path == "/metrics" or request.path.startswith("/api/")
    if told and request.path != "/api/session":
        await request.app[GATE].check_bearer(request)
        if request.method in {"GET", "HEAD"}:
            request.app[GATE].check_read(request)
    return await handler(request)


@web.middleware
async def tell_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One sentence as JSON, never a traceback, and never what was sent."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        why = (
            error.text if error.status != web.HTTPNotFound.status_code else "there is nothing at this address"
        )
        return web.json_response({"error": why}, status=error.status)
    except PromptmillError as error:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        return web.json_response({"error": scrub(str(error))}, status=status)
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001  # the last line of defence
        log.error("page_failed", **where(error))  # noqa: TRY400  # a traceback may quote what was sent
        return web.json_response({"error": "this went wrong; the page's log says where"}, status=500)
