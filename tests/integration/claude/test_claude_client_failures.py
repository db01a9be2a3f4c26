"""Calls that go wrong on a real wire: each is one error that says what is known, and no call is repeated."""

import asyncio
import contextlib
import json
import logging
import socket
import time
import traceback
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from promptmill.claude.client import ClaudeClient, Timeouts
from promptmill.claude.keys import Key
from promptmill.dimensions import Headroom
from promptmill.errors import (
    ClaudeError,
    ConnectionFailed,
    KeyRejected,
    Overloaded,
    RateLimited,
    ServerFailed,
)
from promptmill.prompts import Prompt
from promptmill.usage import Usage

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Talk = Callable[[Reader, Writer], Awaitable[None]]
ServeRaw = Callable[[Talk], Awaitable[str]]
Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
Open = Callable[..., ClaudeClient]

HEAD = (
    b"HTTP/1.1 200 OK\r\nrequest-id: req_1\r\nanthropic-ratelimit-requests-limit: 50\r\n"
    b"transfer-encoding: chunked\r\ncontent-type: "
)
STREAM_HEAD = HEAD + b"text/event-stream\r\n\r\n"
PLAIN_HEAD = HEAD + b"application/json\r\n\r\n"
END = b"0\r\n\r\n"
HEADROOM = Headroom(requests_limit=50)


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(**value: Any) -> bytes:
    return chunk(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode())


START = event(
    type="message_start",
    message={
        "type": "message",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 7, "output_tokens": 1},
    },
)
DELTA = event(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 4})
STOP = event(type="message_stop")
PARTIAL = Usage(input_tokens=7, output_tokens=1)


class Wire:
    """Sends fixed bytes, then ends the connection, or holds it until the client hangs up."""

    def __init__(self, *pieces: bytes, hold: bool = False, drip: float | None = None) -> None:
        self.calls = 0
        self.sent = asyncio.Event()
        self.hung_up = asyncio.Event()
        self._pieces, self._hold, self._drip = pieces, hold, drip

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        self.calls += 1
        for piece in self._pieces:
            writer.write(piece)
            await writer.drain()
        self.sent.set()
        while self._drip is not None:
            writer.write(event(type="ping"))
            await writer.drain()
            await asyncio.sleep(self._drip)
        if self._hold:
            with contextlib.suppress(ConnectionError):
                await reader.read()
            self.hung_up.set()


@pytest.fixture
def fail(
    serve_raw: ServeRaw, open_client: Open, key: Key, prompt: Prompt
) -> Callable[..., Awaitable[ClaudeError]]:
    """Call against a wire and hand back the error."""

    async def run(wire: Talk, *, stream: bool = True, **options: Any) -> ClaudeError:
        client = open_client(await serve_raw(wire), **options)
        with pytest.raises(ClaudeError) as caught:
            await client.create(prompt, key, stream=stream)
        return caught.value

    return run


Fail = Callable[..., Awaitable[ClaudeError]]


