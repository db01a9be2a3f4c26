"""Celery's consumer, with these things changed: malformed messages do not stop it, it does not gossip, it is counted.

Stock Celery refuses an unknown task or a foreign content type by itself. Other damage (a list entry that is
no JSON, a header that is missing) raises through the event loop and ends the worker, or sends the message
round for ever. Nothing that lies in the queue may do that.

What it counts is for the watchdog, on another thread: whether the loop turns, and whether messages are taken.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from redis.exceptions import ResponseError

from promptmill.logs import get_logger, scrub
from promptmill.routes import ANSWER_QUEUE

log = get_logger(__name__)

_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)

REFUSED_S = 1
"""Before a Redis is asked again that has refused. Connecting to it succeeds, so the wait below is none."""
LONGEST_RETRY_S = 3
"""Between two tries to reach Redis. Celery's own grow to 30 s, and end with the hundredth."""


class Consumer(CeleryConsumer):
    """The `worker_consumer` of Promptmill.

    Attributes:
        turns: how often the loop has turned, or tried to connect.
        taken: messages taken, good or bad.
    """

    connection_errors: tuple[type[Exception], ...]
    hub: Any
    app: Any
    turns = 0
    taken = 0

    def __init__(self, *args: Any, worker_options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        # Gossip and mingle tell workers of each other; ours meet in the database. Celery has no setting for them.
        kwargs["worker_options"] = {**(worker_options or {}), "without_gossip": True, "without_mingle": True}
        super().__init__(*args, **kwargs)
        # Raised by the transport itself for an entry it cannot read: reconnect, as after any broken reply.
        self.connection_errors = (*self.connection_errors, *_MALFORMED)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Celery's handler of messages, which here refuses what it cannot read."""
        handle = super().create_task_handler(*args, **kwargs)

        def handle_or_refuse(message: Any) -> Any:
            self.taken += 1
            try:
                return handle(message)
            except _MALFORMED as error:
                if message.acknowledged:
                    raise
                return self.on_invalid_task(None, message, error)

        return handle_or_refuse

    def register_with_event_loop(self, hub: Any) -> None:
        """Called with each connection; the loop's turns are counted from here on."""
        super().register_with_event_loop(hub)
        hub.on_tick.add(self._turn)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long Redis is away, and soon after it is back."""

        def trying(error: Exception, wait: float) -> None:
            log.warning(
                "broker_unreachable", error=type(error).__name__, why=scrub(str(error)), again_in_s=wait
            )

        def turn() -> None:
            self._turn()
            state.maybe_shutdown()

        return conn.ensure_connection(
            trying, None, interval_start=1, interval_step=1, interval_max=LONGEST_RETRY_S, callback=turn
        )

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Celery's clearing up; a Redis that is there and refuses (demoted, full) is not asked again at once."""
        with warnings.catch_warnings():
            # Each time it announces another default of a setting that celeryconfig sets.
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)
        if isinstance(exc, ResponseError):
            time.sleep(REFUSED_S)

    @property
    def is_subscribed(self) -> bool:
        """Whether it is to take jobs at all: a person may have told it not to, in Flower or with `-Q`."""
        return ANSWER_QUEUE in self.app.amqp.queues.consume_from

    def restart(self) -> None:
        """Connect anew. From any thread; the calls in flight are not touched."""

        def break_off() -> None:
            raise ConnectionResetError("no messages came")

        self.hub.call_soon(break_off)

    def _turn(self) -> None:
        self.turns += 1
