"""The message object of a reply and its usage, as the API writes them (claude-api.md, 3.1 and 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptmill.simulator.answers import Answer
from promptmill.simulator.caching import CachePlan
from promptmill.simulator.models import ServedModel
from promptmill.usage import Usage

_TOKENS_AT_START = 4


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with everything around it; nothing is sent yet."""

    id: str
    model: str
    answer: Answer
    cache: CachePlan
    inference_geo: str | None
    speed: str | None

    def message(self) -> dict[str, Any]:
        """The whole message object of a plain reply."""
        answer = self.answer
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": answer.content,
            "stop_reason": answer.stop_reason,
            "stop_sequence": answer.stop_sequence,
            "stop_details": answer.stop_details,
            "usage": self._usage(answer.output_tokens, answer.thinking_tokens),
        }

    def opening(self) -> dict[str, Any]:
        """The message object of `message_start`: no content, the input side of the usage."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": self._usage(self.tokens_at_start, 0),
        }

    def closing(self) -> dict[str, Any]:
        """The `message_delta` event: why it stopped, and the cumulative usage."""
        answer = self.answer
        delta = {"stop_reason": answer.stop_reason, "stop_sequence": answer.stop_sequence}
        if answer.stop_details is not None:
            delta["stop_details"] = answer.stop_details  # type: ignore[assignment]  # JSON of any shape
        usage = {
            "input_tokens": self.cache.uncached,
            "cache_creation_input_tokens": self.cache.write_5m + self.cache.write_1h,
            "cache_read_input_tokens": self.cache.read,
            "output_tokens": answer.output_tokens,
            "output_tokens_details": {"thinking_tokens": answer.thinking_tokens},
        }
        return {"type": "message_delta", "delta": delta, "usage": usage}

    @property
    def tokens_at_start(self) -> int:
        """The small output count that `message_start` already shows."""
        return min(self.answer.output_tokens, _TOKENS_AT_START)

    def used(self, output_tokens: int) -> Usage:
        """What is billed when so many output tokens were made."""
        return Usage(
            input_tokens=self.cache.uncached,
            output_tokens=output_tokens,
            cache_write_5m_tokens=self.cache.write_5m,
            cache_write_1h_tokens=self.cache.write_1h,
            cache_read_tokens=self.cache.read,
        )

    def _usage(self, output_tokens: int, thinking_tokens: int) -> dict[str, Any]:
        cache = self.cache
        usage = {
            "input_tokens": cache.uncached,
            "cache_creation_input_tokens": cache.write_5m + cache.write_1h,
            "cache_read_input_tokens": cache.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": cache.write_5m,
                "ephemeral_1h_input_tokens": cache.write_1h,
            },
            "output_tokens": output_tokens,
            "output_tokens_details": {"thinking_tokens": thinking_tokens},
            "server_tool_use": None,
            "service_tier": "standard",
            "inference_geo": self.inference_geo,
        }
        if self.speed is not None:
            usage["speed"] = self.speed
        return usage


def make_reply(
    message_id: str, body: Mapping[str, Any], model: ServedModel, answer: Answer, cache: CachePlan
) -> Reply:
    """Put an answer into its envelope."""
    asked_speed = body.get("speed")
    return Reply(
        id=message_id,
        model=model.facts.id,
        answer=answer,
        cache=cache,
        inference_geo=(body.get("inference_geo") or "global") if model.takes_geo else None,
        speed="standard" if asked_speed == "fast" and model.fast == "ignored" else asked_speed,
    )
