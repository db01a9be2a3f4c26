"""The gate before every address: the name it is asked for by, who may read, who may act.

The one idea: `access` knows the rules; here they meet a request.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from producers.dashboard.access import Access, is_same_site
from producers.dashboard.sessions import Session, Sessions

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

COOKIE = "promptmill_session"
GUARD = "X-Promptmill-Guard"
"""The header in which an action brings along the word that only our page knows."""
_BEARER = "Bearer "
OPEN_TO_ALL = frozenset({"/healthz"})
"""Tells nobody anything, and is asked for by whatever name an orchestrator has for it."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets requests in."""

    access: Access
    sessions: Sessions = field(default_factory=Sessions)

    def session(self, request: web.Request) -> Session | None:
        """The session of this browser."""
        return self.sessions.find(request.cookies.get(COOKIE), time.monotonic())

    def may_read(self, request: web.Request) -> bool:
        """Whether figures are told."""
        return self.access.reads_freely or self.session(request) is not None or self._has_token(request)

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
        if request.headers.get(GUARD) != session.guard:
            raise refused(web.HTTPForbidden, f"the header {GUARD} is missing or wrong; load the page again")

    def check_origin(self, request: web.Request) -> None:
        """Raise HTTPForbidden unless a page of this very server asks."""
        if not is_same_site(request.headers.get("Origin"), request.headers.get("Host")):
            raise refused(web.HTTPForbidden, "the request comes from another site")

    def check_read(self, request: web.Request) -> None:
        """Raise HTTPUnauthorized unless figures are told to whoever asks."""
        if not self.may_read(request):
            raise refused(web.HTTPUnauthorized, "sign in first, or send the token as: Authorization: Bearer")

    def _has_token(self, request: web.Request) -> bool:
        header = request.headers.get("Authorization", "")
        return header.startswith(_BEARER) and self.access.is_token(header.removeprefix(_BEARER))


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
