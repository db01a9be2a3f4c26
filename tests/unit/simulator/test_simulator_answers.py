"""The answers: seeded, as long as the usage says, and of the kind that was asked for."""

import json
import statistics

import jsonschema
import pytest

from promptmill.simulator.answers import Answer, Author, Direction
from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.models import Menu

MENU = Menu()
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["a", "b"]},
        "count": {"type": "integer"},
        "when": {"type": "string", "format": "date"},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["count", "parts"],
    "additionalProperties": False,
    "$defs": {
        "part": {
            "type": "object",
            "properties": {"size": {"type": "number"}, "ok": {"type": "boolean"}},
            "required": ["size", "ok"],
            "additionalProperties": False,
        }
    },
}


def answer(
    text: str = "How many eggs?",
    *,
    model: str = "claude-haiku-4-5",
    seed: int = 0,
    direction: Direction | None = None,
    config: dict | None = None,
    **body: object,
) -> Answer:
    author = Author(SimulatorConfig(seed=seed, **(config or {})))
    served = MENU.find(model)
    assert served is not None
    request = {"model": model, "max_tokens": 4096, "messages": [{"role": "user", "content": text}], **body}
    return author.answer(request, served, 20, author.dice(json.dumps(request)), direction)


def text_of(reply: Answer) -> str:
    return "".join(block["text"] for block in reply.content if block["type"] == "text")


def test_the_same_request_gets_the_same_answer() -> None:
    assert answer() == answer()


def test_another_seed_or_another_request_gets_another_answer() -> None:
    assert answer() != answer(seed=1)
    assert answer() != answer("How many hens?")


def test_lengths_vary_around_the_configured_mean() -> None:
    config = {"mean_output_tokens": 100.0, "output_spread": 0.5}
    lengths = [answer(f"Question {n}", config=config).output_tokens for n in range(400)]
    assert 90 < statistics.mean(lengths) < 110
    assert len(set(lengths)) > 50


def test_an_answer_is_cut_at_max_tokens() -> None:
    reply = answer(max_tokens=3)
    assert (reply.output_tokens, reply.stop_reason) == (3, "max_tokens")


def test_max_tokens_zero_answers_nothing() -> None:
    assert answer(max_tokens=0) == Answer(stop_reason="max_tokens")


def test_a_chinese_question_is_answered_in_chinese() -> None:
    assert any("\u4e00" <= letter <= "\u9fff" for letter in text_of(answer("小明有几个苹果")))
    assert not any("\u4e00" <= letter <= "\u9fff" for letter in text_of(answer()))


def test_some_answers_hold_an_emoji() -> None:
    assert any("🙂" in text_of(answer(f"Question {n}")) for n in range(50))


def test_thinking_that_is_asked_for_comes_first_and_counts_as_output() -> None:
    reply = answer(thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block["type"] for block in reply.content] == ["thinking", "text"]
    assert 0 < reply.thinking_tokens < reply.output_tokens
    assert reply.content[0]["thinking"]


def test_newer_models_think_unasked_and_leave_the_text_out() -> None:
    replies = [answer(f"Question {n}", model="claude-opus-5") for n in range(40)]
    thoughtful = [reply for reply in replies if reply.thinking_tokens]
    assert 0 < len(thoughtful) < 40
    assert all(
        reply.content[0] | {"signature": ""} == {"type": "thinking", "thinking": "", "signature": ""}
        for reply in thoughtful
    )


def test_small_max_tokens_can_be_used_up_by_thinking() -> None:
    replies = [answer(f"Question {n}", model="claude-opus-5", max_tokens=10) for n in range(40)]
    assert any(not text_of(reply) and reply.stop_reason == "max_tokens" for reply in replies)


def test_a_forced_tool_is_used_with_a_fitting_input() -> None:
    tools = [{"name": "first", "input_schema": {}}, {"name": "get", "input_schema": SCHEMA}]
    reply = answer(tools=tools, tool_choice={"type": "tool", "name": "get"})
    assert reply.stop_reason == "tool_use"
    assert reply.content[0]["name"] == "get"
    jsonschema.validate(reply.content[0]["input"], SCHEMA)


@pytest.mark.parametrize("number", range(20))
def test_structured_output_fits_its_schema(number: int) -> None:
    wanted = {"format": {"type": "json_schema", "schema": SCHEMA}}
    reply = answer(f"Question {number}", output_config=wanted)
    jsonschema.validate(json.loads(text_of(reply)), SCHEMA)


def test_structured_output_may_be_cut() -> None:
    reply = answer(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}, max_tokens=5)
    assert reply.stop_reason == "max_tokens"


def test_a_stop_sequence_ends_the_text() -> None:
    reply = answer(stop_sequences=["e"])
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", "e")
    assert "e" not in text_of(reply)


def test_an_echo_gives_the_question_back() -> None:
    assert text_of(answer("[NAME_1] 先生 🙂", config={"text": "echo"})) == "[NAME_1] 先生 🙂"


def test_a_scenario_may_choose_reply_and_stop_reason() -> None:
    assert text_of(answer(direction=Direction(reply="42"))) == "42"
    assert answer(direction=Direction(stop_reason="pause_turn")).stop_reason == "pause_turn"
    assert answer(direction=Direction(output_tokens=7)).output_tokens == 7
    refusal = answer(direction=Direction(stop_reason="refusal", category="cyber"))
    assert refusal.content == []
    assert refusal.stop_details is not None
    assert refusal.stop_details["category"] == "cyber"


def test_the_pace_follows_the_configured_speed() -> None:
    author = Author(SimulatorConfig(first_token_s=0.5, tokens_per_s=100, jitter=0.0))
    pace = author.pace(author.dice("x"), 200)
    assert (pace.first_token_s, pace.seconds) == (0.5, 2.0)
    assert Author(SimulatorConfig.unlimited()).pace(author.dice("x"), 200).total_s == 0
