"""The way to the workers: ids to Celery's queue, and a nudge to the dispatcher.

A message carries a job's id and its dispatch number, never a prompt. Losing one costs time only, so nothing
here waits or retries for long; whoever calls knows what to do. Celery and Redis are imported when they are
first used: this module is part of what `import producers` loads.
"""

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from promptmill.errors import Unavailable
from promptmill.logs import get_logger
from promptmill.message import Ticket, written
from promptmill.routes import (
    ANSWER_QUEUE,
    ANSWER_TASK,
    APP_NAME,
    MESSAGES_REFUSED,
    NUDGE_CHANNEL,
    PUT_RIGHT,
)

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

__all__ = [
    "Nudges",
    "Ticket",
    "celery_app",
    "is_redis",
    "limit_waiting",
    "messages_refused",
    "nudge",
    "publish",
    "put_right",
    "queue_length",
    "queued_ids",
    "reach",
    "with_tls_meant",
]

log = get_logger(__name__)

BATCH_SIZE: Final = 500
"""Messages in one round trip to the broker."""

PUBLISH_PATIENCE_S: Final = 30.0
"""Seconds to get one message out to a broker that is no Redis; for Redis `celeryconfig` says it."""

NUDGE_PATIENCE_S: Final = 0.5
"""Seconds to reach Redis, and again for its answer."""


def is_redis(broker_url: str) -> bool:
    """Whether a broker is a Redis: then its settings, its batched transport and its list of messages are to be had."""
    return broker_url.partition("://")[0] in ("redis", "rediss")


def with_tls_meant(broker_url: str) -> str:
    """The address, such that kombu speaks TLS where it says so, and checks whom it speaks to.

    For `rediss://` without a word on certificates kombu connects in the clear, and sends the password so.
    """
    scheme, separator, rest = broker_url.partition("://")
    if scheme != "rediss" or "ssl_cert_reqs=" in rest.partition("?")[2]:
        return broker_url
    return f"{scheme}{separator}{rest}{'&' if '?' in rest else '?'}ssl_cert_reqs=required"


def celery_app(redis_url: str, broker_url: str | None = None) -> "Celery":
    """The Celery app, with the settings of the top-level module `celeryconfig`; Redis is its broker unless another is named.

    It does not make itself the current app, so a producer inside somebody else's Celery program leaves that
    one alone; a worker, Flower and beat make theirs current when they start.
    """
    from celery import Celery  # noqa: PLC0415  # 0.2 s that only workers need

    # No fix-ups: a DJANGO_SETTINGS_MODULE in the surroundings is somebody else's.
    app = Celery(
        APP_NAME,
        config_source="celeryconfig",
        set_as_current=False,
        fixups=[],
        events="workers.monitoring:Events",  # loaded where events are sent or read
    )
    app.conf.update(broker_url=with_tls_meant(broker_url or redis_url), redbeat_redis_url=redis_url)
    return app


def publish(app: "Celery", tickets: Sequence[Ticket]) -> None:
    """Send one message per ticket, many in a round trip, on a connection that is kept.

    Raises:
        Unavailable: the broker is away; some of the messages may have gone out.
    """
    from amqp.exceptions import AMQPError  # noqa: PLC0415  # see the module's docstring
    from kombu.exceptions import KombuError  # noqa: PLC0415  # likewise
    from redis.exceptions import RedisError  # noqa: PLC0415

    if not tickets:
        return
    pool: Any = app.producer_pool
    try:
        with pool.acquire(block=True) as producer:
            producer.connection.ensure_connection(max_retries=1, interval_start=0)  # else it tries for 6 s
            if producer.connection.transport.driver_type == "redis":
                _push(producer.channel, tickets)
            else:
                _publish_each(app, producer, tickets)
    except (AMQPError, KombuError, RedisError, OSError) as error:
        raise Unavailable(f"the broker took no messages ({type(error).__name__})") from error


def _push(channel: Any, tickets: Sequence[Ticket]) -> None:
    """To where kombu's own publishing puts them, without its work for each (promptmill.message)."""
    with channel.conn_or_acquire() as client:
        for first in range(0, len(tickets), BATCH_SIZE):
            client.lpush(ANSWER_QUEUE, *map(written, tickets[first : first + BATCH_SIZE]))


def _publish_each(app: "Celery", producer: Any, tickets: Sequence[Ticket]) -> None:
    """For other brokers. After a failure the connection goes: half a message may be under way on it."""
    connection = producer.connection
    limit_waiting(connection, PUBLISH_PATIENCE_S)
    try:
        for ticket in tickets:
            _publish_one(app, producer, ticket)
    except OSError:
        connection.collect()
        raise


def limit_waiting(connection: Any, seconds: float) -> None:
    """So long a read or a write on an AMQP connection may take; then it is an OSError.

    py-amqp's own read_timeout does not do it: it reads again. Libraries of other brokers have their own limits.
    """
    sock = getattr(connection.connection, "sock", None)
    if sock is not None:
        sock.settimeout(seconds)


