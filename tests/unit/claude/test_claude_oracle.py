"""The official SDK as the judge: for the same bytes our message equals the one its accumulator builds."""

from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from promptmill.claude.replies import Reply, reply_of
from promptmill.claude.stream import EventParser, MessageFold

STREAMS = {path.stem: path.read_bytes() for path in Path(__file__).parent.glob("streams/*.sse")}

ASK: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "?"}],
}


def ours(stream: bytes) -> Reply:
    parser, fold = EventParser(), MessageFold()
    for event in parser.feed(stream):
        fold.add(event)
    return reply_of(fold.message, {}, streamed=True)


def sdk(stream: bytes) -> anthropic.Anthropic:
    def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return anthropic.Anthropic(api_key="k", max_retries=0, http_client=http)


def stated(value: Any) -> Any:
    """Without nulls: the SDK's objects state every field they know, the wire does not."""
    if isinstance(value, dict):
        return {name: stated(each) for name, each in value.items() if each is not None}
    return [stated(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", sorted(STREAMS.keys() - {"beta"}))
def test_a_folded_message_equals_the_one_of_the_sdk(name: str) -> None:
    with sdk(STREAMS[name]) as client, client.messages.stream(**ASK) as stream:
        theirs = stream.get_final_message()
    assert stated(ours(STREAMS[name]).message) == stated(theirs.to_dict(mode="json"))


@pytest.mark.parametrize("name", STREAMS)
def test_a_folded_message_equals_the_one_of_the_sdk_with_betas(name: str) -> None:
    with sdk(STREAMS[name]) as client, client.beta.messages.stream(**ASK) as stream:
        theirs = stream.get_final_message()
    assert stated(ours(STREAMS[name]).message) == stated(theirs.to_dict(mode="json"))


@pytest.mark.parametrize("name", STREAMS)
def test_a_folded_message_is_a_message_to_the_sdk(name: str) -> None:
    message = ours(STREAMS[name]).message
    kind = anthropic.types.beta.BetaMessage if name == "beta" else anthropic.types.Message
    assert stated(kind.model_validate(message).to_dict(mode="json")) == stated(message)
