"""What lies in the queue of ids, asked from outside: by the reaper, who looks for lost ids, and by the watchdog.

Each has a queue of its own to ask, with a connection that is kept: they are on two threads, and ask every second.

The idea: Redis shows every message, another broker only how many there are. None is as good as a list; of some, nothing
can be said about a single id, and what is lost among them is found when the queue is empty next.
"""

from dataclasses import dataclass
from typing import Any, Final, Protocol

from amqp.exceptions import AMQPError, ChannelError
from celery import Celery
from kombu.exceptions import KombuError
from redis import Redis

from promptmill.broker import limit_waiting, queue_length, queued_ids
from promptmill.errors import Unavailable
from promptmill.routes import ANSWER_QUEUE

PATIENCE_S: Final = 5.0
"""Seconds a broker may take to answer; a thread that waits for longer is missed elsewhere."""
NO_SUCH_QUEUE: Final = "404"
"""As AMQP says it; kombu's own transports say it as a text, and of a queue that is empty, too."""


class BrokerQueue(Protocol):
    """The queue of ids."""

    def ids(self) -> set[str]:
        """The ids in it, without those that a worker has taken.

        Raises:
            Unavailable: the broker cannot say.
        """

    def length(self) -> int:
        """How many messages are in it.

        Raises:
            Unavailable: the broker cannot say.
        """

    def close(self) -> None:
        """Give the connection back."""


@dataclass(frozen=True, slots=True)
class RedisQueue:
    """A list in Redis."""

    redis: "Redis"

    def ids(self) -> set[str]:
        """Read from the messages."""
        return queued_ids(self.redis)

    def length(self) -> int:
        """Redis's own count."""
        return queue_length(self.redis)

    def close(self) -> None:
        """Give the connections back."""
        self.redis.close()


@dataclass(slots=True)
class ForeignQueue:
    """A queue at any other broker that kombu knows; for one thread."""

    app: Celery
    _connection: Any = None
    _channel: Any = None

    def ids(self) -> set[str]:
        """None where it is empty; else nobody can say."""
        if count := self.length():
            raise Unavailable(f"{count} messages lie in the queue, and this broker does not show them")
        return set()

    def length(self) -> int:
        """The broker's own count; 0 where there is no queue, because nothing was published yet."""
        try:
            self._connect()
            return int(self._channel.queue_declare(ANSWER_QUEUE, passive=True).message_count)
        except (AMQPError, KombuError, OSError) as error:
            self.close()
            if isinstance(error, ChannelError) and str(error.reply_code) == NO_SUCH_QUEUE:
                return 0
            raise Unavailable(f"the broker's queue cannot be read ({type(error).__name__})") from error

    def _connect(self) -> None:
        if self._channel is None:
            self._connection = self.app.connection_for_read(connect_timeout=PATIENCE_S)
            self._connection.ensure_connection(max_retries=1, interval_start=0)
            limit_waiting(self._connection, PATIENCE_S)
            self._channel = self._connection.channel()

    def close(self) -> None:
        """Drop the connection without a word, for there may be nobody to hear it; it is made anew when it is needed."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.collect()
