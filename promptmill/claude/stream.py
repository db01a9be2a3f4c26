"""A streamed answer, folded into the very message that the plain call returns.

Two steps, both without I/O: `EventParser` cuts bytes into events wherever the network cut them, `MessageFold`
puts the events together. Nothing here is strict where the API may grow: unknown events and deltas are passed
over. What is known and does not fit raises `MalformedAnswer`, because half an answer must not look like one.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic_core import from_json

from promptmill.claude.replies import MalformedAnswer, read_usage
from promptmill.usage import Usage

#: Deltas that are appended: the delta's type -> the field that holds the text, in the delta.
_APPENDED = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}

#: Deltas that state a whole value: their fields are copied into the block.
_STATED = {"signature_delta", "compaction_delta"}


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; `name` is None where the server gave none."""

    name: str | None
    data: str


class EventParser:
    """Bytes in, complete events out. Lines end with LF, CRLF or CR; comments and other fields are dropped.

    Lines are cut before they are decoded, so that a character may be cut at any byte.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._name: str | None = None
        self._data: list[str] = []
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that are complete with this chunk.

        Raises:
            MalformedAnswer: the stream is not UTF-8.
        """
        for line in self._whole_lines(chunk):
            if line:
                self._take(line)
            elif self._data:
                yield Event(self._name, "\n".join(self._data))
                self._name, self._data = None, []
            else:
                self._name = None

    def _whole_lines(self, chunk: bytes) -> list[bytes]:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the second half of a CRLF whose first half ended the line
            self._after_cr = False
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        elif chunk:
            self._after_cr = False
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return lines

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name not in (b"event", b"data"):
            return
        try:
            text = value.removeprefix(b" ").decode()
        except UnicodeDecodeError:
            raise MalformedAnswer("an event is not UTF-8") from None
        if name == b"event":
            self._name = text
        else:
            self._data.append(text)


@dataclass(slots=True)
class _Block:
    content: dict[str, Any]
    pieces: dict[str, list[str]] = field(default_factory=dict)


class MessageFold:
    """Events in, one message out (claude-api.md, 4.1).

    Attributes:
        error: the `error` event, if one arrived; nothing after it counts.
    """

    __slots__ = ("_blocks", "_message", "_stopped", "error")

    def __init__(self) -> None:
        self.error: dict[str, Any] | None = None
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, _Block] = {}
        self._stopped = False

    @property
    def done(self) -> bool:
        """True when `message_stop` has come after a stop reason; before that there is no answer."""
        return self._stopped and self.message.get("stop_reason") is not None

    @property
    def over(self) -> bool:
        """True when nothing that follows can change the outcome."""
        return self._stopped or self.error is not None

    @property
    def message(self) -> dict[str, Any]:
        """The message so far.

        Raises:
            MalformedAnswer: `message_start` has not come.
        """
        if self._message is None:
            raise MalformedAnswer("an event came before message_start")
        return self._message

    @property
    def usage(self) -> Usage | None:
        """What is known to be used so far; None where nothing is."""
        try:
            return read_usage(self.message)
        except MalformedAnswer:
            return None

    def add(self, event: Event) -> None:
        """Fold one event in.

        Raises:
            MalformedAnswer: a known event is not JSON, or does not fit what came before.
        """
        if self.over or (event.name is not None and event.name not in self._handlers):
            return
        try:
            value = json.loads(event.data)
            handler = self._handlers.get(value["type"])
            if handler is not None:
                handler(self, value)
        except MalformedAnswer:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            # The data itself is part of an answer, so it is not quoted.
            raise MalformedAnswer(
                f"a malformed {event.name or 'unnamed'} event ({type(error).__name__})"
            ) from None

    def _start(self, event: dict[str, Any]) -> None:
        self._message = dict(event["message"])
        self._message["content"] = list(self._message.get("content") or [])
        self._message["usage"] = dict(self._message["usage"])

    def _start_block(self, event: dict[str, Any]) -> None:
        content = dict(event["content_block"])
        self.message["content"].append(content)
        self._blocks[event["index"]] = _Block(content)
        if content.get("type") == "fallback":
            # The model that takes over is the one that is billed, as in the plain answer.
            self.message["model"] = content["to"]["model"]

    def _extend_block(self, event: dict[str, Any]) -> None:
        block, delta = self._blocks[event["index"]], event["delta"]
        kind = delta["type"]
        if kind in _APPENDED:
            name = _APPENDED[kind]
            block.pieces.setdefault(name, []).append(delta[name])
        elif kind in _STATED:
            block.content.update({name: value for name, value in delta.items() if name != "type"})
        elif kind == "citations_delta":
            block.content["citations"] = [*(block.content.get("citations") or []), delta["citation"]]

    def _end_block(self, event: dict[str, Any]) -> None:
        _close(self._blocks[event["index"]])

    def _change(self, event: dict[str, Any]) -> None:
        _overlay(self.message["usage"], event.get("usage") or {})
        _overlay(self.message, event["delta"])
        _overlay(self.message, {name: event[name] for name in event.keys() - {"type", "delta", "usage"}})

    def _stop(self, _event: dict[str, Any]) -> None:
        for block in self._blocks.values():
            _close(block)
        self._stopped = self.message is not None

    def _fail(self, event: dict[str, Any]) -> None:
        self.error = event

    def _hear_ping(self, _event: dict[str, Any]) -> None:
        """Nothing of the answer is in it; but a stream that is damaged here may be so elsewhere."""

    # One for all answers: most calls are no streams and never look into it.
    _handlers: ClassVar[Mapping[str, Callable[["MessageFold", dict[str, Any]], None]]] = {
        "message_start": _start,
        "content_block_start": _start_block,
        "content_block_delta": _extend_block,
        "content_block_stop": _end_block,
        "message_delta": _change,
        "message_stop": _stop,
        "error": _fail,
        "ping": _hear_ping,
    }


def _overlay(target: dict[str, Any], news: dict[str, Any]) -> None:
    """Later values replace earlier ones; an absent or null one leaves what was there (counts are totals)."""
    for name, value in news.items():
        if value is not None or name not in target:
            target[name] = value


def _close(block: _Block) -> None:
    for name, pieces in block.pieces.items():
        text = _join(pieces)
        if name != "partial_json":
            block.content[name] = (block.content.get(name) or "") + text
        elif text:
            block.content["input"] = _tool_input(text)
    block.pieces = {}


def _join(pieces: list[str]) -> str:
    """One text; two halves of a character that JSON escaped in two deltas become whole again."""
    text = "".join(pieces)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text


def _tool_input(text: str) -> Any:
    """What a tool is called with. An answer cut by `max_tokens` leaves the complete part of it, as in the SDK.

    Text that is no JSON at all can arrive with `eager_input_streaming`. It was paid for, so it is kept, in the
    wrapping that Anthropic's documentation gives for sending it back.
    """
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return from_json(text, allow_partial=True)
    except ValueError:
        return {"INVALID_JSON": text}
