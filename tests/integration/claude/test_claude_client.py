"""One call over real HTTP: what is sent, what comes back, plain and streamed."""

import asyncio
import gzip
import json
import resource
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from promptmill.claude.client import ClaudeClient
from promptmill.claude.keys import Header, Key
from promptmill.dimensions import Headroom
from promptmill.errors import PromptRejected
from promptmill.prompts import Prompt
from promptmill.usage import Usage

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]
Open = Callable[..., ClaudeClient]

HEADERS = {
    "request-id": "req_1",
    "anthropic-ratelimit-requests-limit": "1000",
    "anthropic-ratelimit-requests-remaining": "999",
}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5",
    "content": [{"type": "thinking", "thinking": "…", "signature": "s"}, {"type": "text", "text": "你好 🌍"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 12, "output_tokens": 5, "a_new_count": 3},
    "a_new_field": {"kept": True},
}


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events)


def streamed(message: dict[str, Any]) -> bytes:
    """`message` as the API would stream it, one character a delta."""
    start = {**message, "content": [], "stop_reason": None, "usage": {**message["usage"], "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(message["content"]):
        field = block["type"]
        empty = {**block, field: ""}
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        for character in block[field]:
            delta = {"type": f"{field}_delta", field: character}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    usage = {"output_tokens": message["usage"]["output_tokens"]}
    events.append({"type": "message_delta", "delta": {"stop_reason": message["stop_reason"]}, "usage": usage})
    return sse(*events, {"type": "message_stop"})


async def answer(request: web.Request) -> web.StreamResponse:
    """Both ways of one answer, as the request asks."""
    if not (await request.json()).get("stream"):
        return web.json_response(MESSAGE, headers=HEADERS)
    response = web.StreamResponse(headers={**HEADERS, "content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    body = streamed(MESSAGE)
    for place in range(0, len(body), 7):  # cuts many a character in two
        await response.write(body[place : place + 7])
    return response


class Recorder:
    """Answers, and remembers what was asked and over how many connections."""

    def __init__(self, handler: Handler = answer) -> None:
        self.requests: list[web.Request] = []
        self.bodies: list[dict[str, Any]] = []
        self.peers: set[Any] = set()
        self._handler = handler

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(json.loads(await request.text() or "{}"))
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        return await self._handler(request)


async def test_a_reply_holds_the_whole_message_and_what_the_headers_said(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    reply = await open_client(await serve(answer)).create(prompt, key)
    assert reply.message == MESSAGE
    assert reply.text == "你好 🌍"
    assert reply.usage == Usage(input_tokens=12, output_tokens=5)
    assert reply.headroom == Headroom(requests_limit=1000, requests_remaining=999)
    assert (reply.request_id, reply.simulated, reply.streamed) == ("req_1", False, False)


async def test_a_streamed_reply_is_the_same_reply(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    client = open_client(await serve(answer))
    plain = await client.create(prompt, key, stream=False)
    stream = await client.create(prompt, key, stream=True)
    assert stream.streamed
    assert (stream.message, stream.usage, stream.headroom, stream.request_id) == (
        plain.message,
        plain.usage,
        plain.headroom,
        plain.request_id,
    )


async def test_a_request_is_what_the_api_documents(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    server = Recorder()
    await open_client(await serve(server), api_version="2023-06-01").create(prompt, key)
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["x-api-key"] == key.secret.get_secret_value()
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers
    assert "anthropic-beta" not in request.headers
    assert server.bodies == [dict(prompt.body)]


@pytest.mark.parametrize(
    ("secret", "asked", "betas"),
    [
        ("sk-ant-oat01-CANARY", [], "oauth-2025-04-20"),
        ("sk-ant-oat01-CANARY", ["one-2026"], "one-2026,oauth-2025-04-20"),
        ("sk-ant-oat01-CANARY", ["oauth-2025-04-20"], "oauth-2025-04-20"),
        ("gateway-CANARY", [], None),
    ],
)
async def test_a_bearer_token_travels_alone_and_an_access_token_with_its_beta(
    serve: Serve,
    open_client: Open,
    key: Key,
    prompt: Prompt,
    *,
    secret: str,
    asked: list[str],
    betas: str | None,
) -> None:
    server, token = Recorder(), replace(key, secret=SecretStr(secret), header=Header.BEARER)
    await open_client(await serve(server)).create(Prompt({**prompt.body, "betas": asked}), token)
    [request] = server.requests
    assert request.headers["authorization"] == f"Bearer {secret}"
    assert "x-api-key" not in request.headers
    assert request.headers.get("anthropic-beta") == betas


async def test_betas_travel_as_a_header(serve: Serve, open_client: Open, key: Key, prompt: Prompt) -> None:
    server = Recorder()
    await open_client(await serve(server)).create(
        Prompt({**prompt.body, "betas": ["one-2026", "two-2026"]}), key
    )
    assert server.requests[0].headers["anthropic-beta"] == "one-2026,two-2026"
    assert "betas" not in server.bodies[0]


@pytest.mark.parametrize("betas", [["a\r\nx-api-key: b"], ["é"], [7], {"a": 1}, 7])
async def test_betas_that_are_no_names_are_not_sent(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt, betas: Any
) -> None:
    server = Recorder()
    with pytest.raises(PromptRejected):
        await open_client(await serve(server)).create(Prompt({**prompt.body, "betas": betas}), key)
    assert not server.requests


async def test_a_path_prefix_of_the_address_is_kept(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    server = Recorder()
    await open_client(await serve(server) + "/gateway/claude/").create(prompt, key)
    assert server.requests[0].path == "/gateway/claude/v1/messages"


@pytest.mark.parametrize(("max_tokens", "streams"), [(21_333, False), (21_334, True)])
async def test_an_answer_that_may_be_long_is_streamed(
    *, serve: Serve, open_client: Open, key: Key, prompt: Prompt, max_tokens: int, streams: bool
) -> None:
    server = Recorder()
    reply = await open_client(await serve(server)).create(
        Prompt({**prompt.body, "max_tokens": max_tokens}), key
    )
    assert reply.streamed is streams
    assert server.bodies[0].get("stream", False) is streams


async def test_the_threshold_of_streaming_can_be_moved(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    assert (await open_client(await serve(answer), stream_above=99).create(prompt, key)).streamed


async def test_text_that_utf8_cannot_hold_is_sent_as_an_escape(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    server = Recorder()
    odd = Prompt({**prompt.body, "messages": [{"role": "user", "content": "é \ud83c"}]})
    await open_client(await serve(server)).create(odd, key)
    assert server.bodies[0]["messages"][0]["content"] == "é \ud83c"


async def test_the_order_of_a_schema_is_kept(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    server = Recorder()
    properties: dict[str, Any] = {"z": {}, "a": {}, "m": {}}
    await open_client(await serve(server)).create(Prompt({**prompt.body, "tools": [properties]}), key)
    assert list(server.bodies[0]["tools"][0]) == ["z", "a", "m"]


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_in_a_row_share_one_connection(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt, stream: bool
) -> None:
    server = Recorder()
    client = open_client(await serve(server))
    for _ in range(5):
        await client.create(prompt, key, stream=stream)
    assert len(server.peers) == 1


async def test_a_gateway_that_does_not_stream_is_understood(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    async def deaf(_request: web.Request) -> web.Response:
        return web.json_response(MESSAGE)

    reply = await open_client(await serve(deaf)).create(prompt, key, stream=True)
    assert reply.message == MESSAGE
    assert not reply.streamed


@pytest.mark.parametrize("stream", [False, True])
async def test_a_compressed_answer_is_read(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt, stream: bool
) -> None:
    async def squeezed(_request: web.Request) -> web.Response:
        kind = "text/event-stream" if stream else "application/json"
        body = streamed(MESSAGE) if stream else json.dumps(MESSAGE).encode()
        return web.Response(
            body=gzip.compress(body), headers={"content-encoding": "gzip", "content-type": kind}
        )

    assert (await open_client(await serve(squeezed)).create(prompt, key, stream=stream)).message == MESSAGE


async def test_a_simulator_says_so_on_every_reply(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    async def simulated(_request: web.Request) -> web.Response:
        return web.json_response(MESSAGE, headers={"X-Promptmill-Simulator": "0.1.0"})

    assert (await open_client(await serve(simulated)).create(prompt, key)).simulated


async def test_cookies_and_redirects_are_not_followed(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    async def sticky(_request: web.Request) -> web.Response:
        return web.json_response(MESSAGE, headers={"Set-Cookie": "__cf_bm=1; Path=/"})

    server = Recorder(sticky)
    client = open_client(await serve(server))
    await client.create(prompt, key)
    await client.create(prompt, key)
    assert "cookie" not in server.requests[1].headers


async def test_tokens_are_counted_without_what_that_endpoint_refuses(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    async def count(_request: web.Request) -> web.Response:
        return web.json_response({"input_tokens": 14})

    server = Recorder(count)
    body = {**prompt.body, "system": "s", "metadata": {"user_id": "u"}, "betas": ["b-2026"]}
    assert await open_client(await serve(server)).count_tokens(Prompt(body), key) == 14
    assert server.requests[0].path == "/v1/messages/count_tokens"
    assert server.requests[0].headers["anthropic-beta"] == "b-2026"
    assert server.bodies[0].keys() == {"model", "messages", "system"}


async def test_models_are_listed_page_by_page(serve: Serve, open_client: Open, key: Key) -> None:
    pages = {None: (["a", "b"], True), "b": (["c"], False)}

    async def models(request: web.Request) -> web.Response:
        ids, more = pages[request.query.get("after_id")]
        return web.json_response(
            {"data": [{"id": each} for each in ids], "has_more": more, "last_id": ids[-1]}
        )

    server = Recorder(models)
    listed = await open_client(await serve(server)).list_models(key)
    assert [model["id"] for model in listed] == ["a", "b", "c"]
    assert server.requests[0].path == "/v1/models"


async def test_a_proxy_of_the_surroundings_is_passed_through(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Recorder()
    monkeypatch.setenv("HTTP_PROXY", await serve(proxy))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    reply = await open_client("http://claude.invalid/x").create(prompt, key)
    assert reply.message == MESSAGE
    assert proxy.requests[0].headers["host"] == "claude.invalid"


@pytest.fixture
def many_sockets() -> Iterator[None]:
    """Client and server share this process: two sockets a call."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_sockets")
async def test_a_thousand_calls_are_in_flight_on_one_client(
    serve: Serve, open_client: Open, key: Key, prompt: Prompt
) -> None:
    asked: list[web.Request] = []
    everybody = asyncio.Event()

    async def patient(request: web.Request) -> web.Response:
        asked.append(request)
        if len(asked) == 1000:
            everybody.set()
        await everybody.wait()  # nobody is answered before all have asked
        return web.json_response(MESSAGE, headers=HEADERS)

    client = open_client(await serve(patient), max_connections=1000)
    replies = await asyncio.gather(*(client.create(prompt, key) for _ in range(1000)))
    assert all(reply.message == MESSAGE for reply in replies)
