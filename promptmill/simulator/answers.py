"""What the simulated model answers, how long the answer is and how fast it comes.

The one idea: everything is drawn from a hash of the seed and the request, so the same request gets the same
answer at the same pace, however often and in whatever order it is asked. The usage is drawn first; the text is
then made about as long as the usage says.
"""

import base64
import hashlib
import json
import math
import random
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptmill.simulator import words
from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.models import ServedModel
from promptmill.simulator.schemas import value_for
from promptmill.simulator.tokens import count_text, scale

_CHINESE = re.compile("[\u4e00-\u9fff]")
_LOOKED_AT = 2_000
# How often adaptive thinking thinks, by effort; the real shares are not published.
_THINKS = {"low": 0.2, "medium": 0.4, "high": 0.6, "xhigh": 0.8, "max": 0.95}
_THINKING_LENGTH = 0.8
_TOOL_WHEN_AUTO = 0.3
_TOOL_OVERHEAD = 24
_ENGLISH_CHARACTERS_PER_TOKEN = {False: 4.4, True: 3.4}
_CHINESE_CHARACTERS_PER_TOKEN = {False: 1.05, True: 0.81}
_NUMBERS = struct.Struct("<8Q")
_TWO_TO_64 = float(2**64)


@dataclass(slots=True)
class Answer:
    """The content of one reply and what it counts; `output_tokens` contains `thinking_tokens`."""

    content: list[dict[str, Any]] = field(default_factory=list)
    output_tokens: int = 0
    thinking_tokens: int = 0
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """When an answer comes: seconds until its first token, and from there to its last."""

    first_token_s: float
    seconds: float

    @property
    def total_s(self) -> float:
        """Seconds from admission to the last token."""
        return self.first_token_s + self.seconds


@dataclass(frozen=True, slots=True)
class Direction:
    """What a scenario wants of an answer; None leaves it to chance."""

    reply: str | None = None
    stop_reason: str | None = None
    category: str | None = None
    output_tokens: int | None = None


class Dice:
    """A few independent numbers that depend on nothing but the seed and the request."""

    __slots__ = ("digest", "draws")

    def __init__(self, seed: bytes, fingerprint: str) -> None:
        self.digest = hashlib.blake2b(fingerprint.encode(), key=seed).digest()
        self.draws = [number / _TWO_TO_64 for number in _NUMBERS.unpack(self.digest)]

    def normals(self, index: int) -> tuple[float, float]:
        """Two standard normal numbers out of two draws (Box-Muller)."""
        radius = math.sqrt(-2 * math.log(1 - self.draws[index]))
        angle = 2 * math.pi * self.draws[index + 1]
        return radius * math.cos(angle), radius * math.sin(angle)

    def generator(self) -> random.Random:
        """A generator for what needs many numbers."""
        return random.Random(self.digest[:8])  # noqa: S311  filler, not a secret


@dataclass(frozen=True, slots=True)
class _Order:
    body: Mapping[str, Any]
    model: ServedModel
    dice: Dice


