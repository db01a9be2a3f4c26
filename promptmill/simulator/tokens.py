"""How many tokens a request has, by this server's own formula.

The real tokenizers are not public. The one idea: a formula over character classes that is cheap, and that is
deliberately nobody else's, so that a client's estimate is off by a realistic amount and has to be corrected.
"""

from collections.abc import Mapping
from typing import Any

_PER_CHARACTER = 0.17
_PER_SPACE = 0.30
_PER_WIDE_CHARACTER = 0.95
_WIDE_EXTRA_BYTES = 2
_DENSE_FACTOR = 1.3
PER_MESSAGE = 4.0
PER_REQUEST = 3.0
_PER_IMAGE = 1568.0
_CHARACTERS_PER_DOCUMENT_TOKEN = 24.0
_TOOLS_PROMPT = {True: 286.0, False: 496.0}
_FORCED_TOOL_PROMPT = 120.0


def count_text(text: str) -> float:
    """Tokens of a text with the older tokenizer.

    Raises:
        UnicodeEncodeError: the text holds a lone surrogate, which is not valid in a request.
    """
    spaces = text.count(" ")
    if text.isascii():
        return _PER_CHARACTER * len(text) + _PER_SPACE * spaces
    wide = (len(text.encode()) - len(text)) / _WIDE_EXTRA_BYTES
    return _PER_CHARACTER * max(0.0, len(text) - wide) + _PER_SPACE * spaces + _PER_WIDE_CHARACTER * wide


def count_content(content: Any) -> float:
    """Tokens of a message's content: a text or a list of blocks."""
    if isinstance(content, str):
        return count_text(content)
    return sum(map(count_block, content)) if isinstance(content, list) else 0.0


def count_block(block: Any) -> float:  # noqa: PLR0911  one return per type of block
    """Tokens of one content block of any type."""
    if isinstance(block, str):
        return count_text(block)
    if not isinstance(block, Mapping):
        return count_text(str(block))
    kind = block.get("type")
    if kind == "text":
        return count_text(str(block.get("text", "")))
    if kind == "image":
        return _PER_IMAGE
    if kind == "document":
        return _count_document(block.get("source"))
    if kind == "tool_result":
        return PER_MESSAGE + count_content(block.get("content"))
    return count_value({name: value for name, value in block.items() if name != "cache_control"})


def count_value(value: Any) -> float:
    """Tokens of any JSON value, as if it were written out."""
    if isinstance(value, str):
        return count_text(value)
    if isinstance(value, Mapping):
        return sum(count_text(name) + 1.0 + count_value(each) for name, each in value.items())
    if isinstance(value, list):
        return sum(1.0 + count_value(each) for each in value)
    return 1.0


def count_tools(body: Mapping[str, Any], *, dense: bool) -> float:
    """Tokens of the tool definitions and of the hidden system prompt they bring (claude-api.md, 8)."""
    tools = body.get("tools")
    if not tools:
        return 0.0
    choice = body.get("tool_choice") or {}
    forced = choice.get("type") in {"any", "tool"}
    return _TOOLS_PROMPT[dense] + _FORCED_TOOL_PROMPT * forced + count_value(tools)


def count_prompt(body: Mapping[str, Any], *, dense: bool) -> int:
    """Input tokens of a whole request, cached or not.

    Args:
        body: the request.
        dense: True for the tokenizer of Claude 4.7 and later.
    """
    tokens = PER_REQUEST + count_content(body.get("system"))
    for message in body["messages"]:
        tokens += PER_MESSAGE + count_content(message.get("content"))
    schema = (body.get("output_config") or {}).get("format")
    if schema:
        tokens += count_value(schema)
    return scale(tokens, dense=dense) + round(count_tools(body, dense=dense))


def scale(tokens: float, *, dense: bool) -> int:
    """Whole tokens of the model's own tokenizer; at least one."""
    return max(1, round(tokens * _DENSE_FACTOR if dense else tokens))


def scale_by(factor: float, tokens: int) -> int:
    """Whole tokens times `factor`; at least one."""
    return max(1, round(tokens * factor))


def _count_document(source: Any) -> float:
    if not isinstance(source, Mapping):
        return PER_MESSAGE
    data = source.get("data")
    if source.get("type") == "text" and isinstance(data, str):
        return count_text(data)
    if isinstance(data, str):
        return len(data) / _CHARACTERS_PER_DOCUMENT_TOKEN
    return count_content(source.get("content")) or _PER_IMAGE
