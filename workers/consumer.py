"""Celery's consumer, with these things changed: malformed messages do not stop it, it does not gossip, it is counted.

Stock Celery refuses an unknown task or a foreign content type by itself, and logs all that the message held. Other
damage (a list entry that is no JSON, a header that is missing) raises through the event loop and ends the worker, or
sends the message round for ever. Nothing that lies in the queue may do any of this: `workers.refusals` says what is
refused, unread and counted.

What it counts is for the watchdog, on another thread: whether the loop turns, and whether messages are taken.

Events are flushed by the hub's timer and not by `call_soon`: from a callback that was itself put off so, they would
wait until the hub's poll ends, up to 1 s.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from celery import bootsteps
from celery.exceptions import CPendingDeprecationWarning
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from redis.exceptions import ResponseError

from promptmill.logs import get_logger, scrub
from promptmill.routes import ANSWER_QUEUE
from promptmill.states import JobState
from workers.monitoring import LOST_WORDS, event_of_lost
from workers.other_keys import StandingBack
from workers.refusals import Refusal, fault_of, refused, unpack_nothing
from workers.transport import AT_ONCE, MALFORMED

log = get_logger(__name__)

_RUN = bootsteps.RUN  # type: ignore[attr-defined]  # missing in the stubs

BATCHED_TRANSPORT = "workers.transport:Transport"
"""By name: it is shown in `inspect stats`, as JSON."""

REFUSED_S = 1
"""Before a Redis is asked again that has refused. Connecting to it succeeds, so the wait below is none."""
READS_TO_FILL = 4
"""So many reads, at least, until all the slots of a worker are taken."""
LONGEST_RETRY_S = 3
"""Between two tries to reach Redis. Celery's own grow to 30 s, and end with the hundredth."""
FLUSH_EVERY_S = 0.2
"""Between two messages with events."""


