"""The three dimensions of a rate limit, and vectors over them.

Limits are per minute, as the account's page and the reply headers state them; amounts are plain counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Dimension(StrEnum):
    """What a limit counts, in the words of the `anthropic-ratelimit-*` headers."""

    REQUESTS = "requests"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


DIMENSIONS = tuple(Dimension)


@dataclass(frozen=True, slots=True)
class Amounts:
    """A count in every dimension: what a call reserves, used, or was told is left."""

    requests: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0

    def __iter__(self) -> Iterator[float]:
        return iter((self.requests, self.input_tokens, self.output_tokens))

    def __getitem__(self, dimension: Dimension) -> float:
        return float(getattr(self, dimension.value))


@dataclass(frozen=True, slots=True)
class Headroom:
    """What the reply headers said about the group's limits; None where a header was missing.

    `limit` is per minute, `remaining` a level right after admission; token levels are rounded to the
    nearest 1,000 by the server (claude-api.md, 5.5).
    """

    requests_limit: float | None = None
    requests_remaining: float | None = None
    input_tokens_limit: float | None = None
    input_tokens_remaining: float | None = None
    output_tokens_limit: float | None = None
    output_tokens_remaining: float | None = None

    def limit(self, dimension: Dimension) -> float | None:
        """The limit per minute in one dimension."""
        value: float | None = getattr(self, f"{dimension.value}_limit")
        return value

    def remaining(self, dimension: Dimension) -> float | None:
        """The level in one dimension."""
        value: float | None = getattr(self, f"{dimension.value}_remaining")
        return value
