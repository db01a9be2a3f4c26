"""One simulator process for these tests, set back to the start before each; and a bare HTTP caller."""

import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from promptmill.testing import SimulatorHandle, simulated_claude

HEADERS = {"x-api-key": "sk-ant-test", "anthropic-version": "2026-10-21", "content-type": "application/json"}


@dataclass(frozen=True)
class Got:
    """A response, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[tuple[str, str]]:
        """(event, data) of every event of a stream."""
        blocks = self.body.decode().split("\n\n")
        lines = [block.split("\n") for block in blocks if block]
        return [(name.removeprefix("event: "), data.removeprefix("data: ")) for name, data in lines]


@pytest.fixture(scope="session")
def process() -> Iterator[SimulatorHandle]:
    with simulated_claude() as simulator:
        yield simulator


@pytest.fixture
def simulator(process: SimulatorHandle) -> SimulatorHandle:
    """The session's simulator with no faults, no limits and an empty book."""
    process.set_scenario()
    process.reset()
    return process


@pytest.fixture
def send(simulator: SimulatorHandle) -> Callable[..., Got]:
    """`send(path, body, key="…", **headers)`: one request over a connection of its own."""

    def send(
        path: str = "/v1/messages", body: object = None, *, method: str = "POST", **headers: str | None
    ) -> Got:
        named = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(urlsplit(simulator.url).netloc, timeout=30)
        try:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(
                method, path, data, {name: value for name, value in named.items() if value is not None}
            )
            response = connection.getresponse()
            return Got(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()

    return send


@pytest.fixture
def prompt() -> Callable[..., dict[str, Any]]:
    """`prompt(text, **fields)`: a valid body."""

    def prompt(text: str = "How many eggs?", **fields: Any) -> dict[str, Any]:
        body = {
            "model": "claude-sonnet-5",
            "max_tokens": 400,
            "messages": [{"role": "user", "content": text}],
        }
        return body | fields

    return prompt
