"""kombu's Redis transport, made to take many ids in a round trip.

Stock kombu asks for one message, waits, makes a client object for each thing it does, and asks again. Here an
answer to the waiting read is followed by one read for as many more as there are free slots, up to a cap, so that
several workers share what is there; and after a read that left nothing, the next waits for a moment, in which
ids gather. What is popped is handed to Celery in the same turn of the loop, so it is in the pool's hands at once
(`TaskPool.task_ids`), and what a killed worker had popped comes back as ever, by the reaper.

It overrides methods that kombu does not promise, hence the pin of kombu in pyproject.toml; `worker.transport` =
"stock" does without it.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty
from typing import Any, Final

from celery.events import event
from kombu.asynchronous import get_event_loop
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import RedisError, ResponseError

from promptmill import jsontext
from promptmill.logs import get_logger
from workers.refusals import LARGEST_ENTRY, Refusal, refused

log = get_logger(__name__)
stock: Any = kombu_redis  # the stubs know half of it

AT_ONCE: Final = 32
"""The most ids one read takes. The cost of a read is shared by as many; other workers get the next ones."""
REST_S: Final = 0.02
"""Seconds after a read that emptied the queue until the next one. A lone id that comes later is taken at once."""

EVENTS: Final = event.EVENT_EXCHANGE_NAME  # type: ignore[attr-defined]  # missing in the stubs

PATIENCE_S: Final = 5.0
"""Seconds Redis may take to answer what the main thread waits for (all but the read that waits in Redis)."""

MALFORMED: Final = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
"""What an entry raises that is no message."""


class NoMessage(Exception):
    """An entry of the queue is none; what Celery does with a message raises anything else."""

    def __init__(self, why: Refusal) -> None:
        super().__init__(why.value)
        self.why = why


class Message(stock.virtual.Message):  # type: ignore[misc]  # see `stock`
    """A message from the queue."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        try:
            super().__init__(payload, channel=channel, **options)
        except MALFORMED as error:
            raise NoMessage(Refusal.UNREADABLE) from error


def _one() -> int:
    return 1


def _cap() -> int:
    return AT_ONCE


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Listeners:
    """How many heard an event of a task, and when that was (monotonic seconds)."""

    heard: int
    at: float


