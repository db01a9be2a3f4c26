"""Small servers for the client to talk to: one that answers HTTP, one that does with the socket what it likes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop
from aiohttp import web
from pydantic import SecretStr

from promptmill.claude.client import ClaudeClient
from promptmill.claude.keys import Key
from promptmill.prompts import Prompt

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ServeRaw = Callable[[Talk], Awaitable[str]]
Open = Callable[..., ClaudeClient]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Workers run on uvloop, and on asyncio's own loop where there is none: every test runs on both."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def key() -> Key:
    return Key("main", SecretStr("sk-ant-api03-CANARY_key"), "default")


@pytest.fixture
def prompt() -> Prompt:
    messages = [{"role": "user", "content": "CANARY prompt"}]
    return Prompt({"model": "claude-sonnet-5", "max_tokens": 100, "messages": messages})


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server that gives every request to one handler; its address is returned."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler) -> str:
            async def handle(request: web.Request) -> web.StreamResponse:
                return await handler(request)

            app = web.Application(client_max_size=2**26)
            app.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
            await site.start()
            return f"http://127.0.0.1:{runner.addresses[0][1]}"

        yield start


@pytest.fixture
async def serve_raw() -> AsyncIterator[ServeRaw]:
    """Start a server that reads one request per connection and leaves the rest to `talk`."""
    servers: list[asyncio.Server] = []
    talking: set[asyncio.Task[Any]] = set()

    async def start(talk: Talk) -> str:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            talking.add(task)
            try:
                await read_request(reader)
                await talk(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the client hung up, or the test is over
            finally:
                writer.close()
                talking.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()
    for task in list(talking):
        task.cancel()
    await asyncio.gather(*talking)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    sizes = [
        line.partition(b":")[2] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    ]
    return head + await reader.readexactly(int(sizes[0]) if sizes else 0)


@pytest.fixture
async def open_client() -> AsyncIterator[Open]:
    """Open a ClaudeClient that is closed at the end of the test."""
    async with contextlib.AsyncExitStack() as stack:

        def start(base_url: str, **options: Any) -> ClaudeClient:
            client = ClaudeClient(base_url=base_url, **options)
            stack.push_async_callback(client.aclose)
            return client

        yield start
