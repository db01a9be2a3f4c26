"""Calls over TLS, to a server with a certificate of our own: who is trusted, and which sessions are resumed."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from promptmill.claude.client import ClaudeClient
from promptmill.claude.keys import Key
from promptmill.claude.surroundings import tls_context
from promptmill.errors import ConnectionFailed
from promptmill.prompts import Prompt

MESSAGE = {
    "type": "message",
    "model": "claude-sonnet-5",
    "content": [],
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


class Server:
    """Answers every call, and keeps whether its connection had resumed a session."""

    def __init__(self) -> None:
        self.resumed: dict[object, bool] = {}

    async def answer(self, request: web.Request) -> web.Response:
        """One message."""
        assert request.transport is not None
        connection = request.transport.get_extra_info("ssl_object")
        self.resumed[request.transport.get_extra_info("peername")] = connection.session_reused
        await request.read()
        headers = {"connection": "close"} if request.headers.get("x-api-key") == "sk-once" else {}
        return web.json_response(MESSAGE, headers=headers)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for localhost, signed by itself, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("no `openssl` here to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    words = [*command.split(), "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [*words, "-keyout", "key.pem", "-out", "cert.pem"], cwd=folder, check=True, capture_output=True
    )
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return both


@pytest.fixture
async def served(certificate: Path) -> AsyncIterator[tuple[Server, str]]:
    """A server that speaks TLS, and its address."""
    server, app = Server(), web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    yield server, f"https://localhost:{port}"
    await runner.cleanup()


@pytest.fixture(autouse=True)
def fresh_context() -> None:
    """The context of the process is kept, with its sessions and the certificates of its first day."""
    tls_context.cache_clear()


async def test_new_connections_resume_the_session_of_the_first(
    served: tuple[Server, str], certificate: Path, prompt: Prompt, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = served
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with ClaudeClient(base_url=url) as client:
        await client.create(prompt, key)
        await asyncio.gather(*(client.create(prompt, key) for _ in range(5)))
    assert list(server.resumed.values()) == [False, *[True] * 4]


async def test_a_server_whose_certificate_is_not_trusted_is_sent_nothing(
    served: tuple[Server, str], prompt: Prompt, key: Key
) -> None:
    server, url = served
    async with ClaudeClient(base_url=url) as client:
        with pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED") as failed:
            await client.create(prompt, key)
    assert not failed.value.sent
    assert not server.resumed


def test_certificates_are_checked_as_this_python_checks_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    ours, default = tls_context(), ssl.create_default_context()
    for name in (
        "verify_mode",
        "check_hostname",
        "verify_flags",
        "options",
        "minimum_version",
        "keylog_filename",
    ):
        assert getattr(ours, name) == getattr(default, name), name