class Channel(stock.Channel):  # type: ignore[misc]  # see `stock`
    """A channel that reads many messages at once.

    Attributes:
        room: how many more messages the worker can begin; set by its consumer, like the next.
        share: how many one read takes at most, so that other workers get some; 1 at least.
        stands_back: whether nothing is to be taken for now, because others can answer and this worker cannot.
        listeners: who heard the last event of a task that was sent here.
    """

    Message = Message
    room: Callable[[], int] = staticmethod(_one)
    share: Callable[[], int] = staticmethod(_cap)
    stands_back: Callable[[], bool] = staticmethod(_never)
    listeners: Listeners | None = None
    _kept_client: Any = None
    _rests_until = 0.0

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """A client on this channel's connections; the same one each time, it is safe in threads."""
        if client is None:
            pool = self.pool
            if self._kept_client is None or self._kept_client.connection_pool is not pool:
                self._kept_client = self._create_client()
            client = self._kept_client
        yield client

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        if not asynchronous:
            parameters["socket_timeout"] = PATIENCE_S
        return parameters

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Ask for a message, unless it is time to rest; kombu comes again in the next turn of the loop."""
        if (self._rests_until and time.monotonic() < self._rests_until) or self.stands_back():
            return
        self._rests_until = 0.0
        super()._brpop_start(timeout)

    def _brpop_read(self, **options: Any) -> bool:
        """Take the message that was asked for, and others that wait behind it."""
        try:
            answer = self._parsed(**options)
            if not answer:
                raise Empty
            key, entry = answer
            queue = bytes_to_str(key).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self._hand_over([entry], queue, key)
            taken, wanted = self._take(queue, key, self.share() - 1)
            if taken < wanted:
                self._rest(queue, key)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        return True

    def _receive_one(self, c: Any) -> bool:
        """One broadcast: a control command, say. One that is no message would end the worker, or be logged in full."""
        try:
            response = c.parse_response()
        except self.connection_errors:
            self._in_listen = None
            raise
        payload = self._handle_message(c, response) if isinstance(response, list | tuple) else {}
        if not bytes_to_str(payload.get("type", "")).endswith("message") or not payload["data"]:
            return False
        channel = bytes_to_str(payload["channel"])
        exchange = channel.removeprefix(self.keyprefix_fanout).split("/", 1)[0]
        try:
            return bool(self._deliver_fanout_message(_parsed(payload["data"]), exchange))
        except NoMessage as error:
            refused.add(error.why)
            return False

    def _parsed(self, **options: Any) -> Any:
        connection = self.client.connection
        try:
            return self.client.parse_response(connection, "BRPOP", **options)
        except self.connection_errors:
            connection.disconnect()  # so that the next turn connects anew
            raise

    def _take(self, queue: str, key: bytes, most: int) -> tuple[int, int]:
        """Take what lies there and there is room for; how many that were, and how many were wanted."""
        wanted = min(self.room(), most)
        if wanted <= 0 or self._closing or not self.qos.can_consume():
            return 0, 0
        with self.conn_or_acquire() as client:
            entries = client.rpop(key, wanted) or []
        self._hand_over(entries, queue, key)
        return len(entries), wanted

    def _rest(self, queue: str, key: bytes) -> None:
        hub = get_event_loop()
        if hub is None:
            return  # nobody would wake us
        self._rests_until = time.monotonic() + REST_S
        hub.call_later(REST_S, self._look, queue, key)

    def _look(self, queue: str, key: bytes) -> None:
        """After a rest: take what has gathered. Where nothing has, kombu asks and waits, as it does for several queues."""
        self._rests_until = 0.0
        if self.closed or self._in_poll or self.active_queues != [queue]:
            return
        try:
            taken, wanted = self._take(queue, key, self.share())
        except ResponseError:
            return  # a Redis that refuses; so it will refuse the read that comes now, and that is the consumer's matter
        if 0 < taken < wanted:
            self._rest(queue, key)

    def _hand_over(self, entries: list[bytes], queue: str, key: bytes) -> None:
        """To Celery, one after the other. One that is no message must not take the others with it."""
        done = 0
        try:
            for entry in entries:
                done += 1
                try:
                    self.connection._deliver(_parsed(entry), queue)  # noqa: SLF001  # as kombu's own channel does
                except NoMessage as error:
                    refused.add(error.why)
        finally:
            self._give_back(entries[done:], key)

    def _give_back(self, entries: list[bytes], key: bytes) -> None:
        """What Celery could not be given any more, in its old order."""
        if not entries:
            return
        try:
            with self.conn_or_acquire() as client:
                client.rpush(key, *reversed(entries))
        except (RedisError, OSError) as error:
            log.warning(
                "ids_not_given_back", ids=len(entries), error=type(error).__name__
            )  # the reaper finds them

    def _put_fanout(self, exchange: str, message: Any, routing_key: str, **options: Any) -> None:
        """Publish to all who listen, and for events of tasks note how many that were."""
        if exchange != EVENTS or not routing_key.startswith("task."):
            super()._put_fanout(exchange, message, routing_key, **options)
            return
        payload = json.dumps(message)
        with self.conn_or_acquire() as client:
            heard = client.publish(self._get_publish_topic(exchange, routing_key), payload)
        self.listeners = Listeners(heard, time.monotonic())


def _parsed(entry: bytes) -> Any:
    if len(entry) > LARGEST_ENTRY:
        raise NoMessage(Refusal.TOO_LARGE)
    try:
        return jsontext.read(entry)
    except MALFORMED as error:
        raise NoMessage(Refusal.UNREADABLE) from error


class Transport(stock.Transport):  # type: ignore[misc]  # see `stock`
    """The transport of a worker's consumer; see `workers.consumer.BatchedConsumer`."""

    Channel = Channel
