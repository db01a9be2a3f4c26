"""Invalid requests, each with the status and words of the real API."""

from collections.abc import Callable
from typing import Any

import pytest

from promptmill.testing import SimulatorHandle

Send = Callable[..., Any]
SCHEMA = {"type": "object", "properties": {}, "required": []}
TOOL = {"name": "get", "input_schema": SCHEMA}
LATER = {"role": "assistant", "content": "So"}
ASK = {"role": "user", "content": "Why?"}
MARKED = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": None}, "model: Field required"),
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"messages": None}, "messages: Field required"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role: Input should be"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        (
            {"messages": [{"role": "user", "content": ""}]},
            "messages.0: user messages must have non-empty content",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "poem"}]}]},
            "messages.0.content.0: Input tag 'poem'",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "must be non-empty"),
        ({"messages": [ASK, LATER]}, "does not support assistant message prefill"),
        ({"temperature": 1.0}, "temperature: Extra inputs are not permitted"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"context_management": {}}, "context_management: Extra inputs are not permitted"),
        ({"max_tokens": 128_001}, "max_tokens: 128001 > 128000, which is the maximum"),
        ({"max_tokens": "5"}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": -1}, "max_tokens: Input should be greater"),
        ({"max_tokens": 0, "stream": True}, "max_tokens: 0 cannot be combined"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            "thinking.type: 'enabled' is not supported",
        ),
        ({"thinking": {"type": "sometimes"}}, "thinking.type: Input should be one of"),
        ({"output_config": {"effort": "heroic"}}, "output_config.effort: 'heroic' is not supported"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            "'additionalProperties' must",
        ),
        ({"tools": [{"name": "get"}]}, "tools.0.custom.input_schema: Field required"),
        ({"tools": [TOOL, TOOL]}, "Tool names must be unique"),
        ({"tool_choice": {"type": "any"}}, "tools must be provided"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "put"}}, "Tool 'put' not found"),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}, "model": "claude-opus-5-5"}, "forced tool use"),
        ({"speed": "fast"}, "speed: fast mode is not supported"),
        ({"inference_geo": "us", "model": "claude-haiku-4-5"}, "inference_geo: not supported"),
        ({"stop_sequences": [" "]}, "must contain non-whitespace"),
        ({"system": [MARKED] * 5}, "A maximum of 4 blocks with cache_control"),
        ({"messages": [{"role": "user", "content": "egg " * 1_000_000}]}, "prompt is too long"),
    ],
)
def test_an_invalid_request_is_told_what_is_wrong(
    send: Send, prompt: Send, fields: dict[str, Any], message: str
) -> None:
    body = {name: value for name, value in prompt(**fields).items() if value is not None}
    got = send(body=body)
    assert (got.status, got.json["error"]["type"]) == (400, "invalid_request_error")
    assert message in got.json["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"temperature": 0.3, "model": "claude-sonnet-4-6"}, 200),
        ({"temperature": 1, "model": "claude-opus-5"}, 200),
        ({"temperature": 0.3, "model": "claude-opus-5"}, 400),
        ({"messages": [ASK, LATER], "model": "claude-haiku-4-5"}, 200),
    ],
)
def test_the_older_version_and_older_models_allow_more(
    send: Send, prompt: Send, fields: dict[str, Any], status: int
) -> None:
    assert send(body=prompt(**fields), anthropic_version="2023-06-01").status == status


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"x_api_key": None}, 401, "x-api-key header is required"),
        ({"x_api_key": "sk-ant-invalid"}, 401, "invalid x-api-key"),
        ({"anthropic_version": None}, 400, "anthropic-version: header is required"),
        ({"anthropic_version": "2020-01-01"}, 400, "is not a valid version"),
        ({"anthropic_beta": "telepathy-2026-01-01"}, 400, "Unexpected value(s) `telepathy-2026-01-01`"),
        ({"anthropic_beta": "compact-2026-09-04, mcp-client-2026-09-15"}, 200, ""),
    ],
)
def test_headers_are_checked(
    send: Send, prompt: Send, headers: dict[str, str | None], status: int, message: str
) -> None:
    got = send(body=prompt(), **headers)
    assert got.status == status
    assert message in got.body.decode()


@pytest.mark.parametrize("model", ["claude-9", "claude-3-haiku-20240307", "claude-opus-4-1"])
def test_an_unknown_or_retired_model_is_not_found(send: Send, prompt: Send, model: str) -> None:
    got = send(body=prompt(model=model))
    assert (got.status, got.json["error"]) == (404, {"type": "not_found_error", "message": f"model: {model}"})


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"model": NaN}', b"[" * 100_000], ids=range(7)
)
def test_a_body_that_is_no_json_object_is_invalid(send: Send, body: bytes) -> None:
    got = send(body=body)
    assert (got.status, got.json["error"]["type"]) == (400, "invalid_request_error")


def test_a_lone_surrogate_is_no_valid_json(send: Send, prompt: Send) -> None:
    got = send(body=prompt("half a character: \ud83d"))
    assert (got.status, "surrogate" in got.json["error"]["message"]) == (400, True)


def test_a_body_over_32_megabytes_is_too_large(send: Send, prompt: Send) -> None:
    got = send(body=prompt("x" * 33_554_432))
    assert (got.status, got.json["error"]["type"]) == (413, "request_too_large")


def test_an_unknown_path_is_not_found(send: Send) -> None:
    assert send("/v1/complete").status == 404
    assert send("/").json["error"]["type"] == "not_found_error"


def test_every_refusal_is_in_the_book(simulator: SimulatorHandle, send: Send, prompt: Send) -> None:
    send(body=prompt(), x_api_key="sk-ant-invalid")
    send(body=prompt(temperature=1))
    send("/v1/models/claude-9", method="GET")
    refused = simulator.ledger()["refused"]
    assert refused["by_status"] == {"400": 1, "401": 1, "404": 1}
    assert refused["times"][0][1:] == [401, "authentication_error", ""]
