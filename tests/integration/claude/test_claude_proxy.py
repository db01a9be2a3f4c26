"""Calls through a proxy: what it refuses or drops has not reached Claude, and it cannot hold a call up for long."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from promptmill.claude.client import ClaudeClient, Timeouts
from promptmill.claude.keys import Key
from promptmill.errors import ClaudeError, ConnectionFailed
from promptmill.prompts import Prompt

Open = Callable[..., ClaudeClient]
AGREED = b"HTTP/1.1 200 Connection established\r\n\r\n"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
SILENCE = None
SLOW = "ConnectionTimeoutError"


class Proxy:
    """Gives one answer to the first request of a connection, hears what comes after it, and hangs up; or is silent."""

    def __init__(self, answer: bytes | None) -> None:
        self.head = b""
        self._answer = answer

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.head = await reader.readuntil(b"\r\n\r\n")
            if self._answer is SILENCE:
                await reader.read()
            else:
                writer.write(self._answer)
                if self._answer == AGREED:
                    await reader.read(1)  # the client's hello
        writer.close()


Start = Callable[[bytes | None], Awaitable[Proxy]]


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Start a proxy that asks for a password and name it in the surroundings."""
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with contextlib.AsyncExitStack() as stack:

        async def start(answer: bytes | None) -> Proxy:
            started = Proxy(answer)
            server = await asyncio.start_server(started, "127.0.0.1", 0)
            stack.callback(server.close)
            url = f"http://me:pass@127.0.0.1:{server.sockets[0].getsockname()[1]}"
            monkeypatch.setenv("HTTP_PROXY", url)
            monkeypatch.setenv("HTTPS_PROXY", url)
            return started

        yield start


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(REFUSED, "ClientHttpProxyError 503", id="it is refused"),
        pytest.param(b"", "ServerDisconnectedError", id="it is dropped"),
        pytest.param(AGREED, "Cannot connect to host", id="it is dropped before TLS is agreed"),
        pytest.param(SILENCE, SLOW, id="nothing is said"),
    ],
)
async def test_a_call_whose_tunnel_did_not_come_about_was_not_sent(
    *, proxy: Start, open_client: Open, key: Key, prompt: Prompt, answer: bytes | None, why: str
) -> None:
    await proxy(answer)
    client = open_client("https://claude.invalid", timeouts=Timeouts(connect=30 if why != SLOW else 0.2))
    with pytest.raises(ConnectionFailed, match=why) as failed:
        await client.create(prompt, key)
    assert not failed.value.sent


@pytest.mark.parametrize(
    ("url", "first_line"),
    [
        ("https://claude.invalid", b"CONNECT claude.invalid:443 HTTP/1.1"),
        ("http://claude.invalid", b"POST http://claude.invalid/v1/messages HTTP/1.1"),
    ],
)
async def test_a_proxy_hears_its_password_and_only_a_tunnel_keeps_the_key_from_it(
    *, proxy: Start, open_client: Open, key: Key, prompt: Prompt, url: str, first_line: bytes
) -> None:
    asked = await proxy(REFUSED)
    with pytest.raises(ClaudeError):
        await open_client(url).create(prompt, key)
    assert asked.head.startswith(first_line)
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"me:pass") in asked.head
    assert (b"CANARY_key" in asked.head) == url.startswith("http:")
