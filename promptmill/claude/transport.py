"""The HTTP library of the event loop, imported here and nowhere else in the product.

It is aiohttp, spoken to directly: the pool of httpx costs 23 ms of CPU per call at 1,000 in flight, and a bridge
from one to the other as much again as aiohttp itself. A POST is never sent twice; aiohttp repeats a GET once when
a kept connection turns out to be closed, which costs nothing here.
"""

import socket
from collections.abc import Mapping
from functools import cache
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp

from promptmill.claude.surroundings import proxy_of, tls_context

__all__ = ["BROKEN", "Connections", "Response", "was_sent"]

Response = aiohttp.ClientResponse

#: What a broken exchange raises.
BROKEN = (aiohttp.ClientError, OSError)

#: What aiohttp raises while it connects.
_CONNECTING = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)

#: Seconds an idle connection is kept. Shorter than the servers' own limit, so that they rarely close first.
KEEP_ALIVE = 30.0

#: Seconds, as in the official SDK: a plain call may be silent for minutes, and routers forget silent ones.
_PROBE_AFTER, _PROBE_EVERY, _PROBES = 60, 60, 5

_AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]


class Connections:
    """Connections to one server, for one event loop, with room for `most` calls at once; close them at the end."""

    def __init__(self, base_url: str, *, most: int) -> None:
        self._most = most
        self._proxy, self._proxy_headers = _without_credentials(proxy_of(base_url))
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        query: Mapping[str, str | int] | None = None,
        connect: float,
        idle: float,
    ) -> Response:
        """One request, answered by status and headers; the caller reads the rest and releases the response.

        Args:
            method: GET or POST.
            url: without a query.
            headers: beside those of HTTP itself.
            body: as it is sent.
            query: what goes behind the address.
            connect: seconds to open a connection, TLS included.
            idle: seconds between two pieces of the answer.
        """
        if self._session is None:
            self._session = self._open()
        return await self._session.request(
            method,
            url,
            params=query,
            headers=headers,
            data=body,
            allow_redirects=False,
            timeout=_timeout(connect, idle),
            proxy=self._proxy,
            proxy_headers=self._proxy_headers,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._most, keepalive_timeout=KEEP_ALIVE, ssl=tls_context(), socket_factory=_socket
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


@cache
def _timeout(connect: float, idle: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(sock_connect=connect, sock_read=idle)


def _without_credentials(proxy: str | None) -> tuple[str | None, dict[str, str] | None]:
    """The proxy, and the header that says who we are to it."""
    if proxy is None:
        return None, None
    parts = urlsplit(proxy)
    if parts.username is None:
        return proxy, None
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    user, password = unquote(parts.username), unquote(parts.password or "")
    return bare, {"Proxy-Authorization": aiohttp.encode_basic_auth(user, password)}


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
    return not isinstance(error, _CONNECTING)
