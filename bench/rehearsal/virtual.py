"""Virtual time: an event loop whose clock jumps to the next timer instead of waiting for it.

So the very limiter that runs in production is tried for ten minutes in a second, and every run with the same
seed is the same run. Nothing here may wait for anything but timers: there are no sockets and no threads.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_BEGINS = 1000.0


class _JumpingSelector(selectors.SelectSelector):
    """Never waits: time goes on by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.time = _BEGINS

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits for somebody else")
        self.time += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is the selector's."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds."""
        return self._jumping.time


class LoopClock:
    """The running loop's time as a `Clock`, which may be wrong by some seconds."""

    def __init__(self, ahead: float = 0.0) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        """The time as a date."""
        return datetime.fromtimestamp(self.monotonic(), UTC)

    def monotonic(self) -> float:
        """The time in seconds."""
        return asyncio.get_running_loop().time() + self._ahead

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(max(0.0, seconds))


def run_virtually(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine in virtual time and return its result."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)
