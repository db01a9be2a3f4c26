"""Where Claude is, and whether it is the real one: the simulator is never taken for it.

A batch remembers its endpoint at submit, so both sides ask here. The real API is known by its name; anything
else is asked once, without a key and without a prompt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from promptmill.claude import failures
from promptmill.claude.headers import SIMULATOR
from promptmill.errors import ConfigurationError, ConnectionFailed

REAL_API = "https://api.anthropic.com"

_HEALTH = "/_admin/health"

#: Seconds to connect, and again to answer.
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A base URL without password or trailing slash, and what answers there."""

    url: str
    simulated: bool


async def identify(base_url: str) -> Endpoint:
    """Ask what answers at `base_url`. The real API is not asked.

    Raises:
        ConfigurationError: it is no HTTP URL.
        ConnectionFailed: nothing answers; the message names ANTHROPIC_BASE_URL.
    """
    url = clean_url(base_url)
    if _is_real(url):
        return Endpoint(shown_url(url), simulated=False)
    from promptmill.claude.transport import BROKEN, Connections, Request  # noqa: PLC0415  # 0.4 s of imports that the real API does not need

    connections = Connections(url, most=1, connect=_PATIENCE)
    try:
        response = await connections.send(Request("GET", url + _HEALTH, headers={}, idle=_PATIENCE))
        response.release()
    except BROKEN as error:
        failure = _unreachable(url, error)
    else:
        return _endpoint(url, response.headers)
    finally:
        await connections.aclose()
    try:
        raise failure
    finally:
        del failure  # it refers to this frame by its traceback


def identify_now(base_url: str) -> Endpoint:
    """`identify` for callers without an event loop; the same answers and errors."""
    url = clean_url(base_url)
    if _is_real(url):
        return Endpoint(shown_url(url), simulated=False)
    from promptmill.claude.synchronous import BROKEN, open_sync_client  # noqa: PLC0415  # as in `identify`

    try:
        with open_sync_client(url, timeout=_PATIENCE) as client:
            response = client.get(url + _HEALTH)
    except BROKEN as error:
        failure = _unreachable(url, error)
    else:
        return _endpoint(url, response.headers)
    try:
        raise failure
    finally:
        del failure  # as in `identify`


def clean_url(base_url: str) -> str:
    """The base URL to build requests on: a path prefix is kept, a trailing slash is not.

    Raises:
        ConfigurationError: it is no HTTP URL, or has a query.
    """
    try:
        parts = urlsplit(base_url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ConfigurationError(
            "ANTHROPIC_BASE_URL: an address like https://api.anthropic.com is needed",
            setting="ANTHROPIC_BASE_URL",
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def shown_url(url: str) -> str:
    """The URL without user and password, for messages and tables."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _is_real(url: str) -> bool:
    return urlsplit(url).hostname == urlsplit(REAL_API).hostname


def _endpoint(url: str, headers: Mapping[str, str]) -> Endpoint:
    return Endpoint(shown_url(url), simulated=SIMULATOR in headers)


def _unreachable(url: str, error: Exception) -> ConnectionFailed:
    # This request held neither key nor prompt, so whatever the library says may be shown.
    cause = error.__cause__ or error
    why = failures.clean(f"{type(cause).__name__}: {cause}")
    return ConnectionFailed(f"ANTHROPIC_BASE_URL: nothing answers at {shown_url(url)} ({why})")