class Author:
    """Writes the answers of one simulator."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._seed = hashlib.blake2b(str(config.seed).encode(), digest_size=16).digest()
        self._english = words.english(config.seed)
        self._chinese = words.chinese(config.seed)
        self._echoes = config.text == "echo"
        self._mean = config.mean_output_tokens
        self._spread = config.output_spread
        self._first_token_s = config.first_token_s
        self._tokens_per_s = config.tokens_per_s
        self._jitter = config.jitter

    def dice(self, fingerprint: str) -> Dice:
        """The draws for one request."""
        return Dice(self._seed, fingerprint)

    def pace(self, dice: Dice, output_tokens: int) -> Pace:
        """When the answer comes."""
        slow, fast = dice.normals(2)
        speed = _lognormal(self._tokens_per_s, self._jitter, fast)
        return Pace(
            first_token_s=_lognormal(self._first_token_s, self._jitter, slow),
            seconds=output_tokens / speed if speed else 0.0,
        )

    def answer(
        self,
        body: Mapping[str, Any],
        model: ServedModel,
        input_tokens: int,
        dice: Dice,
        direction: Direction | None = None,
    ) -> Answer:
        """The reply to a valid request.

        Args:
            body: the request.
            model: who answers.
            input_tokens: the whole prompt, which shares the context window with the answer.
            dice: the draws for this request.
            direction: what a scenario wants.
        """
        room = min(int(body["max_tokens"]), model.facts.context_window - input_tokens)
        if room <= 0:
            return Answer(stop_reason="max_tokens")
        answer = Answer()
        order = _Order(body, model, dice)
        if direction is None or (direction.reply is None and direction.output_tokens is None):
            self._think(answer, order, room)
        left = room - answer.thinking_tokens
        if left <= 0:
            answer.stop_reason = "max_tokens"
        else:
            self._speak(answer, order, left, direction or Direction())
        if answer.stop_reason == "max_tokens" and room < int(body["max_tokens"]):
            answer.stop_reason = "model_context_window_exceeded"
        if direction is not None and direction.stop_reason is not None:
            _stop_as_told(answer, direction)
        return answer

    def _think(self, answer: Answer, order: _Order, room: int) -> None:
        body, model, dice = order.body, order.model, order.dice
        thinking = body.get("thinking") or {}
        kind = thinking.get("type") or ("adaptive" if model.facts.thinks_by_default else "disabled")
        effort = (body.get("output_config") or {}).get("effort") or model.default_effort
        if kind not in {"adaptive", "enabled"} or (kind == "adaptive" and dice.draws[5] >= _THINKS[effort]):
            return
        wanted = _lognormal(self._mean * _THINKING_LENGTH, self._spread, dice.normals(0)[1])
        tokens = max(1, min(round(wanted), room, int(thinking.get("budget_tokens") or room)))
        # Since 4.7 the text of thinking is left out unless it is asked for (claude-api.md, 2.3).
        shown = thinking.get("display") == "summarized" or not model.facts.dense_tokenizer
        text = self._prose(order, tokens, dice.draws[6]) if shown else ""
        signature = base64.b64encode(dice.digest).decode()
        answer.content.append({"type": "thinking", "thinking": text, "signature": signature})
        answer.thinking_tokens = answer.output_tokens = tokens

    def _speak(self, answer: Answer, order: _Order, left: int, direction: Direction) -> None:
        dense = order.model.facts.dense_tokenizer
        tool = _tool_to_use(order.body, order.dice) if direction.reply is None else None
        if tool is not None:
            _use_tool(answer, tool, left, order.dice, dense=dense)
            return
        text = self._fixed_text(order, direction)
        if text is None:
            drawn = round(_lognormal(self._mean, self._spread, order.dice.normals(0)[0]))
            wanted = max(1, direction.output_tokens or drawn)
            text = self._prose(order, min(wanted, left), order.dice.draws[4])
        else:
            wanted = scale(count_text(text), dense=dense)
            text = text if wanted <= left else text[: len(text) * left // wanted]
        if wanted > left:
            answer.stop_reason = "max_tokens"
        _finish_text(answer, order.body, text, min(wanted, left))

    def _fixed_text(self, order: _Order, direction: Direction) -> str | None:
        """Text that does not depend on a drawn length; None for prose."""
        if direction.reply is not None:
            return direction.reply
        wanted = (order.body.get("output_config") or {}).get("format")
        if wanted:
            value = value_for(wanted.get("schema"), order.dice.generator())
            return json.dumps(value, ensure_ascii=False)
        return last_user_text(order.body) if self._echoes else None

    def _prose(self, order: _Order, tokens: int, position: float) -> str:
        asked = last_user_text(order.body)
        dense = order.model.facts.dense_tokenizer
        if not asked.isascii() and _CHINESE.search(asked, 0, _LOOKED_AT):
            return self._chinese.take(position, int(tokens * _CHINESE_CHARACTERS_PER_TOKEN[dense]))
        return self._english.take(position, int(tokens * _ENGLISH_CHARACTERS_PER_TOKEN[dense]))


def last_user_text(body: Mapping[str, Any]) -> str:
    """The text of the last user message; empty when it has none."""
    for message in reversed(body["messages"]):
        if message.get("role") == "user":
            content = message["content"]
            if isinstance(content, str):
                return content
            return "\n".join(str(block.get("text", "")) for block in content if block.get("type") == "text")
    return ""


def _tool_to_use(body: Mapping[str, Any], dice: Dice) -> Mapping[str, Any] | None:
    tools: list[Mapping[str, Any]] = [each for each in body.get("tools") or () if "input_schema" in each]
    if not tools:
        return None
    choice = body.get("tool_choice") or {"type": "auto"}
    index = int(dice.draws[7] * len(tools))
    match choice.get("type"):
        case "tool":
            return next((tool for tool in tools if tool.get("name") == choice.get("name")), tools[0])
        case "any":
            return tools[index]
        case "auto" if dice.draws[6] < _TOOL_WHEN_AUTO and not _has_result(body):
            return tools[index]
    return None


def _has_result(body: Mapping[str, Any]) -> bool:
    content = body["messages"][-1]["content"]
    return not isinstance(content, str) and any(block.get("type") == "tool_result" for block in content)


def _use_tool(answer: Answer, tool: Mapping[str, Any], left: int, dice: Dice, *, dense: bool) -> None:
    value = value_for(tool["input_schema"], dice.generator())
    value = value if isinstance(value, dict) else {}
    tokens = _TOOL_OVERHEAD + scale(count_text(json.dumps(value, ensure_ascii=False)), dense=dense)
    if tokens > left:
        # A call that does not fit is not made; the tokens are gone all the same.
        answer.output_tokens += left
        answer.stop_reason = "max_tokens"
        return
    answer.content.append(
        {"type": "tool_use", "id": f"toolu_{dice.digest[:12].hex()}", "name": tool["name"], "input": value}
    )
    answer.output_tokens += tokens
    answer.stop_reason = "tool_use"


def _finish_text(answer: Answer, body: Mapping[str, Any], text: str, tokens: int) -> None:
    for stop in body.get("stop_sequences") or ():
        found = text.find(stop)
        if found >= 0:
            tokens = max(1, tokens * found // max(1, len(text)))
            text = text[:found]
            answer.stop_reason, answer.stop_sequence = "stop_sequence", stop
    answer.content.append({"type": "text", "text": text})
    answer.output_tokens += tokens


def _stop_as_told(answer: Answer, direction: Direction) -> None:
    answer.stop_reason = str(direction.stop_reason)
    if answer.stop_reason != "refusal":
        return
    explanation = "This request was declined by the simulator's scenario."
    answer.stop_details = {"type": "refusal", "category": direction.category, "explanation": explanation}
    if direction.reply is None:
        answer.content, answer.output_tokens, answer.thinking_tokens = [], 1, 0


def _lognormal(mean: float, sigma: float, normal: float) -> float:
    return mean * math.exp(sigma * normal - sigma * sigma / 2)
