"""How many tokens a request body will be, about: its texts by `textlength`, the rest by constants.

Lengths are raw: the factor of the model's tokenizer is not in them. They add up, so what a whole batch shares
is measured once. Nothing is validated here: what cannot be measured counts as nothing.
"""

import json
from collections.abc import Mapping
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
    total = Length(0.0)
    if "messages" in body:
        total += _messages(body["messages"])
    if "system" in body:
        total += _content(body["system"])
    if body.get("tools"):
        total += Length(TOOL_PROMPT_TOKENS + count_text(_json(body["tools"])))
    if _forces_a_tool(body.get("tool_choice")):
        total += Length(FORCED_TOOL_TOKENS)
    if isinstance(body.get("output_config"), Mapping):
        total += Length(count_text(_json(body["output_config"].get("format", ""))))
    return total


def _messages(messages: Any) -> Length:
    total = Length(PROMPT_TOKENS)
    for message in messages if isinstance(messages, list | tuple) else ():
        if isinstance(message, Mapping):
            total += _content(message.get("content")) + Length(MESSAGE_TOKENS)
    return total


def _content(content: Any) -> Length:
    if isinstance(content, str):
        return Length(count_text(content))
    if isinstance(content, list | tuple):
        total = Length(0.0)
        for block in content:
            total += _block(block) if isinstance(block, Mapping) else _content(block)
        return total
    return Length(0.0) if content is None else Length(count_text(_json(content)))


def _block(block: Mapping[str, Any]) -> Length:
    match block.get("type"):
        case "text":
            return _content(block.get("text"))
        case "image":
            return Length(IMAGE_TOKENS, text_only=False)
        case "document":
            return _document(block.get("source"))
        case "tool_result":
            return _content(block.get("content"))
        case _:
            return Length(count_text(_json(block)))


def _document(source: Any) -> Length:
    kind = source.get("type") if isinstance(source, Mapping) else None
    if kind == "text":
        return _content(source.get("data"))
    if kind == "content":
        return _content(source.get("content"))
    return Length(DOCUMENT_TOKENS, text_only=False)


def _forces_a_tool(choice: Any) -> bool:
    return isinstance(choice, Mapping) and choice.get("type") in {"any", "tool"}


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
