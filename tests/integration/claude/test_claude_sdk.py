"""The official SDK and our client against one server: the same bytes, the same message, the same kind of error."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import pytest
from aiohttp import web

from promptmill.claude.client import ClaudeClient
from promptmill.claude.keys import Key
from promptmill.errors import (
    ClaudeError,
    KeyRejected,
    Overloaded,
    PromptRejected,
    RateLimited,
    ServerFailed,
    SpendCapReached,
)
from promptmill.prompts import Prompt

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
Open = Callable[..., ClaudeClient]

STREAMS = {
    path.stem: path.read_bytes() for path in Path(__file__).parents[2].glob("unit/claude/streams/*.sse")
}


def stated(value: Any) -> Any:
    """Without nulls: the SDK's objects state every field they know, the wire does not."""
    if isinstance(value, dict):
        return {name: stated(each) for name, each in value.items() if each is not None}
    return [stated(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("size", [1, 5, 4096])
@pytest.mark.parametrize("body", STREAMS.values(), ids=STREAMS)
async def test_a_streamed_message_equals_the_one_of_the_sdk(
    *, serve: Serve, open_client: Open, key: Key, prompt: Prompt, body: bytes, size: int
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for place in range(0, len(body), size):
            await response.write(body[place : place + size])
        return response

    url = await serve(stream)
    ours = await open_client(url).create(prompt, key, stream=True)
    async with (
        anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as sdk,
        sdk.beta.messages.stream(**prompt.body) as events,
    ):
        theirs = await events.get_final_message()
    assert stated(ours.message) == stated(theirs.to_dict(mode="json"))


@pytest.mark.parametrize(
    ("status", "kind", "code", "theirs", "ours"),
    [
        (400, "invalid_request_error", None, anthropic.BadRequestError, PromptRejected),
        (401, "authentication_error", None, anthropic.AuthenticationError, KeyRejected),
        (402, "billing_error", None, anthropic.PaymentRequiredError, SpendCapReached),
        (403, "permission_error", None, anthropic.PermissionDeniedError, KeyRejected),
        (404, "not_found_error", None, anthropic.NotFoundError, PromptRejected),
        (409, "conflict_error", None, anthropic.ConflictError, ServerFailed),
        (413, "request_too_large", None, anthropic.ContentTooLargeError, PromptRejected),
        (429, "rate_limit_error", None, anthropic.RateLimitError, RateLimited),
        (429, "rate_limit_error", "ramp_limit_exceeded", anthropic.RampLimitExceededError, RateLimited),
        (
            429,
            "rate_limit_error",
            "enforced_spend_limit_reached",
            anthropic.EnforcedSpendLimitReachedError,
            SpendCapReached,
        ),
        (
            429,
            "rate_limit_error",
            "contract_spend_limit_reached",
            anthropic.ContractSpendLimitReachedError,
            SpendCapReached,
        ),
        (500, "api_error", None, anthropic.InternalServerError, ServerFailed),
        (504, "timeout_error", None, anthropic.GatewayTimeoutError, ServerFailed),
        (529, "overloaded_error", None, anthropic.OverloadedError, Overloaded),
    ],
)
async def test_an_error_is_what_it_is_to_the_sdk(
    *,
    serve: Serve,
    open_client: Open,
    key: Key,
    prompt: Prompt,
    status: int,
    kind: str,
    code: str | None,
    theirs: type[anthropic.APIStatusError],
    ours: type[ClaudeError],
) -> None:
    error = {"type": kind, "message": "m", **({"details": {"error_code": code}} if code else {})}

    async def refuse(_request: web.Request) -> web.Response:
        body = {"type": "error", "error": error, "request_id": "req_1"}
        return web.json_response(body, status=status, headers={"request-id": "req_1"})

    url = await serve(refuse)
    with pytest.raises(ClaudeError) as mine:
        await open_client(url).create(prompt, key)
    async with anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as sdk:
        with pytest.raises(theirs) as sdks:
            await sdk.messages.create(**prompt.body)
    assert type(mine.value) is ours
    assert type(sdks.value) is theirs
    assert (mine.value.error_type, mine.value.error_code, mine.value.request_id) == (
        sdks.value.type,
        sdks.value.error_code,
        sdks.value.request_id,
    )
