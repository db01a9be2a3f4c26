"""What a Reply offers, and what is not a message."""

from typing import Any

import pytest

from promptmill.claude.replies import MalformedAnswer, Reply, read_message, reply_of
from promptmill.dimensions import Headroom
from promptmill.usage import Usage


def reply(*content: dict[str, Any], **message: Any) -> Reply:
    return reply_of({"content": list(content), "usage": {}, **message}, {}, streamed=False)


def test_text_is_joined_from_text_blocks_wherever_they_stand() -> None:
    blocks = [{"type": "thinking", "thinking": "?"}, {"type": "text", "text": "a"}, {"type": "tool_use"}]
    assert reply(*blocks, {"type": "text", "text": "b"}).text == "ab"


def test_an_answer_without_text_has_an_empty_text() -> None:
    assert reply().text == ""
    assert reply(content=None).text == ""


def test_a_reply_reads_its_message_and_headers() -> None:
    headers = {
        "request-id": "req_1",
        "x-promptmill-simulator": "0.1",
        "anthropic-ratelimit-requests-limit": "9",
    }
    message = {
        "model": "m",
        "stop_reason": "refusal",
        "usage": {"input_tokens": 2, "cache_read_input_tokens": None},
    }
    answer = reply_of(message, headers, streamed=True)
    assert (answer.model, answer.stop_reason, answer.usage) == ("m", "refusal", Usage(input_tokens=2))
    assert (answer.request_id, answer.simulated, answer.streamed) == ("req_1", True, True)
    assert answer.headroom == Headroom(requests_limit=9)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b"\xff\xfe\xfd",
        b"[" * 100_000,
        b'{"type": "error"}',
        b'{"type": "message"}',
        b'{"type": "message", "usage": 7}',
    ],
)
def test_what_is_no_message_with_its_usage_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        read_message(body)


@pytest.mark.parametrize("usage", [{"input_tokens": "many"}, {"cache_creation": 7}, {"input_tokens": [1]}])
def test_counts_that_are_none_are_malformed(usage: dict[str, Any]) -> None:
    with pytest.raises(MalformedAnswer):
        reply_of({"usage": usage}, {}, streamed=False)
