"""The client and the simulated Claude, which know nothing of each other, over HTTP."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from promptmill.claude.client import ClaudeClient, Timeouts
from promptmill.claude.endpoints import Endpoint, identify, identify_now
from promptmill.claude.keys import Key
from promptmill.errors import (
    ClaudeError,
    ConnectionFailed,
    KeyRejected,
    Overloaded,
    PromptRejected,
    RateLimited,
    ServerFailed,
    SpendCapReached,
)
from promptmill.testing import SimulatorHandle, a_prompt, simulated_claude

Open = Callable[..., ClaudeClient]


@pytest.fixture(scope="module")
def claude() -> Iterator[SimulatorHandle]:
    with simulated_claude() as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(claude: SimulatorHandle) -> None:
    claude.set_scenario()
    claude.reset()


def without_id(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "id"}


async def test_plain_and_streamed_answers_are_equal(
    claude: SimulatorHandle, open_client: Open, key: Key
) -> None:
    prompt = a_prompt("中文、français and 🌍, please.", max_tokens=2000)
    client = open_client(claude.url)
    plain = await client.create(prompt, key, stream=False)
    streamed = await client.create(prompt, key, stream=True)
    assert without_id(streamed.message) == without_id(plain.message)
    assert streamed.usage == plain.usage
    assert (plain.streamed, streamed.streamed) == (False, True)
    assert plain.simulated
    assert streamed.simulated


async def test_what_the_simulator_billed_is_what_the_replies_say(
    claude: SimulatorHandle, open_client: Open, key: Key
) -> None:
    client = open_client(claude.url)
    replies = [await client.create(a_prompt(f"{n}?"), key, stream=bool(n % 2)) for n in range(10)]
    billed = claude.ledger()["billed"]["usage"]
    assert billed["output_tokens"] == sum(reply.usage.output_tokens for reply in replies)
    assert billed["input_tokens"] == sum(reply.usage.input_tokens for reply in replies)


@pytest.mark.parametrize("how", ["clean", "reset"])
async def test_what_a_cut_stream_said_it_used_is_kept(
    claude: SimulatorHandle, open_client: Open, key: Key, how: str
) -> None:
    claude.set_scenario(fault=[{"kind": "cut", "after": 0.5, "how": how}])
    with pytest.raises(ConnectionFailed) as caught:
        await open_client(claude.url).create(a_prompt(), key, stream=True)
    told = claude.ledger()["told_of_cut"]["usage"]
    assert caught.value.usage is not None
    assert (caught.value.usage.input_tokens, caught.value.usage.output_tokens) == (
        told["input_tokens"],
        told["output_tokens"],
    )


async def test_the_simulator_is_recognised(claude: SimulatorHandle) -> None:
    assert await identify(claude.url) == identify_now(claude.url) == Endpoint(claude.url, simulated=True)


async def test_tokens_and_models_are_read(claude: SimulatorHandle, open_client: Open, key: Key) -> None:
    client = open_client(claude.url)
    assert await client.count_tokens(a_prompt("Hello"), key) > 0
    assert "claude-sonnet-5" in {model["id"] for model in await client.list_models(key)}


@pytest.mark.parametrize(
    ("fault", "stream", "error"),
    [
        ({"kind": "rate_limited", "dimension": "input_tokens", "retry_after_s": 3}, False, RateLimited),
        ({"kind": "rate_limited", "ramp": True, "retry_after_s": 3}, True, RateLimited),
        ({"kind": "overloaded"}, False, Overloaded),
        ({"kind": "server_error"}, False, ServerFailed),
        ({"kind": "server_error", "status": 502, "html": True}, True, ServerFailed),
        ({"kind": "server_error", "status": 503, "html": True}, False, Overloaded),
        ({"kind": "reset"}, False, ConnectionFailed),
        ({"kind": "hang", "pause_s": 60}, False, ConnectionFailed),
        ({"kind": "spend_cap", "form": "enforced"}, False, SpendCapReached),
        ({"kind": "spend_cap", "form": "contract"}, False, SpendCapReached),
        ({"kind": "spend_cap", "form": "organization"}, False, SpendCapReached),
        ({"kind": "spend_cap", "form": "workspace"}, True, SpendCapReached),
        ({"kind": "spend_cap", "form": "billing"}, False, SpendCapReached),
        ({"kind": "key_revoked"}, False, KeyRejected),
        ({"kind": "forbidden"}, False, KeyRejected),
        ({"kind": "lost_reply"}, False, ConnectionFailed),
        ({"kind": "cut", "after": 0.5, "how": "clean"}, True, ConnectionFailed),
        ({"kind": "cut", "after": 0.5, "how": "reset"}, True, ConnectionFailed),
        ({"kind": "cut", "after": 0.5, "how": "clean"}, False, ConnectionFailed),
        ({"kind": "stream_error", "error_type": "overloaded_error"}, True, Overloaded),
        ({"kind": "stream_error", "error_type": "api_error"}, True, ServerFailed),
        ({"kind": "stall", "pause_s": 60}, True, ConnectionFailed),
        ({"kind": "malformed_event"}, True, ConnectionFailed),
    ],
    ids=str,
)
async def test_every_fault_of_the_simulator_is_the_error_it_stands_for(
    *,
    claude: SimulatorHandle,
    open_client: Open,
    key: Key,
    fault: dict[str, Any],
    stream: bool,
    error: type[ClaudeError],
) -> None:
    claude.set_scenario(fault=[fault])
    patience = 0.5 if "pause_s" in fault else 30  # whoever answers may take its time
    client = open_client(claude.url, timeouts=Timeouts(idle=patience, stream_idle=patience))
    with pytest.raises(ClaudeError) as caught:
        await client.create(a_prompt(), key, stream=stream)
    assert type(caught.value) is error
    if error is RateLimited:
        assert caught.value.retry_after == fault["retry_after_s"]


@pytest.mark.parametrize(
    "fault", [{"kind": "unknown_event"}, {"kind": "slow_drip", "piece_bytes": 1, "pause_s": 0}]
)
async def test_what_is_only_odd_changes_nothing(
    claude: SimulatorHandle, open_client: Open, key: Key, fault: dict[str, Any]
) -> None:
    client = open_client(claude.url)
    plain = await client.create(a_prompt("世界"), key)
    claude.set_scenario(fault=[fault])
    odd = await client.create(a_prompt("世界"), key, stream=True)
    assert without_id(odd.message) == without_id(plain.message)


async def test_a_prompt_the_api_refuses_is_rejected(
    claude: SimulatorHandle, open_client: Open, key: Key
) -> None:
    with pytest.raises(PromptRejected):
        await open_client(claude.url).create(a_prompt(temperature=1), key)
    with pytest.raises(PromptRejected):
        await open_client(claude.url).create(a_prompt(model="claude-unheard-of"), key)


async def test_fast_mode_draws_from_limits_of_its_own(
    claude: SimulatorHandle, open_client: Open, key: Key
) -> None:
    claude.set_limits(rpm=100, itpm=10_000, otpm=10_000)
    try:
        client = open_client(claude.url)
        model = {"model": "claude-opus-5-5", "max_tokens": 2000}
        fast = await client.create(a_prompt("Quick " * 2000, speed="fast", **model), key)
        usual = await client.create(a_prompt("Slow", **model), key)
    finally:
        claude.set_limits(rpm=0, itpm=0, otpm=0)
    assert fast.headroom is not None
    assert usual.headroom is not None
    assert fast.headroom.input_tokens_limit == usual.headroom.input_tokens_limit == 10_000
    assert (fast.headroom.input_tokens_remaining or 0) < (usual.headroom.input_tokens_remaining or 0)
