"""How much of an answer is taken: long headers are, an endless body is not; and what waits for a connection was not sent."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from promptmill.claude import bounded
from promptmill.claude.client import ClaudeClient, Timeouts
from promptmill.claude.keys import Key
from promptmill.errors import ConnectionFailed, ServerFailed
from promptmill.prompts import Prompt

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
Open = Callable[..., ClaudeClient]

MESSAGE = {
    "type": "message",
    "model": "claude-sonnet-5",
    "content": [],
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
ENDLESS = 50_000
"""Bytes of the bodies here that are too long; the bounds are lowered below it."""


async def test_an_answer_with_a_long_header_is_taken(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(MESSAGE, headers={"x-policy": "a" * 60_000})

    assert (await open_client(await serve(answer)).create(prompt, key)).message == MESSAGE


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
async def test_an_answer_longer_than_any_is_given_up(
    *,
    serve: Serve,
    open_client: Open,
    key: Key,
    prompt: Prompt,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
    compressed: bool,
) -> None:
    monkeypatch.setattr(bounded, "LONGEST_ANSWER", ENDLESS // 2)
    headers = {"content-type": "text/event-stream" if stream else "application/json"}
    body = b": ping\n\n" * (ENDLESS // 8)
    if compressed:
        headers["content-encoding"], body = "gzip", gzip.compress(body)

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers)

    with pytest.raises(ConnectionFailed, match="longer than") as failed:
        await open_client(await serve(answer)).create(prompt, key, stream=stream)
    assert failed.value.sent


async def test_of_an_endless_error_only_the_beginning_is_read(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        await response.write(b"<title>Down</title>")
        while True:
            await response.write(b"x" * 65_536)

    with pytest.raises(ServerFailed, match=r'"Down"'):
        await open_client(await serve(fail), timeouts=Timeouts(total=5)).create(prompt, key)


async def test_a_call_that_waited_for_a_connection_in_vain_was_not_sent(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    asked = asyncio.Event()

    async def stall(_request: web.Request) -> web.Response:
        asked.set()
        await asyncio.sleep(60)
        return web.Response()

    client = open_client(await serve(stall), max_connections=1, timeouts=Timeouts(total=2))
    first = asyncio.create_task(client.create(prompt, key))
    await asked.wait()
    client._timeouts = Timeouts(total=0.3)  # its connection is not free before the second has given up
    failures = await asyncio.gather(first, client.create(prompt, key), return_exceptions=True)
    assert [isinstance(failure, ConnectionFailed) and failure.sent for failure in failures] == [True, False]
