"""Bytes become events, events become one message: wherever the network cut, whatever else came along."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmill.claude.replies import MalformedAnswer
from promptmill.claude.stream import Event, EventParser, MessageFold
from promptmill.usage import Usage

STREAMS = {path.stem: path.read_bytes() for path in Path(__file__).parent.glob("streams/*.sse")}


def fold(*chunks: bytes) -> MessageFold:
    parser, folded = EventParser(), MessageFold()
    for chunk in chunks:
        for event in parser.feed(chunk):
            folded.add(event)
    return folded


def events(*chunks: bytes) -> list[Event]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def sse(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()


def start(**usage: Any) -> bytes:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": [],
    }
    usage = {"input_tokens": 7, "output_tokens": 1, **usage}
    return sse({"type": "message_start", "message": {**message, "stop_reason": None, "usage": usage}})


def block(content: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    pieces = [sse({"type": "content_block_start", "index": 0, "content_block": content})]
    pieces += [sse({"type": "content_block_delta", "index": 0, "delta": delta}) for delta in deltas]
    return b"".join(pieces) + sse({"type": "content_block_stop", "index": 0})


def end(reason: str | None = "end_turn", **usage: Any) -> bytes:
    change = {
        "type": "message_delta",
        "delta": {"stop_reason": reason},
        "usage": {"output_tokens": 9, **usage},
    }
    return sse(change) + sse({"type": "message_stop"})


# --- where the network cuts ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_stream_cut_in_two_at_any_byte_gives_the_same_message(name: str, line_end: bytes) -> None:
    stream = STREAMS[name].replace(b"\n", line_end)
    whole = fold(stream)
    assert whole.done
    for place in range(len(stream)):
        assert fold(stream[:place], stream[place:]).message == whole.message


@given(cuts=st.sets(st.integers(0, len(STREAMS["text"]))), line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_a_stream_cut_into_any_pieces_gives_the_same_message(cuts: set[int], line_end: bytes) -> None:
    stream = STREAMS["text"].replace(b"\n", line_end)
    places = [0, *sorted(cuts), len(stream)]
    assert fold(*(stream[a:b] for a, b in pairwise(places))).message == fold(stream).message


def test_a_stream_that_arrives_byte_by_byte_gives_the_same_message() -> None:
    stream = STREAMS["tools"].replace(b"\n", b"\r\n")
    assert fold(*(bytes([byte]) for byte in stream)).message == fold(STREAMS["tools"]).message


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_ends_early_is_never_done(name: str) -> None:
    stream = STREAMS[name]
    for length in range(len(stream)):
        assert not fold(stream[:length]).done


# --- events -------------------------------------------------------------------------------------------


def test_comments_and_other_fields_are_no_part_of_an_event() -> None:
    assert events(b": hello\nid: 1\nretry: 10\nevent: ping\ndata:{}\n\n") == [Event("ping", "{}")]


def test_a_line_end_of_two_bytes_that_is_cut_in_two_ends_one_line() -> None:
    stream = b"event: ping\r\ndata: {}\r\n\r\n"
    for place in range(len(stream)):
        assert events(stream[:place], stream[place:]) == [Event("ping", "{}")]


def test_data_lines_of_one_event_are_joined_by_a_line_feed() -> None:
    assert events(b"data: one\ndata:  two\n\n") == [Event(None, "one\n two")]


def test_an_event_without_data_is_dropped_with_its_name() -> None:
    assert events(b"event: lost\n\ndata: 1\n\n") == [Event(None, "1")]


def test_line_separators_of_unicode_do_not_end_a_line() -> None:
    assert events("data: a\u2028b\x85c\n\n".encode()) == [Event(None, "a\u2028b\x85c")]


def test_bytes_that_are_no_text_are_malformed() -> None:
    with pytest.raises(MalformedAnswer):
        events(b"data: \xff\xfe\n\n")


# --- the message --------------------------------------------------------------------------------------


def test_text_is_joined_and_characters_survive() -> None:
    message = fold(STREAMS["text"]).message
    assert message["content"][0]["text"] == '你好，世界 🌍 — naïve "quotes"\n\n\u2028 end.'  # noqa: RUF001  # the comma is Chinese on purpose
    assert message["stop_reason"] == "stop_sequence"
    assert message["stop_sequence"] == "end."


def test_usage_is_overwritten_and_never_added() -> None:
    assert fold(STREAMS["text"]).usage == Usage(
        input_tokens=472,
        output_tokens=27,
        cache_write_5m_tokens=100,
        cache_write_1h_tokens=200,
        cache_read_tokens=90,
    )


def test_a_null_or_absent_count_leaves_the_earlier_one() -> None:
    folded = fold(start(cache_read_input_tokens=5), end(input_tokens=None))
    assert folded.message["usage"] == {"input_tokens": 7, "output_tokens": 9, "cache_read_input_tokens": 5}


def test_thinking_blocks_are_kept_whole() -> None:
    content = fold(STREAMS["thinking"]).message["content"]
    assert content[0]["thinking"] == "Let me count: 一、二、三."
    assert content[0]["signature"] == "EqQBCgIYAhIM1gbcDa9GJwZA2b3h=="
    assert content[1] == {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix/LafPsn4a"}


def test_tool_calls_are_kept_whole() -> None:
    content = fold(STREAMS["tools"]).message["content"]
    assert content[0]["input"] == {"query": '天气 "today"'}
    assert content[3]["input"] == {"city": "Berlin", "days": [1, 2.5], "window": None}
    assert content[4]["input"] == {}
    assert [each["url"] for each in content[2]["citations"]] == [
        "https://example.com/1",
        "https://example.com/2",
    ]


def test_tool_input_that_is_no_json_is_kept_as_text() -> None:
    tool = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    folded = fold(start(), block(tool, {"type": "input_json_delta", "partial_json": "nonsense"}), end())
    assert folded.message["content"][0]["input"] == {"INVALID_JSON": "nonsense"}


def test_a_character_escaped_in_two_halves_is_made_whole() -> None:
    halves = [{"type": "text_delta", "text": "\ud83c"}, {"type": "text_delta", "text": "\udf0d"}]
    folded = fold(start(), block({"type": "text", "text": ""}, *halves), end())
    assert folded.message["content"][0]["text"] == "🌍"


def test_half_a_character_without_its_other_half_survives() -> None:
    folded = fold(
        start(), block({"type": "text", "text": ""}, {"type": "text_delta", "text": "a\ud83c"}), end()
    )
    assert folded.message["content"][0]["text"] == "a\ud83c"


def test_unknown_fields_of_the_message_survive() -> None:
    change = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "new": 1},
        "usage": {},
        "newer": [2],
    }
    message = fold(start(newest="x"), sse(change), sse({"type": "message_stop"})).message
    assert (message["new"], message["newer"], message["usage"]["newest"]) == (1, [2], "x")


def test_an_unknown_event_need_not_even_be_json() -> None:
    assert fold(start(), b"event: novelty\ndata: <>\n\n", end()).done


def test_a_message_that_takes_over_states_the_model_that_is_billed() -> None:
    assert fold(STREAMS["beta"]).message["model"] == "claude-opus-5"


# --- what is not an answer ----------------------------------------------------------------------------


def test_message_stop_without_a_stop_reason_is_no_answer() -> None:
    assert not fold(start(), end(reason=None)).done


def test_what_was_used_before_a_cut_is_known() -> None:
    assert fold(start()).usage == Usage(input_tokens=7, output_tokens=1)
    assert fold(b"").usage is None


def test_an_error_event_ends_the_stream() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    folded = fold(start(), sse(error), end())
    assert folded.error == error
    assert folded.over
    assert not folded.done


@pytest.mark.parametrize(
    "broken",
    [
        b'event: content_block_delta\ndata: {"type": "content_block_de\n\n',
        b"event: message_delta\ndata: 7\n\n",
        b"event: message_delta\ndata: {}\n\n",
        sse({"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "x"}}),
        sse({"type": "content_block_stop", "index": 0}),
        sse({"type": "message_delta", "delta": None, "usage": None}),
        block({"type": "text", "text": ""}, {"type": "text_delta"}),
        block({"type": "text", "text": ""}, {"type": "text_delta", "text": 7}),
        b"data: " + b"[" * 100_000 + b"\n\n",
    ],
)
def test_a_malformed_event_is_said_and_not_quoted(broken: bytes) -> None:
    with pytest.raises(MalformedAnswer) as caught:
        fold(start(), broken)
    assert "text_delta" not in str(caught.value)


def test_an_event_before_the_message_is_malformed() -> None:
    with pytest.raises(MalformedAnswer):
        fold(end())


@given(st.binary(max_size=300))
def test_garbage_is_passed_over_or_malformed_and_nothing_else(garbage: bytes) -> None:
    try:
        folded = fold(STREAMS["text"][:200], garbage)
    except MalformedAnswer:
        return
    assert not folded.done


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda more: st.lists(more) | st.dictionaries(st.text(), more)
    )
)
def test_any_json_in_a_known_event_is_passed_over_or_malformed(value: Any) -> None:
    for name in ("message_start", "content_block_start", "content_block_delta", "message_delta", "error"):
        try:
            fold(
                start(),
                sse({"type": name, "delta": value, "content_block": value, "message": value, "index": 0}),
            )
        except MalformedAnswer:
            continue
