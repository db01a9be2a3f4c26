"""An answer as server-sent events with their times, and what a fault makes of them.

The one idea: the whole stream is a list of (seconds since admission, bytes) before the first byte is sent, so a
fault is a change to a list and sending is a loop (claude-api.md, 4.1).
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from promptmill.simulator.answers import Pace
from promptmill.simulator.ledger import Fate
from promptmill.simulator.replies import Reply
from promptmill.simulator.scenario import Fault

_TOKENS_PER_PIECE = 12
_MOST_PIECES = 200
# Events that are due within this time travel together: a write costs more than an event.
_TICK_S = 0.05

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_BROKEN = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"del\n\n'
_UNHEARD_OF = b'event: weather_report\ndata: {"type":"weather_report","outlook":"fair"}\n\n'

# One encoder for all: json.dumps makes a new one for every call with options.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

Part = tuple[float, bytes]


class Ending(Enum):
    """How the connection is left."""

    WHOLE = "whole"
    CLEAN_CUT = "clean"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Script:
    """What to send and when.

    Attributes:
        parts: (seconds since admission, bytes), in order.
        ending: what to do after the last.
        share: how much of the answer's output is produced: 1, unless it is cut.
        fate: what the ledger shall call it, if the client stays until the end.
    """

    parts: tuple[Part, ...]
    ending: Ending = Ending.WHOLE
    share: float = 1.0
    fate: Fate = Fate.SERVED


def stream_script(reply: Reply, pace: Pace, fault: Fault | None) -> Script:
    """The events of a reply, spoilt by `fault` where one is given."""
    events = list(_events(reply))
    parts = tuple((pace.first_token_s + share * pace.seconds, data) for share, data in events)
    if fault is None:
        return _together(Script(parts))
    if fault.kind == "slow_drip":
        return Script(tuple(_drip(parts, fault)))
    return _together(_spoil(parts, [share for share, _ in events], fault))


def plain_script(reply: Reply, pace: Pace, fault: Fault | None) -> Script:
    """The JSON body of a reply, spoilt by `fault` where one is given."""
    body = _encode(reply.message()).encode()
    script = Script(((pace.total_s, body),))
    if fault is None:
        return script
    if fault.kind == "cut":
        kept = body[: int(len(body) * fault.after)]
        return Script(((pace.total_s, kept),), _ending(fault), fate=Fate.LOST)
    if fault.kind == "stall":
        return Script(((pace.total_s + fault.pause_s, body),))
    if fault.kind == "slow_drip":
        return Script(tuple(_drip(script.parts, fault)))
    return script


def _events(reply: Reply) -> Iterator[tuple[float, bytes]]:
    """(share of the production time, event)."""
    yield 0.0, _event({"type": "message_start", "message": reply.opening()})
    content = reply.answer.content
    sizes = [max(1, len(_whole_text(block))) for block in content]
    total, done = sum(sizes), 0
    for index, (block, size) in enumerate(zip(content, sizes, strict=True)):
        tokens = reply.answer.output_tokens * size / total
        yield done / total, _event(_start(index, block))
        if index == 0:
            yield 0.0, PING
        for share, event in _deltas(index, block, tokens):
            yield (done + size * share) / total, event
        done += size
        yield done / total, _event({"type": "content_block_stop", "index": index})
    yield 1.0, _event(reply.closing())
    yield 1.0, _STOP


def _start(index: int, block: dict[str, Any]) -> dict[str, Any]:
    empty: dict[str, dict[str, Any]] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    return {"type": "content_block_start", "index": index, "content_block": block | empty[block["type"]]}


def _deltas(index: int, block: dict[str, Any], tokens: float) -> Iterator[tuple[float, bytes]]:
    name, key = {
        "text": ("text_delta", "text"),
        "thinking": ("thinking_delta", "thinking"),
        "tool_use": ("input_json_delta", "partial_json"),
    }[block["type"]]
    text = _whole_text(block)
    count = min(_MOST_PIECES, max(1, math.ceil(tokens / _TOKENS_PER_PIECE)))
    size = max(1, math.ceil(len(text) / count))
    head = f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},"delta":{{"type":"{name}","{key}":'
    for start in range(0, len(text), size):
        piece = _encode(text[start : start + size])
        share = min(1.0, (start + size) / len(text))
        yield share, f"{head}{piece}}}}}\n\n".encode()
    if block["type"] == "thinking":
        delta = {"type": "signature_delta", "signature": block["signature"]}
        yield 1.0, _event({"type": "content_block_delta", "index": index, "delta": delta})


def _whole_text(block: dict[str, Any]) -> str:
    if block["type"] == "tool_use":
        return _encode(block["input"])
    return str(block[block["type"]])


def _event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: {_encode(data)}\n\n".encode()


def _spoil(parts: tuple[Part, ...], shares: list[float], fault: Fault) -> Script:
    # Never before message_start, never after the usage of message_delta.
    at = min(len(parts) - 2, max(1, round(len(parts) * fault.after)))
    head, tail, moment = parts[:at], parts[at:], parts[at - 1][0]
    match fault.kind:
        case "cut":
            return Script(head, _ending(fault), shares[at - 1], Fate.CUT)
        case "stream_error":
            error = {
                "type": fault.error_type,
                "message": fault.error_type.removesuffix("_error").capitalize(),
            }
            last = (moment, _event({"type": "error", "error": error}))
            return Script((*head, last), Ending.CLEAN_CUT, shares[at - 1], Fate.CUT)
        case "stall":
            return Script((*head, *((when + fault.pause_s, data) for when, data in tail)))
        case "malformed_event":
            return Script((*head, (moment, _BROKEN), *tail), fate=Fate.CUT)
        case "unknown_event":
            return Script((*head, (moment, _UNHEARD_OF), *tail))
    return Script(parts)


def _ending(fault: Fault) -> Ending:
    return Ending.RESET if fault.how == "reset" else Ending.CLEAN_CUT


def _drip(parts: tuple[Part, ...], fault: Fault) -> Iterator[Part]:
    data = b"".join(part for _, part in parts)
    begins = parts[0][0]
    for number, start in enumerate(range(0, len(data), fault.piece_bytes)):
        yield begins + number * fault.pause_s, data[start : start + fault.piece_bytes]


def _together(script: Script) -> Script:
    joined: list[tuple[float, list[bytes]]] = []
    for when, data in script.parts:
        if joined and when - joined[-1][0] < _TICK_S:
            joined[-1][1].append(data)
        else:
            joined.append((when, [data]))
    return replace(script, parts=tuple((when, b"".join(data)) for when, data in joined))