def _publish_one(app: "Celery", producer: Any, ticket: Ticket) -> None:
    """As Celery does it."""
    message = app.amqp.as_task_v2(
        ticket.job_id,
        ANSWER_TASK,
        args=(ticket.job_id, ticket.dispatch),
        kwargs={},
        argsrepr=str(ticket),
        kwargsrepr="",
        retries=ticket.attempt - 1,
    )
    producer.publish(
        message.body,
        exchange="",
        routing_key=ANSWER_QUEUE,
        serializer="json",
        headers=message.headers,
        declare=[app.amqp.queues[ANSWER_QUEUE]],
        **message.properties,
    )


def queued_ids(client: "Redis") -> set[str]:
    """The ids of the jobs whose messages lie in the queue now; those a worker has taken are not among them.

    Raises:
        Unavailable: Redis cannot say.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415  # see the module's docstring

    try:
        messages: list[bytes] = client.lrange(ANSWER_QUEUE, 0, -1)  # type: ignore[assignment]  # the sync client's answer
    except RedisError as error:
        raise Unavailable(f"the broker's queue cannot be read ({type(error).__name__})") from error
    return {job_id for message in messages if (job_id := _id_of(message)) is not None}


def _id_of(message: bytes) -> str | None:
    try:
        headers = json.loads(message)["headers"]
        job_id, task = headers["id"], headers["task"]
    except (KeyError, TypeError, ValueError):
        return None  # not ours; a worker will refuse it
    return job_id if task == ANSWER_TASK and isinstance(job_id, str) else None


def queue_length(client: "Redis") -> int:
    """How many messages lie in the queue.

    Raises:
        Unavailable: Redis cannot say.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415  # see the module's docstring

    try:
        return int(client.llen(ANSWER_QUEUE))
    except RedisError as error:
        raise Unavailable(f"the broker's queue cannot be read ({type(error).__name__})") from error


def reach(broker_url: str, *, patience_s: float) -> None:
    """Connect to a broker once, and leave it; a failure is the library's own exception."""
    from kombu import Connection  # noqa: PLC0415  # see the module's docstring

    # Of kombu's timeouts Redis has its own: else one that says nothing is waited for without end.
    options = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), patience_s)
    with Connection(
        with_tls_meant(broker_url),
        connect_timeout=patience_s,
        transport_options=options if is_redis(broker_url) else {},
    ) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)


def put_right(redis_url: str) -> dict[str, int]:
    """What workers found wrong and put right since Redis was last empty, and how often.

    Raises:
        Unavailable: Redis cannot say.
    """
    return _counts(redis_url, PUT_RIGHT)


def messages_refused(redis_url: str) -> dict[str, int]:
    """How many messages workers refused since Redis was last empty, by reason (`workers.refusals`).

    Raises:
        Unavailable: Redis cannot say.
    """
    return _counts(redis_url, MESSAGES_REFUSED)


def _counts(redis_url: str, key: str) -> dict[str, int]:
    from redis.exceptions import RedisError  # noqa: PLC0415  # see the module's docstring

    try:
        with _client(redis_url, timeout=NUDGE_PATIENCE_S) as client:
            counts: dict[bytes, bytes] = client.hgetall(key)
    except RedisError as error:
        raise Unavailable(f"the broker cannot be asked ({type(error).__name__})") from error
    return {what.decode(): int(count) for what, count in counts.items()}


def nudge(redis_url: str) -> None:
    """Tell the dispatcher that there is something to do, so that it need not wait for its next look.

    Best effort: it never raises, and takes at most a second where Redis's address is known.
    """
    try:
        with _client(redis_url, timeout=NUDGE_PATIENCE_S) as client:
            client.publish(NUDGE_CHANNEL, b"")
    except Exception as error:  # noqa: BLE001  # the dispatcher looks by itself every few seconds
        log.info("nudge_not_sent", error=type(error).__name__)


class Nudges:
    """A dispatcher's ear for nudges; use it as a context manager, from one thread."""

    def __init__(self, redis_url: str) -> None:
        self._client = _client(redis_url, timeout=NUDGE_PATIENCE_S)
        self._subscription: Any = None

    def wait(self, timeout: float) -> bool:
        """Whether a nudge came within `timeout` seconds; several that came together count once.

        With Redis away it is False after the full time, so a caller in a loop does not spin.
        """
        from redis.exceptions import RedisError  # noqa: PLC0415  # see the module's docstring

        deadline = time.monotonic() + timeout
        try:
            heard = self._hear(deadline)
            while heard and self._subscription.get_message(timeout=0) is not None:
                pass
        except (RedisError, OSError):
            self._unsubscribe()
            time.sleep(max(deadline - time.monotonic(), 0.0))
            return False
        return heard

    def _hear(self, deadline: float) -> bool:
        if self._subscription is None:
            self._subscription = self._client.pubsub()  # type: ignore[no-untyped-call]  # redis-py leaves it bare
            self._subscription.subscribe(NUDGE_CHANNEL)
        while (left := deadline - time.monotonic()) > 0:
            message = self._subscription.get_message(timeout=left)
            if message is not None and message["type"] == "message":
                return True
        return False

    def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def close(self) -> None:
        """Give the connection back."""
        self._unsubscribe()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _client(redis_url: str, *, timeout: float) -> "Redis":
    from redis import Redis  # noqa: PLC0415  # see the module's docstring
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    return Redis.from_url(
        redis_url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
    )
