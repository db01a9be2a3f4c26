"""Pace: how fast a batch goes now, from what was done at a few moments of the recent past. Pure."""

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 30.0
_ENDS = 2


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    done: int
    tokens: int


@dataclass(slots=True)
class Pace:
    """Answers and tokens per second over the last half minute."""

    _samples: deque[_Sample] = field(default_factory=deque)

    def note(self, at: float, *, done: int, tokens: int) -> None:
        """Take in where the batch stands; `at` is a monotonic time in seconds."""
        samples = self._samples
        samples.append(_Sample(at, done, tokens))
        # One sample from before the window stays, so that the span it measures is the whole window.
        while len(samples) > _ENDS and samples[1].at <= at - WINDOW_S:
            samples.popleft()

    @property
    def answers_per_s(self) -> float:
        """Jobs ended per second; 0 before two moments were noted."""
        return self._rate(self._span.done)

    @property
    def tokens_per_s(self) -> float:
        """Tokens read and written per second."""
        return self._rate(self._span.tokens)

    def seconds_for(self, jobs: int) -> float | None:
        """How long `jobs` more take at this pace; None while nothing moves."""
        if jobs == 0:
            return 0.0
        pace = self.answers_per_s
        return jobs / pace if pace > 0 else None

    @property
    def _span(self) -> _Sample:
        if not self._samples:
            return _Sample(0.0, 0, 0)
        first, last = self._samples[0], self._samples[-1]
        return _Sample(last.at - first.at, last.done - first.done, last.tokens - first.tokens)

    def _rate(self, count: int) -> float:
        seconds = self._span.at
        return max(0.0, count / seconds) if seconds > 0 else 0.0
