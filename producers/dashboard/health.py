"""Whether the page can do its work, for whoever asks how often: it is open to all, so asking costs the database nothing.

The one idea: one question to the database a second at most, and all who ask meanwhile wait for its answer.
"""

import asyncio
import time
from collections.abc import Callable

from promptmill.errors import PromptmillError

KEEP_S = 1.0


class Health:
    """Keeps what was found for a second."""

    def __init__(self, check: Callable[[], None], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._check = check
        self._monotonic = monotonic
        self._asking = asyncio.Lock()
        self._until = float("-inf")
        self._is_well = False

    async def is_well(self) -> bool:
        """Whether the database answers, or did within the last second."""
        async with self._asking:
            if self._monotonic() >= self._until:
                self._is_well = await asyncio.to_thread(self._answers)
                self._until = self._monotonic() + KEEP_S
            return self._is_well

    def _answers(self) -> bool:
        try:
            self._check()
        except PromptmillError:
            return False
        return True
