"""What every answer carries, so that a browser does with it what we mean and nothing else.

Nothing is loaded from elsewhere, no inline script or style runs, no other page may show ours in a frame, and no address
of ours is told to others. What a page shows is written as text, and the browser is told to refuse anything else.
"""

from aiohttp import web

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
_HEADERS = {
    "Content-Security-Policy": "; ".join(f"{what} {whence}" for what, whence in _POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Server": "promptmill",
}


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """A signal of aiohttp's: called for every answer, also for errors."""
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
