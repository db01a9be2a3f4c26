"""What is done again and again on the event loop, as long as the process lives.

The idea to keep in mind: a round that fails is logged and no more. The next may go well, and nobody else does it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from promptmill.logs import get_logger

log = get_logger(__name__)


class Repeating:
    """The rounds of one process; belongs to its event loop."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, act: Callable[[], Awaitable[None]], every: float) -> None:
        """Do this now, and again so many seconds after each end of it."""
        self._tasks.append(asyncio.create_task(_repeat(act, every)))

    async def stop(self) -> None:
        """End all of it, in the middle of a round too."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _repeat(act: Callable[[], Awaitable[None]], every: float) -> None:
    while True:
        try:
            await act()
        except Exception as error:  # noqa: BLE001  # without a beat, this process's permits would be taken away
            log.warning("round_missed", act=act.__name__, error=type(error).__name__)
        await asyncio.sleep(every)
