"""How many tokens a request body will be, about: its texts by `textlength`, the rest by constants.

Lengths are raw: the factor of the model's tokenizer is not in them. They add up, so what a whole batch shares
is measured once. Nothing is validated here: what cannot be measured counts as nothing.
"""

import json
from typing import Any, NamedTuple

from promptmill.prompts import Body
from promptmill.textlength import count_text

MESSAGE_TOKENS = 3.0
PROMPT_TOKENS = 4.0
# A middling image and a document of a few pages; nothing is learned from prompts with either.
IMAGE_TOKENS = 1_600.0
DOCUMENT_TOKENS = 5_000.0
# The hidden system prompt of tool use: 286 on Opus 5 to 497 on the 4.5 family, 120 more when forced
# (claude-api.md, 8).
TOOL_PROMPT_TOKENS = 330.0
FORCED_TOOL_TOKENS = 120.0


class Length(NamedTuple):
    """Raw tokens by the formula, before any factor, and whether text accounts for all of them."""

    tokens: float
    text_only: bool = True

    def __add__(self, other: object) -> "Length":
        if not isinstance(other, Length):
            return NotImplemented
        return Length(self.tokens + other.tokens, self.text_only and other.text_only)


def measure(body: Body) -> Length:
    """The raw length of a request body, or of a part of its fields: the lengths of parts add up."""
    meter = _Meter()
    if "messages" in body:
        meter.take_messages(body["messages"])
    if "system" in body:
        meter.take(body["system"])
    if body.get("tools"):
        meter.tokens += TOOL_PROMPT_TOKENS + count_text(_json(body["tools"]))
    if _forces_a_tool(body.get("tool_choice")):
        meter.tokens += FORCED_TOOL_TOKENS
    config = body.get("output_config")
    if isinstance(config, dict) and "format" in config:
        meter.tokens += count_text(_json(config["format"]))
    return Length(meter.tokens, meter.text_only)


class _Meter:
    """Adds up what it is shown."""

    __slots__ = ("text_only", "tokens")

    def __init__(self) -> None:
        self.tokens = 0.0
        self.text_only = True

    def take_messages(self, messages: Any) -> None:
        self.tokens += PROMPT_TOKENS
        for message in messages if isinstance(messages, list | tuple) else ():
            if isinstance(message, dict):
                self.tokens += MESSAGE_TOKENS
                self.take(message.get("content"))

    def take(self, content: Any) -> None:
        if isinstance(content, str):
            self.tokens += count_text(content)
        elif isinstance(content, list | tuple):
            for block in content:
                self._take_block(block)
        elif content is not None:
            self.tokens += count_text(_json(content))

    def _take_block(self, block: Any) -> None:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            self.take(block.get("text"))
        elif kind == "tool_result":
            self.take(block.get("content"))
        elif kind == "image":
            self._take_constant(IMAGE_TOKENS)
        elif kind == "document":
            self._take_document(block.get("source"))
        else:
            self.take(block if isinstance(block, str) else _json(block))

    def _take_document(self, source: Any) -> None:
        kind = source.get("type") if isinstance(source, dict) else None
        if kind == "text":
            self.take(source.get("data"))
        elif kind == "content":
            self.take(source.get("content"))
        else:
            self._take_constant(DOCUMENT_TOKENS)

    def _take_constant(self, tokens: float) -> None:
        self.tokens += tokens
        self.text_only = False


def _forces_a_tool(choice: Any) -> bool:
    return isinstance(choice, dict) and choice.get("type") in {"any", "tool"}


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
