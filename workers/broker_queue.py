"""What lies in the queue of ids, asked from outside: by the reaper, who looks for lost ids, and by the watchdog.

The idea: Redis shows every message, another broker only how many there are. None is as good as a list; of some, nothing
can be said about a single id, and what is lost among them is found when the queue is empty next.
"""

from dataclasses import dataclass
from typing import Protocol

from celery import Celery
from redis import Redis

from promptmill.broker import messages_waiting, queue_length, queued_ids
from promptmill.errors import Unavailable


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


@dataclass(frozen=True, slots=True)
class ForeignQueue:
    """A queue at any other broker that kombu knows."""

    app: Celery

    def ids(self) -> set[str]:
        """None where it is empty; else nobody can say."""
        if count := self.length():
            raise Unavailable(f"{count} messages lie in the queue, and this broker does not show them")
        return set()

    def length(self) -> int:
        """The broker's own count."""
        return messages_waiting(self.app)
