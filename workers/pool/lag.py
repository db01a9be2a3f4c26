"""How late an event loop runs what is due: the one number that says whether something blocks it.

A worker whose loop lags holds answers that have arrived, and its limiter acts on old news. `celery inspect stats` and
Flower show the worst of the last ten seconds; half a second of it is said in the log.
"""

import asyncio
from collections import deque

from promptmill.logs import get_logger

log = get_logger(__name__)

WINDOW_S = 10.0
TOO_LATE_S = 0.5
_INTERVAL_S = 0.1


class LagMeter:
    """The worst lag of the last ten seconds."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, float]] = deque()  # (second, worst lag seen in it), newest last

    def observe(self, lag: float, *, now: float) -> None:
        """Note that something due ran `lag` seconds late at `now`."""
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            lag = max(lag, self._seconds.pop()[1])
        self._seconds.append((second, lag))
        while self._seconds[0][0] <= second - WINDOW_S:
            self._seconds.popleft()

    def worst(self, *, now: float) -> float:
        """The worst lag, in seconds, seen in the ten seconds before `now`; readable from any thread."""
        return max((lag for second, lag in tuple(self._seconds) if second > now - WINDOW_S), default=0.0)

    async def watch(self) -> None:
        """Measure the running loop until cancelled, and say where it lags too much, once in ten seconds."""
        loop = asyncio.get_running_loop()
        said_at = float("-inf")
        while True:
            due = loop.time() + _INTERVAL_S
            await asyncio.sleep(_INTERVAL_S)
            now = loop.time()
            lag = max(now - due, 0.0)
            self.observe(lag, now=now)
            if lag > TOO_LATE_S and now - said_at > WINDOW_S:
                said_at = now
                log.warning("loop_lags", seconds=round(lag, 2))
