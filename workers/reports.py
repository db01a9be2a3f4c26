"""What a process tells of itself in Redis while it lives: what it has in hand, its keys, its vitals, what it refused.

The idea to keep in mind: each is one round that may fail, and the next tells anew; the threads that wait for Redis are
not the event loop.
"""

import asyncio
from collections.abc import Callable

from workers import pool
from workers.hands import InHand
from workers.parts import Parts
from workers.put_right import RefusedMessages
from workers.refusals import refused
from workers.vitals import Vitals


class Reports:
    """Tells of one process; the rounds belong to its event loop.

    Args:
        parts: what the process is made of.
        handed_over: ids of the jobs that Celery's consumer has and that have not begun.
    """

    def __init__(self, parts: Parts, handed_over: Callable[[], frozenset[str]]) -> None:
        self._parts = parts
        self._handed_over = handed_over
        self._vitals = Vitals(parts.redis, parts.worker_id, pool.worst_lag)
        self._refused = RefusedMessages(parts.redis, refused.take)

    async def tell_in_hand(self) -> None:
        """So that nobody takes for lost what waits here for its turn."""
        parts = self._parts
        at = await asyncio.to_thread(parts.hands.now)
        in_hand = InHand(at, self._handed_over() | frozenset(parts.on_hand))
        await asyncio.to_thread(parts.hands.tell, parts.worker_id, in_hand)

    async def tell_keys(self) -> None:
        """How each key stands."""
        await asyncio.to_thread(self._parts.key_report.tell, self._parts.key_states())

    async def tell_vitals(self) -> None:
        """How late the event loop is, and how much memory this takes."""
        await asyncio.to_thread(self._vitals.tell)

    async def tell_refused(self) -> None:
        """What lay in the queue and was none of ours."""
        await asyncio.to_thread(self._refused.tell)

    def leave(self) -> None:
        """The last words; blocks."""
        self._refused.tell()
        self._parts.key_report.leave()
