"""Replies over a real socket: the event sequence, the headers, the limits, the book."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from promptmill import __version__
from promptmill.prompts import fingerprint_of
from promptmill.simulator.process import SimulatorFailed
from promptmill.testing import SimulatorHandle, simulated_claude

Send = Callable[..., Any]


def test_a_stream_has_the_documented_sequence_of_events(send: Send, prompt: Send) -> None:
    events = send(body=prompt("小明有几个苹果", stream=True, thinking={"type": "adaptive"})).events
    names = [name for name, _ in events]
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert all(json.loads(data)["type"] == name for name, data in events)
    usage = [json.loads(data).get("usage") for name, data in events if name == "message_delta"]
    assert usage[0]["output_tokens"] > json.loads(events[0][1])["message"]["usage"]["output_tokens"]


def test_every_response_says_that_it_is_simulated(send: Send, prompt: Send) -> None:
    for got in (send(body=prompt()), send(body={}), send("/nowhere"), send("/_admin/health", method="GET")):
        assert got.headers["x-promptmill-simulator"] == __version__
        assert got.headers["request-id"].startswith("req_")


def test_a_reply_names_the_organization_of_the_key(send: Send, prompt: Send) -> None:
    one, again, other = (
        send(body=prompt(), x_api_key=key).headers["anthropic-organization-id"] for key in ("a", "a", "b")
    )
    assert one == again != other


def test_a_key_may_come_as_a_bearer_token_and_x_api_key_wins(send: Send, prompt: Send) -> None:
    plain = send(body=prompt(), x_api_key="a")
    bearer = send(body=prompt(), x_api_key=None, authorization="Bearer a")
    both = send(body=prompt(), x_api_key="a", authorization="Bearer b")
    ids = {got.headers["anthropic-organization-id"] for got in (plain, bearer, both)}
    assert len(ids) == 1


def test_a_path_prefix_is_ignored(send: Send, prompt: Send) -> None:
    assert send("/gateway/v1/messages?beta=true", prompt()).status == 200


def test_the_same_body_gets_the_same_answer_plain_and_streamed(send: Send, prompt: Send) -> None:
    plain = send(body=prompt()).json
    streamed = send(body=prompt(stream=True))
    deltas = [json.loads(data)["delta"] for name, data in streamed.events if name == "content_block_delta"]
    text = "".join(delta.get("text", "") for delta in deltas)
    assert text == "".join(block.get("text", "") for block in plain["content"])


@pytest.mark.parametrize(
    ("dimension", "limits"),
    [("requests", {"rpm": 2}), ("input_tokens", {"itpm": 60}), ("output_tokens", {"otpm": 300})],
)
def test_a_429_names_its_limit_and_when_to_come_back(
    simulator: SimulatorHandle, send: Send, prompt: Send, dimension: str, limits: dict[str, float]
) -> None:
    simulator.set_limits(**limits)
    got = [send(body=prompt(f"How many eggs did hen {number} lay?")) for number in range(6)]
    assert got[0].status == 200
    refused = next(each for each in got if each.status == 429)
    assert refused.json["error"]["type"] == "rate_limit_error"
    assert "details" not in refused.json["error"]
    assert dimension.replace("_", " ") in refused.json["error"]["message"]
    assert int(refused.headers["retry-after"]) >= 1
    name = dimension.replace("_", "-")
    for each in (got[0], refused):
        assert {f"anthropic-ratelimit-{name}-{part}" for part in ("limit", "remaining", "reset")} <= set(
            each.headers
        )
    book = simulator.ledger()
    assert book["refused"]["by_reason"] == {dimension: book["refused"]["total"]}
    assert book["requests"] == 6 == book["served"]["answers"] + book["refused"]["total"]


def test_models_of_one_group_share_a_limit_and_other_groups_do_not(
    simulator: SimulatorHandle, send: Send, prompt: Send
) -> None:
    simulator.set_limits(rpm=1)
    statuses = [
        send(body=prompt(model=model)).status
        for model in ("claude-opus-4-8", "claude-opus-4-7", "claude-opus-5", "claude-haiku-4-5")
    ]
    assert statuses == [200, 429, 200, 200]


def test_limits_can_be_changed_for_one_group_only(
    simulator: SimulatorHandle, send: Send, prompt: Send
) -> None:
    simulator.set_limits(rpm=1, group="claude-opus-5")
    assert [send(body=prompt(model="claude-opus-5")).status for _ in range(2)] == [200, 429]
    assert [send(body=prompt()).status for _ in range(2)] == [200, 200]


def test_keys_that_are_named_together_share_their_limits(prompt: Send) -> None:
    import anthropic  # noqa: PLC0415  the oracle is slow to import

    with simulated_claude(rpm=1, organizations={"acme": ["one", "two"]}, only_known_keys=True) as simulator:
        clients = [
            anthropic.Anthropic(api_key=key, base_url=simulator.url, max_retries=0)
            for key in ("one", "two", "three")
        ]
        clients[0].messages.create(**prompt())
        with pytest.raises(anthropic.RateLimitError):
            clients[1].messages.create(**prompt())
        with pytest.raises(anthropic.AuthenticationError):
            clients[2].messages.create(**prompt())
        for client in clients:
            client.close()


def test_a_cached_prefix_is_written_then_read(send: Send, prompt: Send) -> None:
    system = [{"type": "text", "text": "Read the rules. " * 500, "cache_control": {"type": "ephemeral"}}]
    first, second = (send(body=prompt(text, system=system)).json["usage"] for text in ("One?", "Two?"))
    assert first["cache_creation"]["ephemeral_5m_input_tokens"] == first["cache_creation_input_tokens"] > 1024
    assert second["cache_read_input_tokens"] == first["cache_creation_input_tokens"]


def test_the_book_equals_what_the_replies_said(simulator: SimulatorHandle, send: Send, prompt: Send) -> None:
    def ask(number: int) -> dict[str, Any]:
        usage: dict[str, Any] = send(body=prompt(f"Question {number}?")).json["usage"]
        return usage

    with ThreadPoolExecutor(8) as pool:
        usages = list(pool.map(ask, range(60)))
    book = simulator.ledger(detail=True)
    assert book["billed"] == book["served"]
    for name in ("input_tokens", "output_tokens"):
        assert book["billed"]["usage"][name] == sum(usage[name] for usage in usages)
    assert book["answered"] == {"1": 60}
    assert set(book["prompts"]) == {fingerprint_of(prompt(f"Question {n}?")) for n in range(60)}
    assert book["in_flight"] == 0
    assert sum(second["arrived"] for second in book["seconds"]) == 60


def test_latency_is_first_token_plus_length_over_speed(prompt: Send) -> None:
    import anthropic  # noqa: PLC0415  the oracle is slow to import

    settings = {
        "first_token_s": 0.1,
        "tokens_per_s": 1_000.0,
        "jitter": 0.0,
        "otpm": 60_000,
        "output_burst_s": 1,
    }
    with simulated_claude(**settings) as simulator:
        client = anthropic.Anthropic(api_key="k", base_url=simulator.url, max_retries=0)
        message = client.messages.create(**prompt())
        client.close()
        book = simulator.ledger()
    took = book["last_reply_s"] - book["first_arrival_s"]
    assert 0.1 + message.usage.output_tokens / 1_000 <= took < 5 + message.usage.output_tokens / 1_000


def test_a_stream_comes_while_it_is_written(prompt: Send) -> None:
    import anthropic  # noqa: PLC0415  the oracle is slow to import

    slow = {"tokens_per_s": 10.0, "jitter": 0.0, "mean_output_tokens": 400.0, "output_spread": 0.0}
    with simulated_claude(**slow) as simulator:
        client = anthropic.Anthropic(api_key="k", base_url=simulator.url, max_retries=0)
        with client.messages.stream(**prompt(model="claude-haiku-4-5")) as stream:
            first = next(event.text for event in stream if event.type == "text")
            book = simulator.ledger()
        client.close()
    assert first
    assert (book["in_flight"], book["served"]["answers"]) == (1, 0)


def test_an_admin_call_that_is_wrong_is_refused_with_its_field(simulator: SimulatorHandle) -> None:
    with pytest.raises(SimulatorFailed, match="fault 1: kind"):
        simulator.set_scenario(fault=[{"kind": "weather"}])
    with pytest.raises(SimulatorFailed, match="rpm"):
        simulator.set_limits(rpm=-1)


def test_the_book_tells_what_each_call_took_of_the_limits(
    send: Send, prompt: Send, simulator: SimulatorHandle
) -> None:
    usage = send(body=prompt()).json["usage"]
    [call] = simulator.ledger(detail=True)["calls"]
    assert (call["input_tokens"], call["output_tokens"]) == (usage["input_tokens"], usage["output_tokens"])
    assert call["prompt"] == fingerprint_of(prompt())
    assert "calls" not in simulator.ledger()


def test_a_token_factor_multiplies_what_is_counted(prompt: Send) -> None:
    import anthropic  # noqa: PLC0415  the oracle is slow to import

    counted = []
    for factor in (1.0, 3.0):
        with simulated_claude(token_factor=factor) as simulator:
            client = anthropic.Anthropic(api_key="k", base_url=simulator.url, max_retries=0)
            counted.append(client.messages.create(**prompt("How many eggs? " * 100)).usage.input_tokens)
            client.close()
    assert counted[1] == 3 * counted[0]
