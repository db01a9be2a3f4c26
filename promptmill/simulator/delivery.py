"""Sends a script over a connection: in time, in pieces, and up to the ending it asks for.

The one idea: the book is written before the last byte leaves, so whoever has the whole reply also finds it in
the ledger. It is written exactly once, as lost when the client went away before.
"""

import socket
import struct
from collections.abc import Callable, Mapping

from aiohttp import web

from promptmill.clock import Clock
from promptmill.simulator.ledger import Fate
from promptmill.simulator.script import Ending, Script

_LINGER_NOT = struct.pack("ii", 1, 0)
_JSON = "application/json"
_EVENTS = "text/event-stream; charset=utf-8"


async def deliver_plain(
    request: web.BaseRequest,
    script: Script,
    *,
    admitted_at: float,
    headers: Mapping[str, str],
    clock: Clock,
    book: Callable[[Fate], None],
) -> web.StreamResponse:
    """Send a JSON body; `book` is called once with what became of it."""
    if script.ending is Ending.RESET or len(script.parts) > 1:
        whole = str(sum(len(data) for _, data in script.parts) + (script.ending is Ending.RESET))
        described = {**headers, "Content-Type": _JSON, "Content-Length": whole}
        return await _send_parts(request, script, admitted_at, described, clock, book)
    when, data = script.parts[0]
    await wait_until(admitted_at + when, clock)
    book(Fate.LOST if is_gone(request) else script.fate)
    return web.Response(body=data, headers={**headers, "Content-Type": _JSON})


async def deliver_stream(
    request: web.BaseRequest,
    script: Script,
    *,
    admitted_at: float,
    headers: Mapping[str, str],
    clock: Clock,
    book: Callable[[Fate], None],
) -> web.StreamResponse:
    """Send server-sent events; `book` is called once with what became of them."""
    described = {**headers, "Content-Type": _EVENTS, "Cache-Control": "no-cache"}
    return await _send_parts(request, script, admitted_at, described, clock, book)


async def wait_until(moment: float, clock: Clock) -> None:
    """Wait for a monotonic moment."""
    left = moment - clock.monotonic()
    if left > 0:
        await clock.sleep(left)


def is_gone(request: web.BaseRequest) -> bool:
    """True when the client has closed the connection."""
    return request.transport is None or request.transport.is_closing()


def reset(request: web.BaseRequest) -> web.StreamResponse:
    """End the connection with a TCP reset; what is returned is never sent."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()
    return web.Response()


async def _send_parts(  # noqa: PLR0917  private, and called in two places above
    request: web.BaseRequest,
    script: Script,
    admitted_at: float,
    headers: Mapping[str, str],
    clock: Clock,
    book: Callable[[Fate], None],
) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    booked = False
    last = len(script.parts) - 1
    try:
        for number, (when, data) in enumerate(script.parts):
            await wait_until(admitted_at + when, clock)
            if number == 0:
                await response.prepare(request)
            if number == last and not is_gone(request):
                booked = True
                book(script.fate)
            await response.write(data)
        if script.ending is Ending.RESET:
            return reset(request)
        await response.write_eof()
    except ConnectionError:
        pass
    finally:
        if not booked:
            book(Fate.LOST)
    return response
