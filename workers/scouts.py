"""Which calls are streamed only so that their headers come early.

The headers of a plain answer arrive when it ends, up to a minute after the moment they describe; those of a stream
when it begins. One stream a second is enough to learn limits, their changes and other programs' use in time, and
costs next to nothing.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from promptmill.limits import Pool

EVERY_S = 1.0
"""Between two scouts of one process at one pool."""


@dataclass(slots=True)
class Scouts:
    """Chooses the calls, and keeps hold of their reports until those are delivered."""

    clock: Callable[[], float] = monotonic
    _sent_at: dict[Pool, float] = field(default_factory=dict)
    _reports: set["asyncio.Task[None]"] = field(default_factory=set)

    def send(self, pool: Pool) -> bool:
        """Whether the next call of a pool is to be a scout."""
        now = self.clock()
        if now - self._sent_at.get(pool, float("-inf")) < EVERY_S:
            return False
        self._sent_at[pool] = now
        return True

    def keep(self, report: "asyncio.Task[None]") -> None:
        """Hold a report that nobody awaits."""
        self._reports.add(report)
        report.add_done_callback(self._reports.discard)
