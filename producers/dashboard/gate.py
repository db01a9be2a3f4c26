"""The gate before every address: the name it is asked for by, who may read, who may act.

The one idea: `access` knows the rules; here they meet a request.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NoReturn

from aiohttp import web

from producers.dashboard.access import Access, is_same_site, is_text, port_of
from producers.dashboard.sessions import Session, Sessions
from promptmill.logs import get_logger

log = get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_COOKIE = "promptmill_session"
_OURS_ALONE = "__Host-"
"""A browser takes a cookie of such a name from its own host alone, and by TLS alone."""
GUARD = "X-Promptmill-Guard"
"""The header in which an action brings along the word that only our page knows."""
_BEARER = "Bearer "
WRONG_S = 1.0
"""What a wrong token costs whoever tries it."""
MOST_TRIES = 10
"""Wrong tokens that wait out their second at once."""
OPEN_TO_ALL = frozenset({"/healthz"})
"""Tells nobody anything, and is asked for by whatever name an orchestrator has for it."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets requests in."""

    access: Access
    sessions: Sessions = field(default_factory=Sessions)
    _tries: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_TRIES))

    def session(self, request: web.Request) -> Session | None:
        """The session of this browser."""
        return self.sessions.find(session_name(request), time.monotonic())

    def may_read(self, request: web.Request) -> bool:
        """Whether figures are told."""
        return self.reads_in_browser(request) or self._has_token(request)

    def reads_in_browser(self, request: web.Request) -> bool:
        """The same without the token in a header, which a browser never sends: nothing here tells whether one is right."""
        return self.access.reads_freely or self.session(request) is not None

    async def check_bearer(self, request: web.Request) -> None:
        """Make a wrong token in a header cost what it costs in the form. Who is signed in needs none.

        Raises:
            HTTPUnauthorized: it is not the token.
            HTTPException: see `refuse_token`.
        """
        offered = _bearer(request)
        if offered is None or self.access.token is None or self.session(request) is not None:
            return
        if not self.access.is_token(offered):
            await self.refuse_token(request, web.HTTPUnauthorized, offered)

    async def refuse_token(
        self, request: web.Request, kind: type[web.HTTPException], offered: object
    ) -> NoReturn:
        """Take a second, write it down, and raise `kind`. A right token never comes here, so it never waits.

        Raises:
            HTTPBadRequest: what was offered is no text.
            HTTPTooManyRequests: too many wrong ones wait already.
        """
        if not isinstance(offered, str) or not is_text(offered):
            raise refused(web.HTTPBadRequest, "the token must be text")
        if self._tries.locked():
            raise refused(web.HTTPTooManyRequests, "too many tries at once; wait a moment")
        async with self._tries:
            await asyncio.sleep(WRONG_S)
        log.warning("page_token_refused", remote=request.remote)
        raise refused(kind, "this is not the token")

    def check_act(self, request: web.Request) -> None:
        """Raise unless this is a person who is signed in, or a program with the token, and no strange page.

        Raises:
            HTTPForbidden: nobody may act here, or the request comes from elsewhere.
            HTTPUnauthorized: nobody is signed in.
        """
        if self.access.token is None:
            raise refused(
                web.HTTPForbidden, "this page only shows: set PROMPTMILL_DASHBOARD_TOKEN to act through it"
            )
        if self._has_token(request):
            return
        session = self.session(request)
        if session is None:
            raise refused(web.HTTPUnauthorized, "sign in first")
        self.check_origin(request)
        if not session.is_guard(request.headers.get(GUARD)):
            raise refused(web.HTTPForbidden, f"the header {GUARD} is missing or wrong; sign in again")

    def check_origin(self, request: web.Request) -> None:
        """Raise HTTPForbidden unless a page of this very server asks."""
        if not is_same_site(request.headers.get("Origin"), request.headers.get("Host")):
            raise refused(web.HTTPForbidden, "the request comes from another site")

    def check_read(self, request: web.Request) -> None:
        """Raise HTTPUnauthorized unless figures are told to whoever asks."""
        if not self.may_read(request):
            raise refused(web.HTTPUnauthorized, "sign in first, or send the token as: Authorization: Bearer")

    def _has_token(self, request: web.Request) -> bool:
        return self.access.is_token(_bearer(request))


def cookie_name(request: web.Request, *, is_encrypted: bool) -> str:
    """One for each port, so that two pages of one host sign nobody out of the other."""
    port = port_of(request.headers.get("Host"))
    return f"{_OURS_ALONE if is_encrypted else ''}{_COOKIE}{'' if port is None else f'_{port}'}"


def session_name(request: web.Request) -> str | None:
    """What the cookie of this browser says; the one that came by TLS before any other."""
    for is_encrypted in (True, False):
        found = request.cookies.get(cookie_name(request, is_encrypted=is_encrypted))
        if found:
            return found
    return None


def _bearer(request: web.Request) -> str | None:
    header = request.headers.get("Authorization", "")
    return header.removeprefix(_BEARER) if header.startswith(_BEARER) else None


GATE = web.AppKey("gate", Gate)


@web.middleware
async def check_where_from(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a name that is not ours, and what another site has a browser ask for."""
    if request.path in OPEN_TO_ALL:
        return await handler(request)
    if not request.app[GATE].access.knows_name(request.headers.get("Host")):
        raise refused(
            web.HTTPMisdirectedRequest,
            "this page is not known by that name; see --allow-host in docs/dashboard.md",
        )
    if request.path.startswith("/api/") and request.headers.get("Sec-Fetch-Site") in {
        "cross-site",
        "same-site",
    }:
        raise refused(web.HTTPForbidden, "the request comes from another site")
    return await handler(request)


def refused(kind: type[web.HTTPException], why: str) -> web.HTTPException:
    """An error that is told as a sentence; see `app.tell_errors`."""
    return kind(reason=None, text=why)
