"""The HTTP library of the event loop, imported here and nowhere else in the product.

It is aiohttp, spoken to directly: the pool of httpx costs 23 ms of CPU per call at 1,000 in flight, and a bridge
from one to the other as much again as aiohttp itself. A POST is never sent twice; aiohttp repeats a GET once when
a kept connection turns out to be closed, which costs nothing here.
"""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp

from promptmill.claude.surroundings import proxy_of, tls_context

__all__ = ["BROKEN", "Connections", "Content", "Request", "Response"]

Response = aiohttp.ClientResponse

#: What a broken exchange raises.
BROKEN = (aiohttp.ClientError, OSError)

#: Seconds an idle connection is kept. Shorter than the servers' own limit, so that they rarely close first.
KEEP_ALIVE = 30.0

#: Seconds, as in the official SDK: a plain call may be silent for minutes, and routers forget silent ones.
_PROBE_AFTER, _PROBE_EVERY, _PROBES = 60, 60, 5

#: Bytes of one header line, eight times aiohttp's own bound: an answer that is paid for is not thrown away for a long one.
LONGEST_HEADER = 65_536

_AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]


class Content(aiohttp.BytesPayload):
    """What a request brings along. aiohttp holds the headers back until it asks for this.

    It is let go once it is written: the answer may take minutes, and the prompt is in memory already.

    Attributes:
        begun: whether any byte of the request may have left; False while it waits for a connection.
    """

    begun = False

    async def write_with_length(
        self, writer: aiohttp.abc.AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Hand the bytes to the connection."""
        self.begun = True
        await super().write_with_length(writer, content_length)
        self._value = b""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; its repr would show the key.

    Attributes:
        method: GET or POST.
        url: without a query.
        headers: beside those of HTTP itself.
        idle: seconds between two pieces of the answer.
        content: as it is sent; one object for one request.
        query: what goes behind the address.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    idle: float
    content: Content | None = field(default=None, repr=False)
    query: Mapping[str, str | int] | None = None

    @property
    def sent(self) -> bool:
        """False when the request cannot have arrived. One without content is not followed: it costs nothing."""
        return self.content is None or self.content.begun


class _Connector(aiohttp.TCPConnector):
    """Gives a new connection so many seconds in all; aiohttp's own limits leave out DNS and what a proxy says."""

    def __init__(self, within: float, **options: Any) -> None:
        super().__init__(**options)
        self._within = within

    async def _create_connection(self, *args: Any) -> Any:
        try:
            async with asyncio.timeout(self._within):
                return await super()._create_connection(*args)
        except BROKEN as error:
            _forget_frames(error)
            raise


def _forget_frames(error: BaseException) -> None:
    """Those of aiohttp hold the error that holds them, and the request: only garbage collection would free it."""
    chained: BaseException | None = error
    while chained is not None:
        chained.__traceback__ = None
        chained = chained.__cause__ or chained.__context__


class Connections:
    """Connections to one server, for one event loop, with room for `most` calls at once; close them at the end.

    `connect`: seconds to open one: DNS, a proxy's consent and TLS included.
    """

    def __init__(self, base_url: str, *, most: int, connect: float) -> None:
        self._most, self._connect = most, connect
        self._proxy, credentials = _without_credentials(proxy_of(base_url))
        # A tunnel is asked for with headers of its own; in plain HTTP the proxy reads those of the request.
        tunnelled = urlsplit(base_url).scheme == "https"
        self._proxy_headers, self._headers = (credentials, {}) if tunnelled else ({}, credentials)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Response:
        """One request, answered by status and headers; the caller reads the rest and releases the response."""
        if self._session is None:
            self._session = self._open()
        return await self._session.request(
            request.method,
            request.url,
            params=request.query,
            headers={**request.headers, **self._headers} if self._headers else request.headers,
            data=request.content,
            allow_redirects=False,
            timeout=_timeout(request.idle),
            proxy=self._proxy,
            proxy_headers=self._proxy_headers,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = _Connector(
            self._connect,
            limit=self._most,
            keepalive_timeout=KEEP_ALIVE,
            ssl=tls_context(),
            socket_factory=_socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
        )


@cache
def _timeout(idle: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(sock_read=idle)


def _without_credentials(proxy: str | None) -> tuple[str | None, dict[str, str]]:
    """The proxy, and the header that says who we are to it."""
    if proxy is None:
        return None, {}
    parts = urlsplit(proxy)
    if parts.username is None:
        return proxy, {}
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
