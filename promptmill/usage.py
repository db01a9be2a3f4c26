"""Usage: what one call used, in Anthropic's own disjoint token buckets.

The buckets do not overlap: total input is `input + cache_write_5m + cache_write_1h + cache_read`.
`output_tokens` already contains thinking. Raw usage JSON is stored beside it, because fields are added
without notice (claude-api.md, 3.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token and tool counts of one call; adding two gives the counts of both."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0
    web_searches: int = 0

    @classmethod
    def from_reply(cls, usage: Mapping[str, Any] | None) -> "Usage":
        """Read the `usage` object of a reply; absent and null fields count as zero.

        Writes to the cache without a split by lifetime are taken as 5-minute writes (claude-api.md, 9.5).
        """
        usage = usage or {}
        written = int(usage.get("cache_creation_input_tokens") or 0)
        split = usage.get("cache_creation") or {}
        hour = int(split.get("ephemeral_1h_input_tokens") or 0)
        tools = usage.get("server_tool_use") or {}
        return cls(
            input_tokens=int(usage.get("input_tokens") or 0),
            output_tokens=int(usage.get("output_tokens") or 0),
            cache_write_5m_tokens=max(0, written - hour),
            cache_write_1h_tokens=hour,
            cache_read_tokens=int(usage.get("cache_read_input_tokens") or 0),
            web_searches=int(tools.get("web_search_requests") or 0),
        )

    @property
    def cache_write_tokens(self) -> int:
        """Tokens written to the cache, whatever their lifetime."""
        return self.cache_write_5m_tokens + self.cache_write_1h_tokens

    @property
    def total_input_tokens(self) -> int:
        """Everything that was read: the length of the prompt."""
        return self.input_tokens + self.cache_write_tokens + self.cache_read_tokens

    @property
    def limited_input_tokens(self) -> int:
        """What counts against the input-token limit: cache reads do not (claude-api.md, 5.1)."""
        return self.input_tokens + self.cache_write_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_write_5m_tokens=self.cache_write_5m_tokens + other.cache_write_5m_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            web_searches=self.web_searches + other.web_searches,
        )