async def test_a_connection_that_never_came_about_was_not_sent_and_costs_nothing(
    open_client: Open, key: Key, prompt: Prompt
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # so that nobody else listens there
        client = open_client(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(ConnectionFailed) as caught:
            await client.create(prompt, key)
    assert not caught.value.sent


async def test_a_request_whose_connection_was_dropped_counts_as_sent(fail: Fail) -> None:
    failure = await fail(Wire(), stream=False)
    assert isinstance(failure, ConnectionFailed)
    assert failure.sent


# --- answers that break off ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((STREAM_HEAD, START, END), id="the stream ends without message_stop"),
        pytest.param((STREAM_HEAD, START, event(type="ping"), END), id="the stream ends after a ping"),
        pytest.param((STREAM_HEAD, START), id="the connection closes between two events"),
        pytest.param(
            (STREAM_HEAD, START, b"ffff\r\nevent: mess"), id="the connection closes inside an event"
        ),
        pytest.param(
            (STREAM_HEAD, START, chunk(b'event: message_delta\ndata: {"type"\n\n')), id="an event is broken"
        ),
        pytest.param((STREAM_HEAD, START, chunk(b"data: \xff\n\n")), id="an event is no text"),
        pytest.param((STREAM_HEAD, START, STOP, END), id="message_stop comes without a stop reason"),
    ],
)
async def test_a_cut_stream_is_a_connection_failure_that_keeps_what_was_used(
    fail: Fail, pieces: tuple[bytes, ...]
) -> None:
    wire = Wire(*pieces)
    failed = await fail(wire)
    assert type(failed) is ConnectionFailed
    assert (failed.usage, failed.headroom, failed.request_id) == (PARTIAL, HEADROOM, "req_1")
    assert wire.calls == 1


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((), id="the server hangs up"),
        pytest.param((b"HTTP/1.1 200 OK\r\nreq",), id="the headers are cut"),
        pytest.param((b"220 mail.example ESMTP\r\n",), id="it is another protocol"),
        pytest.param((b"\x15\x03\x01\x00\x02\x02\x16",), id="it is TLS"),
        pytest.param((PLAIN_HEAD, b"ffff\r\n{"), id="the body is cut"),
        pytest.param((STREAM_HEAD, b"not-a-size\r\n"), id="the chunks are broken"),
        pytest.param((PLAIN_HEAD, chunk(b"<html>"), END), id="the body is a page"),
        pytest.param((PLAIN_HEAD, chunk(b'{"type": "message"}'), END), id="the message has no usage"),
        pytest.param(
            (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",), id="it is no gzip"
        ),
        pytest.param(
            (b"HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n",), id="it is a redirect"
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_no_complete_answer_is_a_connection_failure(
    fail: Fail, pieces: tuple[bytes, ...], stream: bool
) -> None:
    wire = Wire(*pieces)
    failed = await fail(wire, stream=stream)
    assert type(failed) is ConnectionFailed
    assert failed.usage is None
    assert wire.calls == 1


async def test_a_connection_reset_is_a_connection_failure(fail: Fail) -> None:
    async def reset(_reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + START)
        await writer.drain()
        writer.transport.abort()

    assert type(await fail(reset)) is ConnectionFailed


async def test_nobody_listening_is_a_connection_failure(open_client: Open, key: Key, prompt: Prompt) -> None:
    with pytest.raises(ConnectionFailed, match=r"Cannot connect to host 127\.0\.0\.1:1 ") as caught:
        await open_client("http://127.0.0.1:1").create(prompt, key)
    assert caught.value.status is None


async def test_a_connection_that_breaks_after_the_answer_is_complete_changes_nothing(
    serve_raw: ServeRaw, open_client: Open, key: Key, prompt: Prompt
) -> None:
    wire = Wire(STREAM_HEAD, START, DELTA, STOP)
    reply = await open_client(await serve_raw(wire)).create(prompt, key, stream=True)
    assert reply.usage == Usage(input_tokens=7, output_tokens=4)


async def test_a_stream_that_is_left_open_is_closed_soon_after_its_end(
    serve_raw: ServeRaw, open_client: Open, key: Key, prompt: Prompt
) -> None:
    wire = Wire(STREAM_HEAD, START, DELTA, STOP, hold=True)
    reply = await open_client(await serve_raw(wire)).create(prompt, key, stream=True)
    assert reply.stop_reason == "end_turn"
    await wire.hung_up.wait()


# --- errors that the server states --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error"),
    [("overloaded_error", Overloaded), ("api_error", ServerFailed), ("rate_limit_error", RateLimited)],
)
async def test_an_error_event_keeps_what_was_used(fail: Fail, kind: str, error: type[ClaudeError]) -> None:
    stated = event(type="error", error={"type": kind, "message": "m"}, request_id="req_2")
    failed = await fail(Wire(STREAM_HEAD, START, stated, END))
    assert type(failed) is error
    assert (failed.status, failed.error_type, failed.usage) == (200, kind, PARTIAL)
    assert (failed.headroom, failed.request_id) == (HEADROOM, "req_1")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_429_brings_its_headers(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt, stream: bool
) -> None:
    async def limited(_request: web.Request) -> web.Response:
        error = {"type": "rate_limit_error", "message": "Rate limited"}
        headers = {
            "Retry-After": "7",
            "Anthropic-RateLimit-Input-Tokens-Remaining": "0",
            "Request-Id": "req_1",
        }
        return web.json_response({"type": "error", "error": error}, status=429, headers=headers)

    with pytest.raises(RateLimited) as caught:
        await open_client(await serve(limited)).create(prompt, key, stream=stream)
    assert (caught.value.retry_after, caught.value.dimension) == (7.0, "input_tokens")
    assert caught.value.headroom == Headroom(input_tokens_remaining=0)
    assert caught.value.request_id == "req_1"


async def test_a_429_whose_body_breaks_off_is_still_a_429(fail: Fail) -> None:
    head = b"HTTP/1.1 429 Slow down\r\nretry-after: 7\r\ncontent-length: 100\r\n\r\n"
    failed = await fail(Wire(head, b'{"type"'))
    assert type(failed) is RateLimited
    assert (failed.status, failed.retry_after) == (429, 7.0)


async def test_a_count_or_a_list_that_is_none_is_a_connection_failure(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    async def junk(_request: web.Request) -> web.Response:
        return web.json_response({"input_tokens": "many", "data": 7})

    client = open_client(await serve(junk))
    with pytest.raises(ConnectionFailed):
        await client.count_tokens(prompt, key)
    with pytest.raises(ConnectionFailed):
        await client.list_models(key)


# --- time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "stream", "limit", "used"),
    [
        pytest.param((), False, "idle", None, id="a plain answer does not begin"),
        pytest.param((PLAIN_HEAD, b"ffff\r\n{"), False, "idle", None, id="a plain answer stops"),
        pytest.param((), True, "stream_idle", None, id="a stream does not begin"),
        pytest.param((STREAM_HEAD, START), True, "stream_idle", PARTIAL, id="a stream stops"),
        pytest.param((), False, "total", None, id="the time for a plain answer is over"),
        pytest.param((STREAM_HEAD, START), True, "total", PARTIAL, id="the time for a stream is over"),
    ],
)
async def test_a_stalling_server_is_given_up_and_its_connection_closed(
    fail: Fail, pieces: tuple[bytes, ...], stream: bool, limit: str, used: Usage | None
) -> None:
    for seconds in (0.1, 1.0, 10.0):  # a machine that stands still for as long has not read what did come
        wire = Wire(*pieces, hold=True)
        failed = await fail(wire, stream=stream, timeouts=Timeouts(**{limit: seconds}))
        assert type(failed) is ConnectionFailed
        if wire.sent.is_set():
            await wire.hung_up.wait()
        if failed.usage == used:
            break
    assert failed.usage == used


async def test_a_stream_that_drips_for_ever_ends_with_the_total_time(fail: Fail) -> None:
    failed = await fail(Wire(STREAM_HEAD, START, drip=0.01), timeouts=Timeouts(stream_idle=5, total=0.2))
    assert str(failed) == "no complete answer: not within 0.2 s"


async def test_pings_keep_a_slow_stream_alive(
    serve_raw: ServeRaw, open_client: Open, key: Key, prompt: Prompt
) -> None:
    pinged: list[float] = []

    async def slow(_reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + START)
        for _ in range(20):
            pinged.append(time.monotonic())
            await asyncio.sleep(0.05)
            writer.write(event(type="ping"))
        pinged.append(time.monotonic())
        writer.write(DELTA + STOP + END)

    client = open_client(await serve_raw(slow), timeouts=Timeouts(stream_idle=0.5))
    while True:
        began = time.monotonic()
        try:
            reply = await client.create(prompt, key, stream=True)
        except ConnectionFailed:
            gaps = [later - ping for ping, later in pairwise([began, *pinged, time.monotonic()])]
            assert max(gaps) >= 0.4, "it was given up although no machine stood still"
            pinged.clear()
        else:
            break
    assert reply.stop_reason == "end_turn"
    assert pinged[-1] - pinged[0] > 0.5


@pytest.mark.parametrize(
    ("stream", "pieces"), [(False, ()), (False, (PLAIN_HEAD, b"ffff\r\n{")), (True, (STREAM_HEAD, START))]
)
async def test_a_cancelled_call_closes_its_connection(
    *,
    serve_raw: ServeRaw,
    open_client: Open,
    key: Key,
    prompt: Prompt,
    stream: bool,
    pieces: tuple[bytes, ...],
) -> None:
    wire = Wire(*pieces, hold=True)
    call = asyncio.create_task(open_client(await serve_raw(wire)).create(prompt, key, stream=stream))
    await wire.sent.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await wire.hung_up.wait()


async def test_the_next_call_after_a_failure_succeeds(
    serve_raw: ServeRaw, open_client: Open, key: Key, prompt: Prompt
) -> None:
    wires = iter([Wire(STREAM_HEAD, START), Wire(STREAM_HEAD, START, DELTA, STOP, END)])

    async def first_bad_then_good(reader: Reader, writer: Writer) -> None:
        await next(wires)(reader, writer)

    client = open_client(await serve_raw(first_bad_then_good))
    with pytest.raises(ConnectionFailed):
        await client.create(prompt, key, stream=True)
    assert (await client.create(prompt, key, stream=True)).stop_reason == "end_turn"


# --- secrets ------------------------------------------------------------------------------------------


def everything(error: BaseException) -> str:
    """All that a careless handler could print, the exceptions behind it included."""
    parts = ["".join(traceback.format_exception(error))]
    behind: BaseException | None = error
    while behind is not None:
        parts += [str(behind), repr(behind), repr(behind.args), repr(vars(behind))]
        behind = behind.__cause__ or behind.__context__
    return "\n".join(parts)


@pytest.mark.parametrize(
    "wire",
    [
        Wire(),
        Wire(b"nonsense\r\n\r\n"),
        Wire(STREAM_HEAD, START, chunk(b"data: CANARY\n\n")),
        Wire(STREAM_HEAD, START, event(type="content_block_delta", index=0, delta="CANARY")),
        Wire(STREAM_HEAD, START, b"zz\r\nCANARY"),
        Wire(
            STREAM_HEAD,
            START,
            event(type="error", error={"type": "x", "message": "key sk-ant-api03-CANARY_key"}),
        ),
        Wire(PLAIN_HEAD, chunk(b"CANARY"), END),
        Wire(b"HTTP/1.1 500 CANARY\r\ncontent-length: 6\r\n\r\nCANARY"),
        Wire(b'HTTP/1.1 422 No\r\ncontent-length: 22\r\n\r\n{"detail": ["CANARY"]}'),
        Wire(STREAM_HEAD, START, hold=True),
    ],
)
async def test_no_error_shows_the_key_or_the_prompt(
    fail: Fail, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    failed = await fail(wire, timeouts=Timeouts(total=0.5))
    assert "CANARY" not in everything(failed)
    assert "CANARY" not in caplog.text


async def test_a_gateway_that_quotes_the_key_is_not_quoted(
    serve: Serve, open_client: Open, prompt: Prompt, key: Key
) -> None:
    class_of_its_own = Key("gateway", type(key.secret)("gw-CANARY"), "default")

    async def chatty(request: web.Request) -> web.Response:
        message = f"no such key: {request.headers['x-api-key']}"
        return web.json_response({"error": {"type": "authentication_error", "message": message}}, status=401)

    with pytest.raises(KeyRejected, match=r"no such key: \*\*\*") as caught:
        await open_client(await serve(chatty)).create(prompt, class_of_its_own)
    assert "CANARY" not in everything(caught.value)
