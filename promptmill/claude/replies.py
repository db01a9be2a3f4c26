"""Reply: the answer to one call, plain or streamed alike, kept whole.

The message is the API's own object with every field it came with. A refusal, a truncated answer or a paused
turn is a Reply too: see `stop_reason`.
"""

from dataclasses import dataclass
from typing import Any

from promptmill import jsontext
from promptmill.claude.headers import REQUEST_ID, SIMULATOR, Headers, read_headroom
from promptmill.dimensions import Headroom
from promptmill.usage import Usage


class MalformedAnswer(ValueError):
    """What arrived cannot be an answer, or part of one. The message never quotes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One complete answer.

    Attributes:
        message: the message object of the API, unknown fields included.
        usage: its token counts.
        headroom: what the headers said about the group's limits; None when they said nothing.
        request_id: Anthropic's `req_…`.
        simulated: True when a simulator answered.
        streamed: True when it arrived as a stream; the message is the same either way.
    """

    message: dict[str, Any]
    usage: Usage
    headroom: Headroom | None
    request_id: str | None
    simulated: bool
    streamed: bool

    @property
    def text(self) -> str:
        """All text blocks, joined. Other blocks (thinking, tool use) stay in `message`; may be empty."""
        blocks = self.message.get("content") or []
        return "".join(block.get("text") or "" for block in blocks if block.get("type") == "text")

    @property
    def stop_reason(self) -> str | None:
        """Why the answer ended (claude-api.md, 3.3); an open list."""
        reason: str | None = self.message.get("stop_reason")
        return reason

    @property
    def model(self) -> str:
        """The model that answered, which is the one that is billed."""
        return str(self.message.get("model") or "")


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        MalformedAnswer: it is none; the text is not quoted.
    """
    try:
        value = jsontext.read(body)
    except (ValueError, RecursionError):
        raise MalformedAnswer(f"the answer is not JSON ({len(body)} bytes)") from None
    if not isinstance(value, dict):
        raise MalformedAnswer("the answer is not a JSON object")
    return value


def read_message(body: bytes) -> dict[str, Any]:
    """The message object of a plain answer.

    Raises:
        MalformedAnswer: it is none. Without its usage it is none either: what is not counted cannot be paid for.
    """
    message = read_object(body)
    if message.get("type") != "message" or not isinstance(message.get("usage"), dict):
        raise MalformedAnswer("the answer is not a message")
    return message


def reply_of(message: dict[str, Any], headers: Headers, *, streamed: bool) -> Reply:
    """A complete message and its headers, as a Reply.

    Raises:
        MalformedAnswer: its usage cannot be read.
    """
    return Reply(
        message=message,
        usage=read_usage(message),
        headroom=read_headroom(headers),
        request_id=headers.get(REQUEST_ID),
        simulated=SIMULATOR in headers,
        streamed=streamed,
    )


def read_usage(message: dict[str, Any]) -> Usage:
    """The token counts of a message.

    Raises:
        MalformedAnswer: they are not counts.
    """
    try:
        return Usage.from_reply(message["usage"])
    except (LookupError, TypeError, ValueError, AttributeError):
        raise MalformedAnswer("the usage of the answer cannot be read") from None
