"""Who answers at an address: the same answer for callers with and without an event loop."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from promptmill.claude.endpoints import Endpoint, identify, identify_now
from promptmill.errors import ConnectionFailed

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
Ask = Callable[[str], Awaitable[Endpoint]]


async def ask_without_a_loop(base_url: str) -> Endpoint:
    return await asyncio.to_thread(identify_now, base_url)


both = pytest.mark.parametrize("ask", [identify, ask_without_a_loop])


@both
async def test_a_simulator_is_known_by_its_header(serve: Serve, ask: Ask) -> None:
    asked = []

    async def health(request: web.Request) -> web.Response:
        asked.append(request)
        return web.Response(text="ok", headers={"x-promptmill-simulator": "0.1.0"})

    url = await serve(health)
    assert await ask(f"{url}/prefix/") == Endpoint(f"{url}/prefix", simulated=True)
    [request] = asked
    assert (request.method, request.path) == ("GET", "/prefix/_admin/health")
    assert "x-api-key" not in request.headers


@both
async def test_a_gateway_is_taken_for_the_real_thing_whatever_it_answers(serve: Serve, ask: Ask) -> None:
    async def nothing_here(_request: web.Request) -> web.Response:
        return web.Response(status=404)

    url = await serve(nothing_here)
    assert await ask(url) == Endpoint(url, simulated=False)


@both
async def test_nothing_there_names_the_setting_and_no_password(ask: Ask) -> None:
    with pytest.raises(
        ConnectionFailed, match=r"ANTHROPIC_BASE_URL: nothing answers at http://127\.0\.0\.1:1 "
    ) as caught:
        await ask("http://me:CANARY@127.0.0.1:1")
    assert "CANARY" not in str(caught.value)
    assert caught.value.__context__ is None
