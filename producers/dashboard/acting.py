"""What a person who is signed in may do: sign in and out, change a batch, run a schedule now.

The one idea: each is the call that the command of the same name makes, and answers with a sentence.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

import producers
from producers import schedules
from producers.batches import Batch
from producers.dashboard.gate import GATE, cookie_name, refused, session_name
from producers.wording import several
from promptmill.errors import InvalidInput
from promptmill.logs import get_logger
from promptmill.settings import Settings

log = get_logger(__name__)

SETTINGS = web.AppKey("settings", Settings)
MOST_BYTES = 16_384


async def session(request: web.Request) -> web.Response:
    """`GET /api/session`: what this browser may do. The guard is not told again: a cookie alone must not act."""
    gate = request.app[GATE]
    return web.json_response(
        {
            "can_act": gate.access.token is not None,
            "may_read": gate.reads_in_browser(request),
            "signed_in": gate.session(request) is not None,
        }
    )


async def sign_in(request: web.Request) -> web.Response:
    """`POST /api/session` with `{"token": …}`: a cookie that no script can read, and the word that actions bring along."""
    gate = request.app[GATE]
    gate.check_origin(request)
    if gate.access.token is None:
        raise refused(web.HTTPForbidden, "no token is set, so nobody can sign in")
    token = (await _document(request)).get("token")
    if not isinstance(token, str) or not gate.access.is_token(token):
        await gate.refuse_token(request, web.HTTPForbidden, token)
    log.info("page_sign_in", remote=request.remote)
    return _begun(request)


def _begun(request: web.Request) -> web.Response:
    name, guard = request.app[GATE].sessions.begin(time.monotonic())
    is_encrypted = request.headers.get("Origin", "").startswith("https:")
    response = web.json_response({"signed_in": True, "guard": guard})
    response.set_cookie(
        cookie_name(request, is_encrypted=is_encrypted),
        name,
        httponly=True,
        samesite="Strict",
        secure=is_encrypted,
        path="/",
    )
    return response


async def sign_out(request: web.Request) -> web.Response:
    """`DELETE /api/session`."""
    gate = request.app[GATE]
    gate.check_origin(request)
    gate.sessions.end(session_name(request))
    response = web.json_response({"signed_in": False})
    for is_encrypted in (True, False):
        # A browser takes a cookie of the first name from nobody who does not say Secure, also to delete it.
        response.del_cookie(cookie_name(request, is_encrypted=is_encrypted), path="/", secure=is_encrypted)
    return response


async def change_batch(request: web.Request) -> web.Response:
    """`POST /api/batches/NAME/pause`, `resume`, `cancel`, `retry` (`{"only": …}`) or `set` (`{"budget": …}`)."""
    request.app[GATE].check_act(request)
    what, wanted = request.match_info["what"], await _document(request)
    name, settings = request.match_info["name"], request.app[SETTINGS]

    def change() -> str:
        return _CHANGES[what](producers.batch(name, settings=settings), wanted)

    said = await asyncio.to_thread(change)
    log.warning("page_action", what=what, batch=name, remote=request.remote)
    return web.json_response({"said": said})


async def run_schedule(request: web.Request) -> web.Response:
    """`POST /api/schedules/NAME/run`."""
    request.app[GATE].check_act(request)
    await _document(request)
    name, settings = request.match_info["name"], request.app[SETTINGS]
    await asyncio.to_thread(partial(schedules.run, name, settings=settings))
    log.warning("page_action", what="run_schedule", schedule=name, remote=request.remote)
    return web.json_response({"said": f"{name} runs within about two seconds"})


async def _document(request: web.Request) -> Mapping[str, Any]:
    """A body that no form of another site can send."""
    if request.content_type != "application/json":
        raise refused(web.HTTPUnsupportedMediaType, "the body must be application/json")
    try:
        found = await request.json()
    except (ValueError, LookupError, RecursionError):  # no JSON, in a charset that nobody knows, or too deep
        raise refused(web.HTTPBadRequest, "the body is no JSON") from None
    if not isinstance(found, dict):
        raise refused(web.HTTPBadRequest, "the body must be an object")
    return found


def _pause(batch: Batch, _: Mapping[str, Any]) -> str:
    batch.pause()
    return f"{batch.name} is paused; calls in flight finish"


def _resume(batch: Batch, _: Mapping[str, Any]) -> str:
    batch.resume()
    return f"{batch.name} goes on"


def _cancel(batch: Batch, _: Mapping[str, Any]) -> str:
    has_ended = batch.cancel().batch.state == "ended"
    return (
        f"{batch.name} is canceled"
        if has_ended
        else f"{batch.name} is being canceled; calls in flight finish"
    )


def _retry(batch: Batch, wanted: Mapping[str, Any]) -> str:
    only = wanted.get("only")
    if only is not None and not isinstance(only, str):
        raise InvalidInput("must be a word", field="only")
    retried = batch.retry(only)
    return (
        f"{batch.name}: {several(retried, 'job')} will be tried again"
        if retried
        else "nothing is to be retried"
    )


def _set(batch: Batch, wanted: Mapping[str, Any]) -> str:
    budget = wanted.get("budget")
    if not isinstance(budget, str):
        raise InvalidInput("is missing: dollars, or none", field="budget")
    batch.set(budget=budget)
    return f"{batch.name} has no budget" if budget == "none" else f"{batch.name} has a budget of ${budget}"


_CHANGES: dict[str, Callable[[Batch, Mapping[str, Any]], str]] = {
    "pause": _pause,
    "resume": _resume,
    "cancel": _cancel,
    "retry": _retry,
    "set": _set,
}
WHAT = "|".join(_CHANGES)
