"""Celery's consumer, seen from the process: what it was handed, what it is told, and whether it takes messages.

The idea to keep in mind: the consumer comes last and belongs to Celery. Until there is one it has nothing, and what it
is told is lost.
"""

import os
import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from promptmill.errors import Unavailable
from promptmill.states import JobState
from workers.parts import Parts
from workers.put_right import Fault
from workers.watchdog import Judge, Signs, Watchdog

CALL_SLACK_S = 90.0
"""Above the client's own timeout of a call, when Celery ends its task; see `celeryconfig`."""


class ConsumerWatch:
    """Watches the consumer of one process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._consumer: Any = None
        self._watchdog: Watchdog | None = None

    def begin(self, consumer: Any, *, abandon: Callable[[], None]) -> None:
        """Watch this one; `abandon` hands back what runs and signs off, without the main thread."""
        settings = self._parts.runtime.settings
        consumer.standing_back = self._parts.standing_back
        self._consumer = consumer
        self._watchdog = Watchdog(
            judge=Judge(deaf_after=settings.worker.deaf_after_s, hung_after=settings.worker.hung_after_s),
            signs=partial(self._signs, consumer),
            restart=partial(self._restart, consumer),
            end=lambda: os.kill(os.getpid(), signal.SIGTERM),
            abandon=abandon,
            on_hand=lambda: len(self._parts.on_hand),
            longest_call=settings.claude.total_timeout_s + CALL_SLACK_S,
        )
        self._watchdog.start()

    def stand_down(self) -> None:
        """Watch no more: the process drains. Does not wait."""
        if self._watchdog is not None:
            self._watchdog.stand_down()

    def handed_over(self) -> frozenset[str]:
        """Ids of the jobs that it has and that have not begun."""
        return frozenset() if self._consumer is None else self._consumer.task_ids

    def tell_of_lost(self, states: Mapping[str, JobState]) -> None:
        """How the jobs of dead processes stand, for those that listen to its events."""
        if self._consumer is not None:
            self._consumer.tell_of_lost(states)

    def _signs(self, consumer: Any) -> Signs:
        try:
            waiting = self._parts.watched_queue.length() > 0
        except Unavailable:
            waiting = None
        stands_back = self._parts.standing_back.is_on
        free = consumer.pool.has_free_slot and consumer.is_subscribed and not stands_back
        return Signs(consumer.turns, consumer.taken, free=free, waiting=waiting)

    def _restart(self, consumer: Any) -> None:
        self._parts.put_right.note(Fault.DEAF_CONSUMER, 1)
        consumer.restart()
