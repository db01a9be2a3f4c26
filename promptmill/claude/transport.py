"""The HTTP library, imported here and nowhere else in the product.

httpx's own connection pool costs 23 ms of CPU per call at 1,000 in flight, so its calls travel through
aiohttp. The API-compatible successor is a change of the two import lines below:
`import httpx2 as httpx` and `from httpx_aiohttp.httpx2 import AiohttpTransport`.

The surroundings are read in one place, `proxy_of`: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are obeyed,
but never for this machine's own addresses, where a proxy could not reach the simulator. SSL_CERT_FILE and
SSL_CERT_DIR replace the bundled certificates. Nothing else (no .netrc, no cookies) is taken from outside.
"""

import ipaddress
import socket
import ssl
import urllib.request
from functools import cache
from urllib.parse import urlsplit

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from promptmill.errors import ConfigurationError

__all__ = ["BROKEN", "httpx", "open_sync_client", "open_transport", "proxy_of", "was_sent"]

#: What a broken exchange raises: httpx's errors, and those of aiohttp that the bridge does not translate.
BROKEN = (httpx.HTTPError, aiohttp.ClientError, OSError)

#: What aiohttp raises while it connects. (The bridge calls a dropped connection a failed connect as well.)
_CONNECTING = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)

#: Seconds an idle connection is kept. Shorter than the servers' own limit, so that they rarely close first.
KEEP_ALIVE = 30.0

#: Seconds, as in the official SDK: a plain call may be silent for minutes, and routers forget silent ones.
_PROBE_AFTER, _PROBE_EVERY, _PROBES = 60, 60, 5

_AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]


def open_transport(base_url: str, *, max_connections: int) -> AiohttpTransport:
    """A transport to one server, for one event loop, with room for `max_connections` calls at once.

    Calls are handed to it directly: a client on top would add cookies, redirects and authentication, which no
    call to an API wants, and a third of the CPU time of a call. A POST is never sent twice; aiohttp repeats a
    GET once when a kept connection turns out to be closed, which costs nothing here.
    """

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=max_connections, keepalive_timeout=KEEP_ALIVE, ssl=_tls(), socket_factory=_socket
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    proxy = proxy_of(base_url)
    return AiohttpTransport(verify=_tls(), proxy=httpx.Proxy(proxy) if proxy else None, client=session)


def open_sync_client(base_url: str, *, timeout: float) -> httpx.Client:
    """A short-lived client for callers without an event loop; `timeout` in seconds, per step."""
    return httpx.Client(verify=_tls(), proxy=proxy_of(base_url), timeout=timeout, trust_env=False)


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for this URL; None for this machine's own addresses.

    Raises:
        ConfigurationError: the proxy is no HTTP proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_local(host) or urllib.request.proxy_bypass(host):
        return None
    found = urllib.request.getproxies()
    proxy = found.get(parts.scheme) or found.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        name = f"{parts.scheme}_proxy".upper()
        raise ConfigurationError(f"{name}: only HTTP proxies can be used", setting=name)
    return proxy


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@cache
def _tls() -> ssl.SSLContext:
    """One context for all connections of the process: reading the certificates takes tens of milliseconds."""
    return httpx.create_ssl_context()


def _socket(address: _AddrInfo) -> socket.socket:
    family, kind, protocol, *_ = address
    connection = socket.socket(family, kind, protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _PROBE_AFTER),
        ("TCP_KEEPINTVL", _PROBE_EVERY),
        ("TCP_KEEPCNT", _PROBES),
    ):
        option = getattr(socket, name, None)  # TCP_KEEPIDLE has another name on macOS
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
    return connection


def was_sent(error: BaseException) -> bool:
    """False when no connection came about, so that the request cannot have arrived."""
    return not isinstance(error.__cause__ or error, _CONNECTING)
