"""The Rate Limits API, asked of the simulator and of servers that misbehave."""

import asyncio
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from promptmill.catalogue import group_of
from promptmill.claude.rate_limits import RateLimitGroup, fetch_rate_limits
from promptmill.dimensions import Dimension
from promptmill.errors import ConfigurationError, ConnectionFailed, PromptmillError
from promptmill.testing import SimulatorHandle, simulated_claude

ADMIN = "sk-ant-admin01-CANARY"
OPAQUE = "opaque-CANARY"
NEWEST, OLDER = "2026-10-21", "2023-06-01"


@pytest.fixture(scope="module")
def claude() -> Iterator[SimulatorHandle]:
    with simulated_claude(rpm=50, itpm=30_000, otpm=8_000) as simulator:
        yield simulator


def ask(
    url: str, *, key: str = ADMIN, version: str = NEWEST, workspace: str | None = None
) -> list[RateLimitGroup]:
    return list(fetch_rate_limits(url, SecretStr(key), api_version=version, workspace=workspace, timeout=30))


@pytest.mark.parametrize("version", [NEWEST, OLDER])
@pytest.mark.parametrize("workspace", [None, "wrkspc_1"])
def test_every_model_group_is_there_with_its_limits(
    claude: SimulatorHandle, version: str, workspace: str | None
) -> None:
    groups = ask(claude.url, version=version, workspace=workspace)

    haiku = next(each for each in groups if "claude-haiku-5-5" in each.models)
    assert haiku.kind == "model_group"
    assert [haiku.per_minute(dimension) for dimension in Dimension] == [50, 30_000, 8_000]
    assert {group_of(name) for each in groups for name in each.models} >= {
        "claude-opus-4.x",
        "claude-haiku-5-5",
    }


@pytest.mark.parametrize(
    ("key", "workspace", "sentence"),
    [
        ("sk-ant-api03-CANARY", None, "ANTHROPIC_ADMIN_KEY: this key is not accepted for reading limits"),
        (ADMIN, "nothing", "--workspace: the organization of this key has no workspace nothing"),
        ("two words", None, "ANTHROPIC_ADMIN_KEY: the key is empty or holds characters no key has"),
    ],
)
def test_a_refusal_says_what_to_do(
    claude: SimulatorHandle, key: str, workspace: str | None, sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ask(claude.url, key=key, workspace=workspace)

    assert str(refused.value).startswith(sentence)
    assert "CANARY" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [(403, "permission_error", "individual accounts"), (404, "not_found_error", "individual accounts")],
)
async def test_an_individual_account_is_told_why(serve: Any, status: int, kind: str, words: str) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        error = {"type": kind, "message": "Not available."}
        return web.json_response({"type": "error", "error": error}, status=status)

    url = await serve(refuse)

    with pytest.raises(ConfigurationError, match=words):
        await asyncio.to_thread(ask, url)


async def test_all_pages_are_read(serve: Any) -> None:
    async def page(request: web.Request) -> web.Response:
        number = int(request.query.get("page", "0"))
        entry = {"id": f"rl_{number}", "group_type": "model_group", "models": [f"m{number}"], "limits": []}
        return web.json_response({"data": [entry], "next_page": str(number + 1) if number < 2 else None})

    url = await serve(page)

    assert [each.models for each in await asyncio.to_thread(ask, url)] == [("m0",), ("m1",), ("m2",)]


async def test_a_list_that_never_ends_is_given_up(serve: Any) -> None:
    async def endless(_request: web.Request) -> web.Response:
        return web.json_response({"data": [], "next_page": "again"})

    url = await serve(endless)

    with pytest.raises(ConnectionFailed, match="does not end"):
        await asyncio.to_thread(ask, url)


@pytest.mark.parametrize("around", ["", " ", "\n"], ids=["bare", "spaces", "line-end"])
async def test_a_gateway_that_quotes_the_key_does_not_get_it_into_a_message(serve: Any, around: str) -> None:
    async def quote(_request: web.Request) -> web.Response:
        error = {"type": "api_error", "message": f"no route for {OPAQUE}"}
        return web.json_response({"type": "error", "error": error}, status=500)

    url = await serve(quote)

    with pytest.raises(PromptmillError) as refused:
        await asyncio.to_thread(ask, url, key=OPAQUE + around)

    assert "CANARY" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("key", ["", "  "])
def test_an_empty_key_is_said_in_plain_words(key: str) -> None:
    with pytest.raises(ConfigurationError, match="the key is empty") as refused:
        ask("http://127.0.0.1:9", key=key)
    assert "***" not in str(refused.value)


def test_nothing_answering_is_a_connection_failure() -> None:
    with pytest.raises(ConnectionFailed):
        ask("http://127.0.0.1:9")
