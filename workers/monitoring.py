"""Events for Flower: gathered, and not made at all while nobody listens.

Celery sends three for each task, and an event costs as much as taking the task. They are news, not truth (the
database is that), so they may be a moment late and may be lost: they leave a few times a second in one message,
and the batched transport counts who hears them; when nobody does, the tasks are not told of. To go on counting, a
message without an event in it goes where they go, with each of the worker's own (every 2 s).
"""

import time
from collections import deque
from typing import Any, Final

from celery.app.events import Events as CeleryEvents
from celery.events.dispatcher import EventDispatcher
from celery.exceptions import Ignore
from celery.worker.request import Request
from celery.worker.state import task_ready

from promptmill.states import JobState

BUFFERED: Final = 2000
"""Events of tasks that wait; with one more they leave at once."""
KEPT_OFFLINE: Final = 1000
"""Messages with events that are kept while the broker is away; then the oldest go."""
HEARD_FOR_S: Final = 5.0
"""How long a count of listeners is believed. It is renewed every 2 s; without that every event is sent."""


LOST_WORDS: Final = "Lost('the process of its worker ended')"
"""What Flower shows of a job whose worker died, in its call or before it could tell how the call went."""


def event_of_lost(state: JobState) -> str | None:
    """What to tell of a job that a dead process had; nothing of one that goes on elsewhere by now."""
    return {
        JobState.PENDING: "task-retried",
        JobState.ERRORED: "task-failed",
        JobState.CANCELED: "task-revoked",
        JobState.EXPIRED: "task-revoked",
        JobState.SUCCEEDED: "task-succeeded",
    }.get(state)


class TaskEvents(EventDispatcher):
    """Celery's dispatcher of events, in a worker."""

    producer: Any
    _publish: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"buffer_limit": BUFFERED, **options})
        self._outbound_buffer: deque[Any] = deque(maxlen=KEPT_OFFLINE)

    def send(self, type: str, *args: Any, **fields: Any) -> None:  # noqa: A002  # Celery's signature
        """Send an event, or keep it for the next flush; one of a task only where somebody listens."""
        if type.startswith("task-") and self._nobody_listens():
            return
        super().send(type, *args, **fields)
        if type.startswith("worker-") and hasattr(self._channel, "listeners"):
            self._publish([], self.producer, "task.multi")

    def _nobody_listens(self) -> bool:
        count = getattr(self._channel, "listeners", None)
        return count is not None and count.heard == 0 and time.monotonic() - count.at < HEARD_FOR_S

    @property
    def _channel(self) -> Any:
        """One of the batched transport has `listeners`; others do not count."""
        return getattr(self.producer, "channel", None)


class Revoked(Ignore):
    """A task's job was withdrawn before its call, which Celery has no exception for; the text is the job's state."""


class JobRequest(Request):
    """Celery's view of one job in a worker, which can also end as revoked by the job's own doing."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Called on the consumer's thread with the exception that a task ended with."""
        ended_with = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it to be pickled
        if not isinstance(ended_with, Revoked):
            return super().on_failure(exc_info, send_failed_event, return_ok)
        task_ready(self)
        expired = str(ended_with) == JobState.EXPIRED
        self.send_event("task-revoked", terminated=False, signum=None, expired=expired)
        return None


class Events(CeleryEvents):
    """`app.events`, with our dispatcher."""

    dispatcher_cls = TaskEvents  # type: ignore[assignment]  # a class is as good as its name
