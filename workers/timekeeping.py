"""The database's time, on any machine: what is stamped on one and compared on another must agree.

`not_before`, `queued_at` and heartbeats are written and read by different processes, whose clocks differ and
jump. So all of them take the time from the database at every heartbeat, and count on from there by the
monotonic clock.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from promptmill.clock import Clock

JUMP_S = 2.0
"""Seconds between two clocks that one database and a short way to it do not explain."""


def jumped(clock: Clock, now: datetime) -> bool:
    """The database's clock, read just now, is not where counting on from its last reading leads: it was set.

    Times written before and times written after cannot be compared then.
    """
    return abs((now - clock.now()).total_seconds()) > JUMP_S


class DatabaseClock:
    """A Clock whose wall time is the database's, as of the last `set`; the machine's own before the first."""

    def __init__(self) -> None:
        self._set = datetime.now(UTC), time.monotonic()

    def set(self, now: datetime) -> None:
        """Take over the database's time; call it right after it was read."""
        self._set = now, time.monotonic()

    def now(self) -> datetime:
        """The database's time, about."""
        set_to, set_at = self._set  # both at once, whoever sets them meanwhile
        return set_to + timedelta(seconds=time.monotonic() - set_at)

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        if seconds > 0:
            await asyncio.sleep(seconds)
