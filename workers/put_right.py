"""What went wrong and was put right, counted for everybody: in Redis, beside a line in the log.

The idea: none of it harms a job, but much of it says that something around us is sick, so it must be visible.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from redis import Redis
from redis.exceptions import RedisError

from promptmill.logs import get_logger
from promptmill.routes import MESSAGES_REFUSED, PUT_RIGHT

log = get_logger(__name__)


class Fault(StrEnum):
    """What was found."""

    DEAD_WORKER = "jobs_of_dead_workers"
    LOST_ID = "ids_lost_by_the_broker"
    ORPHAN_LEASE = "leases_without_a_job"
    LEAKED_PERMIT = "permits_without_a_call"
    DEAF_CONSUMER = "consumers_that_took_nothing"


@dataclass(frozen=True, slots=True)
class PutRight:
    """Notes what was put right."""

    redis: "Redis"

    def note(self, fault: Fault, count: int) -> None:
        """Log and count it; the count is best effort, as Redis may be what is sick."""
        if not count:
            return
        log.warning("put_right", what=fault.value, count=count)
        try:
            self.redis.hincrby(PUT_RIGHT, fault.value, count)
        except RedisError as error:
            log.info("put_right_not_counted", what=fault.value, error=type(error).__name__)


@dataclass(frozen=True, slots=True)
class RefusedMessages:
    """Tells what lay in the queue and was none of ours: see `workers.refusals`."""

    redis: "Redis"
    take: Callable[[], Mapping[str, int]]

    def tell(self) -> None:
        """Log and count what came since the last time; the count is best effort, as above."""
        taken = self.take()
        if not taken:
            return
        log.warning("messages_refused", **taken)
        try:
            with self.redis.pipeline(transaction=True) as pipe:
                for why, count in taken.items():
                    pipe.hincrby(MESSAGES_REFUSED, why, count)
                pipe.execute()
        except RedisError as error:
            log.info("refused_messages_not_counted", error=type(error).__name__)
