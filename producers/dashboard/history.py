"""The last quarter of an hour: answers a second and dollars an hour over all batches, one sample every five seconds. Pure.

The one idea: counters are compared between two looks, and only of batches that both have seen, so a batch that comes or
goes makes no step. What a retry takes back from a counter is no negative pace.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from promptmill.pricing import NANOS_PER_DOLLAR
from promptmill.store.batches import BatchRow, Head
from promptmill.store.stats import Standing

EVERY_S = 5.0
KEPT = 180
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One point: seconds since the epoch, answers a second, dollars an hour."""

    at: float
    answers_per_s: float
    usd_per_h: float


@dataclass(slots=True)
class History:
    """Takes in what each look saw; keeps KEPT samples."""

    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT))
    _before: dict[str, tuple[int, int]] = field(default_factory=dict)
    _at: float | None = None

    def note(self, rows: Sequence[BatchRow | Head | Standing], *, at: float) -> bool:
        """Take in the counters of batches at `at`, seconds since the epoch; whether that made a sample."""
        if self._at is not None and 0 <= at - self._at < EVERY_S:
            return False
        now = {row.id: (row.done, row.cost_nanos) for row in rows}
        if self._at is not None and at > self._at:
            self.samples.append(self._compared(now, at, at - self._at))
        self._before, self._at = now, at
        return True

    def document(self) -> dict[str, Any]:
        """The samples in columns, oldest first."""
        return {
            "every_s": EVERY_S,
            "at": [round(each.at, 1) for each in self.samples],
            "answers_per_s": [round(each.answers_per_s, 2) for each in self.samples],
            "usd_per_h": [round(each.usd_per_h, 4) for each in self.samples],
        }

    def _compared(self, now: dict[str, tuple[int, int]], at: float, seconds: float) -> Sample:
        steps = [
            (max(0, done - self._before[name][0]), max(0, cost - self._before[name][1]))
            for name, (done, cost) in now.items()
            if name in self._before
        ]
        answers, nanos = sum(step[0] for step in steps), sum(step[1] for step in steps)
        return Sample(at, answers / seconds, nanos / NANOS_PER_DOLLAR / seconds * _HOUR_S)