class Consumer(CeleryConsumer):
    """The `worker_consumer` of Promptmill.

    Attributes:
        turns: how often the loop has turned, or tried to connect.
        taken: messages taken, good or bad.
        standing_back: says when jobs are left to others; the stock transport takes no notice.
    """

    connection_errors: tuple[type[Exception], ...]
    hub: Any
    app: Any
    blueprint: Any
    strategies: Any
    event_dispatcher: Any
    pool: Any
    turns = 0
    taken = 0
    standing_back: StandingBack | None = None
    _flush_is_due = False

    def __init__(self, *args: Any, worker_options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        # Gossip and mingle tell workers of each other; ours meet in the database. Celery has no setting for them.
        kwargs["worker_options"] = {**(worker_options or {}), "without_gossip": True, "without_mingle": True}
        unpack_nothing()
        super().__init__(*args, **kwargs)
        # Raised by the transport itself for an entry it cannot read: reconnect, as after any broken reply.
        self.connection_errors = (*self.connection_errors, *MALFORMED)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Celery's handler of messages, which here refuses what it cannot read."""
        handle = super().create_task_handler(*args, **kwargs)

        def handle_or_refuse(message: Any) -> Any:
            self.taken += 1
            fault = fault_of(message, self.strategies)
            if fault is not None:
                return self._refuse(message, fault)
            try:
                return handle(message)
            except MALFORMED:
                if message.acknowledged:
                    raise
                return self._refuse(message, Refusal.UNREADABLE)

        return handle_or_refuse

    def _refuse(self, message: Any, why: Refusal) -> None:
        """Off the queue and counted; Celery's own ways would log what the message holds."""
        refused.add(why)
        message.reject_log_error(log, self.connection_errors)

    def on_decode_error(self, message: Any, exc: Exception) -> None:  # noqa: ARG002  # Celery's signature
        """Called for one that cannot be unpacked or decoded."""
        self._refuse(message, Refusal.UNREADABLE)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002  # Celery's signature
        """Called for one that Celery itself finds wrong."""
        self._refuse(message, Refusal.UNREADABLE)

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Called for one that names no task."""
        self._refuse(message, Refusal.UNREADABLE)

    def register_with_event_loop(self, hub: Any) -> None:
        """Called with each connection; the loop's turns are counted from here on."""
        super().register_with_event_loop(hub)
        hub.on_tick.add(self._turn)
        self._flush_is_due = False  # its timer may have gone with the last connection

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledge, or refuse, now. Put off, each would cost a turn of the hub, and it is a note in memory."""
        return p(*args, **kwargs)

    def on_send_event_buffered(self) -> None:  # type: ignore[override]  # the stubs have it return what nobody looks at
        """Called for each event of a task; the buffer leaves soon, together with what comes until then."""
        if self.blueprint.state != _RUN:
            super().on_send_event_buffered()  # there may be no later
        elif not self._flush_is_due:
            self._flush_is_due = True
            self.hub.call_later(FLUSH_EVERY_S, self._flush_gathered)

    def _flush_gathered(self) -> None:
        self._flush_is_due = False
        if self.event_dispatcher is not None:
            self.event_dispatcher.flush()

    def stop(self) -> None:
        """Stop taking messages; the events of those that ended so far leave first."""
        if self.event_dispatcher is not None:
            self.event_dispatcher.flush()
        super().stop()

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
        if isinstance(exc, MALFORMED):
            refused.add(Refusal.UNREADABLE)  # by the stock transport, which has taken it off the queue
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

    @property
    def task_ids(self) -> frozenset[str]:
        """The ids that were taken from the queue and have not ended, begun or not; from any thread."""
        handed_over: frozenset[str] = getattr(
            self.pool, "task_ids", frozenset()
        )  # Celery's pools do not tell
        return handed_over

    def restart(self) -> None:
        """Connect anew. From any thread; the calls in flight are not touched."""

        def break_off() -> None:
            raise ConnectionResetError("no messages came")

        self.hub.call_soon(break_off)

    def tell_of_lost(self, states: Mapping[str, JobState]) -> None:
        """Let Flower know how the jobs of a dead process stand; from any thread. Their own worker cannot say it."""
        self.hub.call_soon(self._tell_of_lost, states)

    def _tell_of_lost(self, states: Mapping[str, JobState]) -> None:
        if self.event_dispatcher is not None:
            for job_id, state in states.items():
                if (event := event_of_lost(state)) is not None:
                    self.event_dispatcher.send(event, uuid=job_id, exception=LOST_WORDS)

    def _turn(self) -> None:
        self.turns += 1


class BatchedConsumer(Consumer):
    """The same on the batched transport, for a broker that is Redis; `worker.transport` chooses."""

    task_consumer: Any

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """What messages are taken from."""
        return self.ensure_connected(_batched(self.app.connection_for_read(heartbeat=heartbeat)))

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """What events are sent by."""
        return self.ensure_connected(_batched(self.app.connection_for_write(url=url, heartbeat=heartbeat)))

    def register_with_event_loop(self, hub: Any) -> None:
        """Called with each connection, before messages come."""
        super().register_with_event_loop(hub)
        self.task_consumer.channel.room = self._room
        self.task_consumer.channel.stands_back = lambda: (
            self.standing_back is not None and self.standing_back.is_on
        )
        self.task_consumer.channel.share = lambda: share_of(self.pool.num_processes)

    def _room(self) -> int:
        free = self.pool.num_processes - len(state.reserved_requests)
        return free if self.standing_back is None else self.standing_back.room(free)


def share_of(slots: int) -> int:
    """How many ids one read takes at most: a quarter of the slots, so that a few ids among several workers are shared."""
    return min(AT_ONCE, max(1, slots // READS_TO_FILL))


def _batched(connection: Any) -> Any:
    """Put in after kombu has read the address: its own names, `rediss` too, decide about TLS."""
    if connection.transport_cls in ("redis", "rediss"):
        connection.transport_cls = BATCHED_TRANSPORT
    return connection
